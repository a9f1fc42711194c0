Feature: Sessions and budgets
  Turns that belong together are known, can be limited, and are forgotten.

  @ORCHD-SESSION-001
  Scenario: A session shows what it has used until it is forgotten
    Given one pool with the fake engine
    And orchestratord runs
    And pool "p" is ready
    When a client submits task "one"
      """
      {"session_id": "talk", "max_tokens": 5}
      """
    Then task "one" becomes done
    When a client submits task "two"
      """
      {"session_id": "talk", "max_tokens": 7}
      """
    Then task "two" becomes done
    And GET /v2/sessions/talk soon shows "12" at "/tokens_out"
    When a client asks GET /v2/sessions/talk
    Then the answer's "/turns" is "2"
    And the answer's "/ttl_ms_remaining" is a number above 1000
    And the answer's "/budgets/turns_remaining" is "null"
    When a client asks DELETE /v2/sessions/talk
    Then the answer is 200
    When a client asks GET /v2/sessions/talk
    Then the answer is 404 with code "NOT_FOUND"

  @ORCHD-SESSION-002
  Scenario: A session that has had its turns is refused, and asking again does not help
    Given the configuration
      """
      sessions: { turns: 2 }
      pools: [{ id: p, model: $MODEL, engine: $STUB_ENGINE }]
      """
    And orchestratord runs
    And pool "p" is ready
    And task "one" is submitted
      """
      {"session_id": "talk"}
      """
    And task "two" is submitted
      """
      {"session_id": "talk"}
      """
    When a client submits task "three"
      """
      {"session_id": "talk"}
      """
    Then the answer is 429 with code "RATE_LIMITED"
    And the answer's "/error/retriable" is "false"
    When a client submits task "elsewhere"
      """
      {"session_id": "another"}
      """
    Then the answer is 202

  @ORCHD-SESSION-002
  Scenario: A session that has used its tokens is refused
    Given the configuration
      """
      sessions: { tokens: 10 }
      pools: [{ id: p, model: $MODEL, engine: $STUB_ENGINE }]
      """
    And orchestratord runs
    And pool "p" is ready
    And task "one" is submitted
      """
      {"session_id": "talk", "max_tokens": 8}
      """
    Then task "one" becomes done
    When a client submits task "two"
      """
      {"session_id": "talk", "max_tokens": 8}
      """
    Then the answer is 429 with code "RATE_LIMITED"
    And the answer mentions "talk"

  @ORCHD-SESSION-001
  Scenario: A session that is not used is forgotten, and what it had used with it
    Given the configuration
      """
      sessions: { ttl_ms: 1500, turns: 1 }
      pools: [{ id: p, model: $MODEL, engine: $STUB_ENGINE }]
      """
    And orchestratord runs
    And pool "p" is ready
    And task "one" is submitted
      """
      {"session_id": "talk"}
      """
    Then task "one" becomes done
    And asking GET /v2/sessions/talk is soon answered 404
    When a client submits task "two"
      """
      {"session_id": "talk"}
      """
    Then the answer is 202

  @ORCHD-SESSION-001
  Scenario: Of too many sessions the one that was not used longest is forgotten
    Given the configuration
      """
      sessions: { capacity: 2 }
      pools: [{ id: p, model: $MODEL, engine: $STUB_ENGINE }]
      """
    And orchestratord runs
    And pool "p" is ready
    And task "one" is submitted
      """
      {"session_id": "first"}
      """
    Then GET /v2/sessions/first soon shows "8" at "/tokens_out"
    When a client submits task "two"
      """
      {"session_id": "second"}
      """
    Then GET /v2/sessions/second soon shows "8" at "/tokens_out"
    When a client submits task "three"
      """
      {"session_id": "first"}
      """
    Then GET /v2/sessions/first soon shows "16" at "/tokens_out"
    When a client submits task "four"
      """
      {"session_id": "third"}
      """
    Then the answer is 202
    When a client asks GET /v2/sessions/second
    Then the answer is 404 with code "NOT_FOUND"
    When a client asks GET /v2/sessions/first
    Then the answer's "/turns" is "2"
    When a client asks GET /v2/sessions/third
    Then the answer's "/turns" is "1"

  @ORCHD-LIMIT-001
  Scenario: A caller that asks too often is told when the next request is admitted
    Given the configuration
      """
      limits: { default: { requests_per_minute: 2 } }
      pools: [{ id: p, model: $MODEL, engine: $STUB_ENGINE }]
      """
    And orchestratord runs
    And pool "p" is ready
    And 2 tasks are submitted
    When a client submits task "one too many"
    Then the answer is 429 with code "RATE_LIMITED"
    And the answer says when to come back
    And the answer's "/error/retriable" is "true"

  @ORCHD-LIMIT-003
  Scenario: A caller with as many tasks as it may have waits until one has ended
    Given the configuration
      """
      limits: { default: { concurrent_tasks: 1 } }
      pools: [{ id: p, model: $MODEL, engine: $STUB_ENGINE, env: { STUB_TOKEN_MS: "50" } }]
      """
    And orchestratord runs
    And pool "p" is ready
    And task "one" is submitted
      """
      {"max_tokens": 1000}
      """
    When a client submits task "two"
    Then the answer is 429 with code "RATE_LIMITED"
    When a client asks DELETE /v2/tasks/$one
    Then task "one" becomes cancelled
    When a client submits task "two"
    Then the answer is 202

  @ORCHD-USAGE-002
  Scenario: Usage is what the clients saw
    Given one pool with the fake engine
    And orchestratord runs
    And pool "p" is ready
    And task "one" is submitted
      """
      {"max_tokens": 5}
      """
    And task "one" is in state done
    And task "two" is submitted
      """
      {"max_tokens": 6}
      """
    And task "two" is in state done
    Then GET /v2/usage soon shows "11" at "/usage/0/tokens_out"
    When a client asks GET /v2/usage
    Then the answer's "/usage/0/tasks" is "2"
    And the answer's "/usage/0/failed" is "0"
