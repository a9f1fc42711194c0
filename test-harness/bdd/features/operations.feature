Feature: Draining loses nothing

  @ORCHD-OPS-001 @POOLD-DRAIN-001
  Scenario: A drained pool finishes what runs, takes nothing new, and comes back
    Given one pool with the fake engine that has "STUB_TOKEN_MS: '50'"
    And orchestratord runs
    And pool "p" is ready
    And task "running" is submitted
      """
      {"max_tokens": 60}
      """
    And task "running" is in state running
    When a client asks POST /v2/pools/p/drain
      """
      {"deadline_ms": 60000}
      """
    Then the answer is 202
    And pool "p" is no longer ready
    When a client follows task "running"
    Then the stream of "running" is started, tokens without a gap, and one end
    And the stream of "running" has 60 tokens
    And the operation becomes succeeded
    When a client submits task "late"
    Then the answer is 503 with code "POOL_DRAINING"
    When a client asks POST /v2/pools/p/undrain
    Then the answer is 202
    And pool "p" becomes ready
    When a client submits task "later"
    Then task "later" becomes done

  @POOLD-DRAIN-001
  Scenario: After the deadline a stream is told that its pool drains
    Given one pool with the fake engine that has "STUB_TOKEN_MS: '100'"
    And orchestratord runs
    And pool "p" is ready
    And task "long" is submitted
      """
      {"max_tokens": 2000, "on_interrupt": "fail"}
      """
    And task "long" is in state running
    When a client asks POST /v2/pools/p/drain
      """
      {"deadline_ms": 500}
      """
    Then the answer is 202
    When a client follows task "long"
    Then the stream of "long" ends with error "POOL_DRAINING"

  @ORCHD-OPS-001
  Scenario: An unknown pool has no operations
    Given one pool with the fake engine
    And orchestratord runs
    When a client asks POST /v2/pools/nowhere/drain
      """
      {}
      """
    Then the answer is 404 with code "NOT_FOUND"

  @ORCHD-ADMIT-004
  Scenario: A task that was accepted is found again by its id, whatever became of its pool
    Given one pool with the fake engine that has "STUB_TOKEN_MS: '50'"
    And orchestratord runs
    And pool "p" is ready
    And task "mine" is submitted
      """
      {"task_id": "mine", "max_tokens": 40}
      """
    And task "mine" is in state running
    When a client asks POST /v2/pools/p/drain
      """
      {"deadline_ms": 60000}
      """
    Then the answer is 202
    And the operation becomes succeeded
    When a client submits task "other"
    Then the answer is 503 with code "POOL_DRAINING"
    When a client submits task "again"
      """
      {"task_id": "mine", "max_tokens": 40}
      """
    Then the answer is 202
    And the answer's "/task_id" is "mine"
