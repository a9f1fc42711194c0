Feature: Whoever publishes a handoff is bound
  A handoff file is a replica's claim to be ready. orchestratord believes it after its own probe.

  Background:
    Given one pool with the fake engine
    And orchestratord runs
    And an engine "E" that somebody else runs

  @ORCHD-AUTOBIND-001 @HANDOFF-004
  Scenario: A handoff is bound and its withdrawal unbinds
    When the handoff "other.json" says
      """
      {"url": "$E", "pool_id": "other", "model": {"id": "m", "path": "", "digest": ""}}
      """
    Then pool "other" becomes ready
    When a client submits task "t"
      """
      {"model": "other"}
      """
    And a client follows task "t"
    Then the stream of "t" is started, tokens without a gap, and one end
    And task "t" ran on "other/r0"
    When the handoff "other.json" is removed
    Then pool "other" is no longer ready

  @ORCHD-AUTOBIND-002 @HANDOFF-005
  Scenario: A file that turns corrupt keeps the binding it made
    When the handoff "other.json" says
      """
      {"url": "$E", "pool_id": "other"}
      """
    Then pool "other" becomes ready
    When the handoff "other.json" says
      """
      {"url": "ht
      """
    Then orchestratord's log says "other.json"
    And pool "other" becomes ready

  @HANDOFF-003 @ORCHD-AUTOBIND-002
  Scenario Outline: A claim to another host is ignored with its reason
    When the handoff "evil.json" says
      """
      {"url": "<url>", "pool_id": "evil"}
      """
    Then orchestratord's log says "evil.json"
    When a client asks GET /v2/pools/evil
    Then the answer is 404 with code "NOT_FOUND"

    Examples:
      | url                        |
      | http://10.0.0.1:8080       |
      | https://127.0.0.1:8080     |
      | http://localhost:8080      |
      | http://127.0.0.1:8080/path |

  @HANDOFF-006 @ORCHD-AUTOBIND-001
  Scenario: A handoff that changes leads to the new engine, and what runs on the old one goes on
    Given an engine "F" that somebody else runs
    When the handoff "other.json" says
      """
      {"url": "$E", "pool_id": "other", "engine_version": "old", "generation": 1}
      """
    Then pool "other" becomes ready
    And a task on "other" tells engine version "old"
    When the handoff "other.json" says
      """
      {"url": "$F", "pool_id": "other", "engine_version": "new", "generation": 2}
      """
    Then GET /v2/pools/other soon shows "new" at "/replicas/0/engine_version"
    And a task on "other" tells engine version "new"
    When the engine "E" ends
    Then a task on "other" tells engine version "new"

  @ORCHD-AUTOBIND-001
  Scenario: A handoff that is written again without a change binds nothing anew
    When the handoff "other.json" says
      """
      {"url": "$E", "pool_id": "other"}
      """
    Then pool "other" becomes ready
    When the counter orchd_handoff_rescans_total is noted
    And the handoff "other.json" says
      """
      {"url": "$E", "pool_id": "other"}
      """
    Then the counter orchd_handoff_rescans_total soon rose
    And orchestratord's log says "replica up" of "other/r0" 1 time

  @ORCHD-AUTOBIND-003
  Scenario: An engine that stops answering is down, is known, and comes back by itself
    When the handoff "other.json" says
      """
      {"url": "$E", "pool_id": "other"}
      """
    Then pool "other" becomes ready
    When the engine "E" ends
    Then pool "other" is no longer ready
    When a client asks GET /v2/pools/other
    Then the answer's "/replicas/0/id" is "r0"
    When a client asks GET /v2/pools/other/health
    Then the answer's "/last_error" mentions "does not answer"
