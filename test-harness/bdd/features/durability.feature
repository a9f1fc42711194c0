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
