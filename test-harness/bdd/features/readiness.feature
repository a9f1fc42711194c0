Feature: Ready means that tokens come
  Nothing is announced before an engine has generated one.

  @POOLD-READY-002 @ORCHD-ADMIT-006
  Scenario: While an engine loads nobody is told that it is ready, and a task is told what it waits for
    Given one pool with the fake engine
    And the next life of the fake engine has "load-ms=600000"
    And orchestratord runs
    Then asking GET /livez is soon answered 200
    And asking GET /readyz is soon answered 503
    And replica r0 of pool "p" reaches phase "starting"
    When a client submits task "t"
    Then the answer is 202
    And the answer mentions "pool_warmup"
    When the next life of the fake engine has ""
    And the starting engine of "p" is killed
    And a client follows task "t" verbosely
    Then the stream of "t" tells "prep" before it is started
    And asking GET /readyz is soon answered 200
    When a client asks GET /v2/meta/capabilities
    Then the answer's "/pools/0/ready" is "true"

  @POOLD-READY-001
  Scenario: A port that another process answers on is not an engine
    Given one pool with the fake engine that has "STUB_PORT_STEAL: '1'"
    And orchestratord runs
    Then pool "p" says why: cause "port_taken" and "" in the log lines
    When a client asks GET /v2/pools/p/health
    Then the answer's "/ready" is "false"

  @POOLD-STOP-001 @POOLD-OPS-001
  Scenario: A pool that was drained is loaded again when it is asked for
    Given one pool with the fake engine
    And orchestratord runs
    And pool "p" is ready
    When a client asks POST /v2/pools/p/drain
    Then the answer is 202
    And the operation becomes succeeded
    And replica r0 of pool "p" reaches phase "stopped"
    When a client asks POST /v2/pools/p/preload
    Then the answer is 202
    And pool "p" becomes ready
