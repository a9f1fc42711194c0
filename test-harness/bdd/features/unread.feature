Feature: Nobody has to read
  A task runs without a reader, but not for ever.

  @STREAM-008
  Scenario: A task that nobody reads is cancelled after its grace
    Given one pool with the fake engine that has "STUB_TOKEN_MS: '50'"
    And orchestratord runs
    And pool "p" is ready
    When a client submits task "unread"
      """
      {"max_tokens": 2000, "detach_grace_ms": 300}
      """
    Then task "unread" becomes cancelled
    When a client asks GET /v2/tasks/$unread
    Then the answer's "/tokens_out" is a number above 0

  @STREAM-005
  Scenario: A task that nobody reads is all there for whoever comes late
    Given one pool with the fake engine
    And orchestratord runs
    And pool "p" is ready
    And task "t" is submitted
      """
      {"max_tokens": 50}
      """
    And task "t" is in state done
    When a client follows task "t"
    Then the stream of "t" is started, tokens without a gap, and one end
    And the stream of "t" has 50 tokens

  @STREAM-004
  Scenario: A stream that has nothing to say says that it is still there
    Given one pool with the fake engine that has "STUB_PREFILL_MS: '17000'"
    And orchestratord runs
    And pool "p" is ready
    And task "quiet" is submitted
    When a client asks GET /v2/tasks/$quiet/events
    Then the answer is 200
    And the answer mentions ": keepalive"
    And the answer mentions "event: end"
