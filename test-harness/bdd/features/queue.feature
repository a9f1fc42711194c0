Feature: An honest queue

  @ORCHD-ADMIT-001 @ORCHD-ADMIT-006
  Scenario: A task waits for an engine that is still loading and is told so
    Given one pool with the fake engine that has "STUB_LOAD_MS: '1500'"
    And orchestratord runs
    When a client submits task "t"
    Then the answer is 202
    And the answer's "/streams/sse" mentions "/v2/tasks/"
    When a client follows task "t"
    Then the stream of "t" is started, tokens without a gap, and one end

  @ORCHD-ADMIT-003
  Scenario: A full queue refuses and says when to come back
    Given the configuration
      """
      pools:
        - id: p
          model: $MODEL
          engine: $STUB_ENGINE
          env: { STUB_TOKEN_MS: "200" }
          queue: { capacity: 2, full_policy: reject }
      """
    And orchestratord runs
    And pool "p" is ready
    And task "running" is submitted
      """
      {"max_tokens": 200}
      """
    And task "running" is in state running
    And 2 tasks are submitted
    When a client submits task "one too many"
    Then the answer is 429 with code "QUEUE_FULL"
    And the answer says when to come back

  @ORCHD-FAIR-005
  Scenario: With drop-lru the oldest batch task gives up its place
    Given the configuration
      """
      pools:
        - id: p
          model: $MODEL
          engine: $STUB_ENGINE
          env: { STUB_TOKEN_MS: "200" }
          queue: { capacity: 4, full_policy: drop-lru }
      """
    And orchestratord runs
    And pool "p" is ready
    And task "running" is submitted
      """
      {"max_tokens": 200}
      """
    And task "running" is in state running
    And task "batch" is submitted
      """
      {"priority": "batch"}
      """
    And 3 tasks are submitted
    When a client submits task "interactive"
    Then the answer is 202
    When a client follows task "batch"
    Then the stream of "batch" ends with error "QUEUE_FULL"

  Scenario: Interactive tasks go before batch tasks
    Given one pool with the fake engine that has "STUB_TOKEN_MS: '20'"
    And orchestratord runs
    And pool "p" is ready
    And task "running" is submitted
      """
      {"max_tokens": 100000}
      """
    And task "running" is in state running
    And task "batch" is submitted
      """
      {"priority": "batch"}
      """
    And task "interactive" is submitted
    When a client asks DELETE /v2/tasks/$running
    Then task "interactive" began before task "batch"

  @ORCHD-ADMIT-004
  Scenario: The same id runs once, and another body conflicts
    Given one pool with the fake engine
    And orchestratord runs
    When a client submits task "one"
      """
      {"task_id": "mine-1"}
      """
    And a client submits task "again"
      """
      {"task_id": "mine-1"}
      """
    Then the answer is 202
    And the metric orchd_tasks_enqueued_total is 1
    When a client submits task "another"
      """
      {"task_id": "mine-1", "prompt": "something else"}
      """
    Then the answer is 409 with code "CONFLICT"

  @ORCHD-CANCEL-001
  Scenario: A waiting task is cancelled at once, and so is a running one
    Given one pool with the fake engine that has "STUB_TOKEN_MS: '100'"
    And orchestratord runs
    And pool "p" is ready
    And task "running" is submitted
      """
      {"max_tokens": 500}
      """
    And task "waiting" is submitted
    And task "running" is in state running
    When a client asks POST /v2/tasks/$waiting/cancel
    Then the answer is 202
    And task "waiting" becomes cancelled
    When a client asks DELETE /v2/tasks/$running
    Then the answer is 202
    And task "running" becomes cancelled
    When a client follows task "running"
    Then the stream of "running" ends because of "cancelled"

  Scenario: A deadline that passes in the queue ends the task with that reason
    Given one pool with the fake engine that has "STUB_TOKEN_MS: '100'"
    And orchestratord runs
    And pool "p" is ready
    And task "running" is submitted
      """
      {"max_tokens": 900, "detach_grace_ms": 120000}
      """
    And task "running" is in state running
    And task "hasty" is submitted
      """
      {"deadline_ms": 300}
      """
    When a client follows task "hasty"
    Then the stream of "hasty" ends with error "DEADLINE_EXCEEDED"
    And task "running" becomes running

  @ORCHD-FAIR-001
  Scenario: Two callers take turns, however many tasks one of them has
    Given one pool with the fake engine that has "STUB_TOKEN_MS: '20'"
    And orchestratord runs
    And pool "p" is ready
    And task "running" is submitted
      """
      {"max_tokens": 100000}
      """
    And task "running" is in state running
    And task "many 1" is submitted
      """
      {"session_id": "many"}
      """
    And task "many 2" is submitted
      """
      {"session_id": "many"}
      """
    And task "many 3" is submitted
      """
      {"session_id": "many"}
      """
    And task "one" is submitted
      """
      {"session_id": "one"}
      """
    When a client asks DELETE /v2/tasks/$running
    Then task "one" began before task "many 2"
    And task "many 2" began before task "many 3"

  @ORCHD-FAIR-006
  Scenario: A place in the queue is told and comes true
    Given one pool with the fake engine that has "STUB_TOKEN_MS: '50'"
    And orchestratord runs
    And pool "p" is ready
    And task "running" is submitted
      """
      {"max_tokens": 120}
      """
    And task "running" is in state running
    And task "first" is submitted
    When a client submits task "second"
    Then the answer is 202
    And the answer's "/queue_position" is "1"
    When a client follows task "second" verbosely
    Then the stream of "second" has an event "queued" whose "/position" is "1"
    And the stream of "second" has an event "queued" whose "/position" is "0"

  @ORCHD-ADMIT-009
  Scenario: A deadline that cannot be met is refused at once, with the estimate
    Given one pool with the fake engine that has "STUB_TOKEN_MS: '20'"
    And orchestratord runs
    And pool "p" is ready
    And 6 tasks are submitted
    And those tasks are done
    When a client submits task "hasty"
      """
      {"max_tokens": 400, "deadline_ms": 60}
      """
    Then the answer is 400 with code "DEADLINE_UNMET"
    And the answer's "/error/message" mentions "ms"

  Scenario: A deadline that passes while tokens come ends the stream with that reason
    Given one pool with the fake engine that has "STUB_TOKEN_MS: '50'"
    And orchestratord runs
    And pool "p" is ready
    And task "slow" is submitted
      """
      {"max_tokens": 500, "deadline_ms": 600}
      """
    When a client follows task "slow"
    Then the stream of "slow" ends with error "DEADLINE_EXCEEDED"
    And GET /v2/pools/p/health soon shows "1" at "/slots_free"

  @ORCHD-FAIR-005
  Scenario: With drop-lru and nothing to drop a full queue refuses
    Given the configuration
      """
      pools:
        - id: p
          model: $MODEL
          engine: $STUB_ENGINE
          env: { STUB_TOKEN_MS: "200" }
          queue: { capacity: 2, full_policy: drop-lru }
      """
    And orchestratord runs
    And pool "p" is ready
    And task "running" is submitted
      """
      {"max_tokens": 200}
      """
    And task "running" is in state running
    And 2 tasks are submitted
    When a client submits task "one too many"
    Then the answer is 429 with code "QUEUE_FULL"
    And the answer says when to come back

  @ORCHD-CANCEL-001
  Scenario: A cancelled task frees its slot for the next
    Given one pool with the fake engine that has "STUB_TOKEN_MS: '50'"
    And orchestratord runs
    And pool "p" is ready
    And task "running" is submitted
      """
      {"max_tokens": 2000}
      """
    And task "next" is submitted
    When a client reads 3 tokens of task "running" and leaves
    And a client asks POST /v2/tasks/$running/cancel
    Then the answer is 202
    And task "next" becomes done
    When a client asks POST /v2/tasks/$running/cancel
    Then the answer is 202
    And the answer's "/state" is "cancelled"
