Feature: What was accepted survives
  A task is on disk before its 202. A killed orchestratord loses none and runs none twice.

  @ORCHD-JOURNAL-001
  Scenario: Waiting tasks run after a kill, and a finished one can still be read
    Given one pool with the fake engine that has "STUB_TOKEN_MS: '20'"
    And orchestratord runs
    And pool "p" is ready
    And task "finished" is submitted
    When a client follows task "finished"
    Then the stream of "finished" is started, tokens without a gap, and one end
    When a client submits task "running"
      """
      {"max_tokens": 500}
      """
    Then task "running" becomes running
    When a client submits task "waiting"
    And orchestratord is killed
    And orchestratord starts
    Then whoever resumes "finished" after any event gets exactly the rest
    And task "waiting" becomes done
    When a client asks POST /v2/tasks
      """
      {"model": "p", "prompt": "another", "max_tokens": 8, "task_id": "$waiting"}
      """
    Then the answer is 409 with code "CONFLICT"

  @ORCHD-RESUME-010
  Scenario: A task that must not go on is told that it was interrupted
    Given one pool with the fake engine that has "STUB_TOKEN_MS: '20'"
    And orchestratord runs
    And pool "p" is ready
    When a client submits task "cut"
      """
      {"max_tokens": 1000, "on_interrupt": "fail"}
      """
    And a client reads 5 tokens of task "cut" and leaves
    And orchestratord is killed
    And orchestratord starts
    And the client of task "cut" comes back
    Then the stream of "cut" ends with error "INTERRUPTED"
    And the last event of "cut" counts the tokens that were sent
    And task "cut" becomes interrupted

  @ORCHD-ARTIFACT-002
  Scenario: What was kept is its owner's, also after a kill
    Given the configuration
      """
      api: { tokens_file: $DIR/tokens }
      pools: [{ id: p, model: $MODEL, engine: $STUB_ENGINE }]
      """
    And the tokens "the-token-of-alice" and "the-token-of-bob" for data and "the-token-of-root" for control
    And orchestratord runs
    When a client asks POST /v2/artifacts with "Authorization: Bearer the-token-of-alice"
      """
      {"what": "a note"}
      """
    Then the answer is 201
    When orchestratord is killed
    And orchestratord starts
    And a client asks GET /v2/artifacts/9807b70d016f317b150607cab60e56d2f29487d6cf976b3752cd519a9f829c45 with "Authorization: Bearer the-token-of-alice"
    Then the answer is 200
    And the answer mentions "a note"
    When a client asks GET /v2/artifacts/9807b70d016f317b150607cab60e56d2f29487d6cf976b3752cd519a9f829c45 with "Authorization: Bearer the-token-of-bob"
    Then the answer is 404 with code "NOT_FOUND"

  @ORCHD-JOURNAL-008
  Scenario: What cannot be written down is not accepted, and is once it can
    Given one pool with the fake engine
    And orchestratord runs
    And pool "p" is ready
    And the directory "runtime/journal/prompts" is taken away
    When a client submits task "t"
      """
      {"task_id": "mine"}
      """
    Then the answer is 503 with code "STORAGE_UNAVAILABLE"
    And the answer says when to come back
    And the answer's "/error/retriable" is "true"
    When a client asks GET /v2/tasks/mine
    Then the answer is 404 with code "NOT_FOUND"
    When the directory "runtime/journal/prompts" is put back
    And a client submits task "t" until it is accepted
      """
      {"task_id": "mine"}
      """
    Then task "t" becomes done
    And the metric orchd_tasks_enqueued_total is 1
    And the metric orchd_tasks_failed_total is 0
