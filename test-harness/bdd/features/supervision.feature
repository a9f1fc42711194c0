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
    Then the starting engine of "p" is asked for its first token
    And no handoff of "p" is there
    When a client asks GET /v2/pools/p/health
    Then the answer's "/ready" is "false"

  @POOLD-RESTART-001 @POOLD-VIEW-001
  Scenario: Each loss in a row is waited for longer, and the next attempt is foretold
    Given one pool with the fake engine that has "STUB_EXIT_AT_START: '3'"
    And orchestratord runs
    Then replica r0 of pool "p" reaches phase "backoff"
    And GET /v2/pools/p soon shows "3" at "/replicas/0/failures"
    When a client asks GET /v2/pools/p
    Then the answer's "/replicas/0/losses/exit" is "3"
    And the answer's "/replicas/0/next_attempt_ms" is a number above 0
    And orchestratord's log tells of each loss of "p/r0" a longer pause than of the one before

  @POOLD-RESTART-002 @POOLD-RESET-001
  Scenario: Six losses open the breaker, tasks are refused with the reason, and a reset tries again at once
    Given one pool with the fake engine
    And the next life of the fake engine has "exit-at-start=3, say=the sky fell"
    And orchestratord runs
    Then replica r0 of pool "p" reaches phase "breaker_open"
    When a client submits task "t"
    Then the answer is 503 with code "BREAKER_OPEN"
    And the answer says when to come back
    And the answer's "/error/hint" is a text
    When the next life of the fake engine has ""
    And a client asks POST /v2/pools/p/reset
    Then the answer is 202
    And pool "p" becomes ready
    And the operation becomes succeeded
    When a client submits task "t"
    Then task "t" becomes done

  @POOLD-RESTART-003 @ORCHD-ADMIT-007
  Scenario: An engine that refuses its flags is not tried again, and whoever asks is told why
    Given one pool with the fake engine that has "STUB_EXIT_AT_START: '1', STUB_SAY: 'error: invalid argument: --frobnicate'"
    And orchestratord runs
    Then replica r0 of pool "p" reaches phase "failed"
    And pool "p" says why: cause "bad_flag" and "--frobnicate" in the log lines
    When a client submits task "t"
    Then the answer is 503 with code "POOL_UNREADY"
    And the answer's "/error/retriable" is "false"
    And the answer's "/error/hint" is a text

  @POOLD-PROBE-004
  Scenario: An engine that a signal has stopped is replaced and called suspended
    Given one pool with the fake engine
    And orchestratord runs
    And pool "p" is ready
    When the engine of "p" is stopped by a signal
    Then the engine of "p" comes back as a new generation
    And GET /v2/pools/p soon shows "1" at "/replicas/0/losses/suspended"

  @POOLD-LOCK-001
  Scenario: A second manager on the same directory refuses to start and names the first
    Given one pool with the fake engine
    And pool-managerd runs as its own daemon
    And the engine of "p" is published
    When a second pool-managerd is run
    Then it ends with code 100
    And it says "is in use by another pool-managerd (PID"
    And the engine of "p" is still the same process

  @OV-002 @ORCHD-JOURNAL-003
  Scenario: An orchestratord that was killed finds its engine again
    Given one pool with the fake engine
    And orchestratord runs
    And pool "p" is ready
    And the engine of "p" is published
    When orchestratord is killed
    And orchestratord starts
    Then pool "p" becomes ready
    And the engine of "p" is still the same process
    When a client submits task "t"
    Then task "t" becomes done

  @POOLD-LOGS-001 @ORCHD-LOGS-001
  Scenario: What the engine says can be read over HTTP
    Given one pool with the fake engine that has "STUB_SAY: 'the model is warm'"
    And orchestratord runs
    And pool "p" is ready
    When a client asks GET /v2/pools/p/logs?tail=50
    Then the answer is 200
    And the answer mentions "the model is warm"
