Feature: Engines are watched, understood and survive their manager

  @POOLD-LOSS-001 @POOLD-RESTART-001
  Scenario: A killed engine loses its claim and comes back as a new generation
    Given one pool with the fake engine
    And orchestratord runs
    And pool "p" is ready
    When the engine of "p" is killed
    Then the engine of "p" comes back as a new generation
    And pool "p" becomes ready

  @POOLD-RESTART-002
  Scenario: An engine that exits at once is explained and left to the breaker
    Given one pool with the fake engine that has "STUB_EXIT_AT_START: '3', STUB_SAY: 'the sky fell'"
    And orchestratord runs
    Then pool "p" says why: cause "exit" and "the sky fell" in the log lines
    When a client asks GET /v2/pools/p/health
    Then the answer's "/ready" is "false"

  @OV-002 @POOLD-LAUNCH-002
  Scenario: An engine outlives the kill of its manager and is adopted
    Given one pool with the fake engine
    And pool-managerd runs as its own daemon
    And the engine of "p" is published
    When pool-managerd is killed
    And pool-managerd starts again
    Then pool-managerd adopts the engine of "p" with its process and generation

  @POOLD-STOP-001 @ORCHD-STOP-001
  Scenario: A stop leaves nothing behind, even with an endless stream
    Given one pool with the fake engine that has "STUB_TOKEN_MS: '50'"
    And orchestratord runs
    And pool "p" is ready
    And the engine of "p" is published
    And task "endless" is submitted
      """
      {"max_tokens": 3000}
      """
    And task "endless" is in state running
    When orchestratord is asked to stop
    Then the engine of "p" is gone and its handoff, too
    And it took less than 40 seconds

  @POOLD-READY-001
  Scenario: An engine that never completes a token is never published
    Given one pool with the fake engine that has "STUB_MUTE: '1'"
    And orchestratord runs
    Then replica r0 of pool "p" reaches phase "starting"
    When a client asks GET /v2/pools/p/health
    Then the answer's "/ready" is "false"
