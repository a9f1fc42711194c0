Feature: An answer outlives its engine
  What was said is kept; another engine, or the next life of the same one, goes on behind it.

  @ORCHD-RESUME-001 @ORCHD-RESUME-002 @STREAM-011
  Scenario: The next life of the engine goes on where the last one was killed
    Given one pool with the fake engine that has "STUB_TOKEN_MS: '20'"
    And orchestratord runs
    And pool "p" is ready
    And task "whole" is submitted
      """
      {"max_tokens": 200, "temperature": 0, "seed": 7}
      """
    When a client follows task "whole"
    And a client submits task "cut"
      """
      {"max_tokens": 200, "temperature": 0, "seed": 7}
      """
    And a client reads 10 tokens of task "cut" and leaves
    And the engine of "p" is killed
    And the client of task "cut" comes back
    Then the stream of "cut" goes on behind one seam without a gap
    And the streams of "whole" and "cut" have the same text
    And the stream of "cut" ends because of "length"

  @ORCHD-RESUME-001
  Scenario: Another replica goes on at once
    Given the configuration
      """
      pools: [{ id: p, model: $MODEL, engine: $STUB_ENGINE, replicas: 2, env: { STUB_TOKEN_MS: "20" } }]
      """
    And orchestratord runs
    Then replica r0 of pool "p" reaches phase "ready"
    And replica r1 of pool "p" reaches phase "ready"
    And GET /v2/pools/p/health soon shows "2" at "/slots_free"
    When a client submits task "cut"
      """
      {"max_tokens": 250, "temperature": 0, "seed": 7, "placement": {"mode": "prefer", "pool_id": "p", "replica_id": "r0"}}
      """
    And a client reads 5 tokens of task "cut" and leaves
    And the engine of "p" is killed
    And the client of task "cut" comes back
    Then the stream of "cut" goes on behind one seam without a gap
    And the stream of "cut" has an event "resumed" whose "/replica_id" is "r1"
    And the stream of "cut" has 250 tokens

  @ORCHD-RESUME-007
  Scenario Outline: A task that must not go on is told that its engine was lost
    Given one pool with the fake engine that has "STUB_TOKEN_MS: '20'"
    And orchestratord runs
    And pool "p" is ready
    When a client submits task "t"
      """
      {"max_tokens": 500, <what>}
      """
    And a client reads 5 tokens of task "t" and leaves
    And the engine of "p" is killed
    And the client of task "t" comes back
    Then the stream of "t" ends with error "ENGINE_LOST"
    And the last event of "t" counts the tokens that were sent
    And task "t" becomes failed

    Examples:
      | what                                                  |
      | "on_interrupt": "fail"                                |
      | "json_schema": {"type": "object"}                     |
      | "grammar": "root ::= [a-z]+"                          |

  @ORCHD-GATE-002
  Scenario: An engine that is lost before its first token costs the client nothing
    Given one pool with the fake engine
    And the next life of the fake engine has "prefill-ms=20000"
    And orchestratord runs
    And pool "p" is ready
    And task "t" is submitted
      """
      {"on_interrupt": "fail"}
      """
    And task "t" is in state running
    When the next life of the fake engine has ""
    And the engine of "p" is killed
    And a client follows task "t"
    Then the stream of "t" has an event "resumed" whose "/from_index" is "0"
    And the stream of "t" has 8 tokens
    And the stream of "t" ends because of "length"

  @ORCHD-GATE-003
  Scenario: An error that the engine reports is that task's alone
    Given one pool with the fake engine that has "STUB_ERROR_AFTER: '3'"
    And orchestratord runs
    And pool "p" is ready
    When a client submits task "t"
    And a client follows task "t"
    Then the stream of "t" ends with error "INTERNAL"
    And the last event of "t" counts the tokens that were sent
    When a client submits task "short"
      """
      {"max_tokens": 2}
      """
    Then task "short" becomes done

  @ORCHD-JOURNAL-003 @ORCHD-RESUME-010
  Scenario: A stream goes on behind the kill of orchestratord itself
    Given one pool with the fake engine that has "STUB_TOKEN_MS: '20'"
    And orchestratord runs
    And pool "p" is ready
    And task "whole" is submitted
      """
      {"max_tokens": 200, "temperature": 0, "seed": 7}
      """
    When a client follows task "whole"
    And a client submits task "cut"
      """
      {"max_tokens": 200, "temperature": 0, "seed": 7}
      """
    And a client reads 10 tokens of task "cut" and leaves
    And orchestratord is killed
    And orchestratord starts
    And the client of task "cut" comes back
    Then the stream of "cut" goes on behind one seam without a gap
    And the streams of "whole" and "cut" have the same text

  @ORCHD-RESUME-009
  Scenario: An engine that falls silent in the middle of an answer is told from one that is gone
    Given the configuration
      """
      limits: { engine_silence_ms: 3000 }
      pools: [{ id: p, model: $MODEL, engine: $STUB_ENGINE }]
      """
    And orchestratord runs
    And the next life of the fake engine has "hang-after=3"
    And an engine "E" that somebody else runs
    When the handoff "other.json" says
      """
      {"url": "$E", "pool_id": "other"}
      """
    Then pool "other" becomes ready
    When a client submits task "t"
      """
      {"model": "other", "on_interrupt": "fail"}
      """
    And a client follows task "t"
    Then the stream of "t" has 3 tokens
    And the stream of "t" ends with error "ENGINE_STALLED"
    And the last event of "t" counts the tokens that were sent
    And task "t" becomes failed
    And GET /v2/pools/other/health soon shows "1" at "/slots_free"
