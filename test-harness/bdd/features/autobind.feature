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
