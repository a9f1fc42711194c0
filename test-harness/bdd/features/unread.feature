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

  @STREAM-015
  Scenario: A reader that is far behind when its task is kept no more is told
    Given the configuration
      """
      journal: { keep_tasks: 1, keep_unread_bytes: 100000 }
      pools: [{ id: p, model: $MODEL, ctx: 32768, engine: $STUB_ENGINE, env: { STUB_TOKEN_MS: '0' } }]
      """
    And orchestratord runs
    And pool "p" is ready
    And task "long" is submitted
      """
      {"max_tokens": 5000, "detach_grace_ms": 600000}
      """
    When a client opens the stream of task "long"
    Then task "long" becomes done
    When a client submits task "second"
    Then task "second" becomes done
    And asking GET /v2/tasks/$long is soon answered 404
    When a client submits task "third"
    Then task "third" becomes done
    When that client reads the stream of task "long" to its end
    Then the stream of "long" ends with error "READER_TOO_SLOW"
    And the metric orchd_slow_readers_total is 1
