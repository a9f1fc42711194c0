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

  @POOLD-OPS-003
  Scenario: An undrain calls off a drain that still waits
    Given one pool with the fake engine that has "STUB_TOKEN_MS: '50'"
    And orchestratord runs
    And pool "p" is ready
    And task "long" is submitted
      """
      {"max_tokens": 200}
      """
    And task "long" is in state running
    When a client asks POST /v2/pools/p/drain
    Then the answer is 202
    And the operation is noted
    When a client asks POST /v2/pools/p/undrain
    Then the answer is 202
    And pool "p" becomes ready
    And the noted operation becomes failed
    When a client follows task "long"
    Then the stream of "long" has 200 tokens

  @POOLD-OPS-002 @ORCHD-OPS-001
  Scenario: A second operation on a pool is refused with the one that runs
    Given one pool with the fake engine that has "STUB_TOKEN_MS: '50'"
    And orchestratord runs
    And pool "p" is ready
    And task "long" is submitted
      """
      {"max_tokens": 2000}
      """
    And task "long" is in state running
    When a client asks POST /v2/pools/p/drain
    Then the answer is 202
    And the operation is noted
    When a client asks POST /v2/pools/p/reload
    Then the answer is 409 with code "CONFLICT"
    And the answer mentions "$operation"

  @POOLD-RELOAD-001 @ORCHD-DRAIN-002
  Scenario: A reload cuts nothing off
    Given one pool with the fake engine that has "STUB_TOKEN_MS: '50'"
    And orchestratord runs
    And pool "p" is ready
    And the engine of "p" is published
    And task "long" is submitted
      """
      {"max_tokens": 200, "on_interrupt": "fail"}
      """
    And task "long" is in state running
    When a client asks POST /v2/pools/p/reload
    Then the answer is 202
    And the operation becomes succeeded
    And the engine of "p" is replaced while the old one still runs
    When a client follows task "long"
    Then the stream of "long" is started, tokens without a gap, and one end
    And the stream of "long" has 200 tokens
    When a client submits task "later"
    Then task "later" becomes done

  @POOLD-RELOAD-004
  Scenario Outline: A reload to an engine that <does> is rolled back, and the old one serves
    Given one pool with the fake engine
    And orchestratord runs
    And pool "p" is ready
    And the engine of "p" is published
    When the next life of the fake engine has "<switches>"
    And a client asks POST /v2/pools/p/reload
    Then the answer is 202
    And the operation becomes rolled_back
    And the operation tells "<cause>"
    And the engine of "p" is still the same process
    And pool "p" becomes ready
    When a client submits task "t"
    Then task "t" becomes done

    Examples:
      | does                  | switches                                | cause     |
      | exits                 | exit-at-start=3, say=no such tensor     | exit      |
      | refuses its flags     | exit-at-start=1, say=error: invalid argument: --x | bad_flag |

  @POOLD-RELOAD-005
  Scenario Outline: A reload never takes a path or an engine that is not in the store
    Given one pool with the fake engine
    And orchestratord runs
    And pool "p" is ready
    When a client asks POST /v2/pools/p/reload
      """
      <body>
      """
    Then the answer is 400 with code "INVALID_PARAMS"
    And the answer's "/error/param" is "<param>"

    Examples:
      | body                           | param      |
      | {"model": "file:/etc/passwd"}  | model      |
      | {"engine_ref": "/bin/sh"}      | engine_ref |
