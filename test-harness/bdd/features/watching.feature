Feature: Whoever watches is told what happens, and whoever goes quiet goes

  Background:
    Given one pool with the fake engine
    And orchestratord runs
    And pool "p" is ready

  @ORCHD-EVENTS-001
  Scenario: A watcher is told how things are, and then what changes, and never what was said
    When a client watches GET /v2/events
    Then the watcher is told of "synced"
    When a client submits task "t"
      """
      {"prompt": "a secret of ours"}
      """
    And a client follows task "t"
    Then the watcher is told that task "t" is done
    And the watcher was never told "secret"

  @ORCHD-WORKER-003
  Scenario: An engine that somebody else runs goes when its heartbeat stops
    Given an engine "E" that somebody else runs
    When a client registers engine "E" as replica "r7" of pool "guests" for 5000 ms
    Then the answer is 202
    When heartbeats of "guests/r7" are sent until pool "guests" is ready
    Then pool "guests" is no longer ready
    When a client asks POST /v2/workers/guests/r7/heartbeat
    Then the answer is 404 with code "NOT_FOUND"
