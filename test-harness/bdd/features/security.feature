Feature: Closed by default

  @SEC-001
  Scenario: An address that others can reach needs tokens
    Given one pool with the fake engine
    When orchestratord is run on 0.0.0.0:0
    Then it ends with code 2
    And it says "no tokens are configured"

  @SEC-002
  Scenario: A web page cannot drive the daemon
    Given one pool with the fake engine
    And orchestratord runs
    When a client asks GET /v2/pools with "Origin: http://evil.example"
    Then the answer is 403 with code "FORBIDDEN"
    When a client asks GET /v2/pools with "Host: evil.example"
    Then the answer is 403 with code "FORBIDDEN"

  @SEC-003 @SEC-007
  Scenario: Tokens have scopes and keep tasks apart
    Given the configuration
      """
      api: { tokens_file: $DIR/tokens }
      pools: [{ id: p, model: $MODEL, engine: $STUB_ENGINE }]
      """
    And the tokens "the-token-of-alice" and "the-token-of-bob" for data and "the-token-of-root" for control
    And orchestratord runs
    When a client asks GET /v2/pools
    Then the answer is 401 with code "MISSING_TOKEN"
    When a client asks GET /v2/pools with "Authorization: Bearer another-token-of-alice"
    Then the answer is 401 with code "BAD_TOKEN"
    When a client asks GET /metrics with "Authorization: Bearer the-token-of-alice"
    Then the answer is 403 with code "FORBIDDEN"
    When a client asks POST /v2/tasks with "Authorization: Bearer the-token-of-alice"
      """
      {"model": "p", "prompt": "x", "max_tokens": 4, "task_id": "of-alice"}
      """
    Then the answer is 202
    When a client asks GET /v2/tasks/of-alice with "Authorization: Bearer the-token-of-bob"
    Then the answer is 404 with code "NOT_FOUND"
    When a client asks GET /v2/tasks/of-alice with "Authorization: Bearer the-token-of-root"
    Then the answer is 200

  @SEC-004
  Scenario: What was said is never logged
    Given one pool with the fake engine
    And orchestratord runs
    And task "t" is submitted
      """
      {"prompt": "the secret of the blue teapot"}
      """
    When a client follows task "t"
    Then the stream of "t" is started, tokens without a gap, and one end
    And orchestratord's log never says "blue teapot"

  @SEC-009
  Scenario: Tokens can be made for whoever has none
    Given the configuration
      """
      api: { tokens_file: generate }
      pools: [{ id: p, model: $MODEL, engine: $STUB_ENGINE }]
      """
    And orchestratord runs
    When a client asks GET /v2/pools
    Then the answer is 401 with code "MISSING_TOKEN"
    And orchestratord's log says "export LLAMA_ORCH_TOKEN=$(cat"
    When orchestratord is run to "token new --name alice"
    Then it ends with code 0
    And its first line is a token
    And asking GET /v2/pools with "Authorization: Bearer $token" is soon answered 200

  @SEC-010
  Scenario: A token that is taken away stops working without a restart
    Given the configuration
      """
      api: { tokens_file: $DIR/tokens }
      pools: [{ id: p, model: $MODEL, engine: $STUB_ENGINE }]
      """
    And the tokens "the-token-of-alice" and "the-token-of-bob" for data and "the-token-of-root" for control
    And orchestratord runs
    When a client asks GET /v2/pools with "Authorization: Bearer the-token-of-bob"
    Then the answer is 200
    When the tokens "the-token-of-alice" and "the-token-of-carol" for data and "the-token-of-root" for control
    Then asking GET /v2/pools with "Authorization: Bearer the-token-of-bob" is soon answered 401
    And asking GET /v2/pools with "Authorization: Bearer the-token-of-carol" is soon answered 200

  @SEC-003
  Scenario Outline: What changes the machine needs the control scope
    Given the configuration
      """
      api: { tokens_file: $DIR/tokens }
      pools: [{ id: p, model: $MODEL, engine: $STUB_ENGINE }]
      """
    And the tokens "the-token-of-alice" and "the-token-of-bob" for data and "the-token-of-root" for control
    And orchestratord runs
    When a client asks <method> <path> with "Authorization: Bearer the-token-of-alice"
    Then the answer is 403 with code "FORBIDDEN"
    When a client asks <method> <path>
    Then the answer is 401 with code "MISSING_TOKEN"

    Examples:
      | method | path                  |
      | POST   | /v2/pools/p/drain     |
      | POST   | /v2/pools/p/reload    |
      | POST   | /v2/pools/p/reset     |
      | GET    | /v2/pools/p/logs      |
      | GET    | /v2/usage             |
      | GET    | /v2/operations        |
      | GET    | /v2/devices           |

  @SEC-003
  Scenario: Health needs no token
    Given the configuration
      """
      api: { tokens_file: $DIR/tokens }
      pools: [{ id: p, model: $MODEL, engine: $STUB_ENGINE }]
      """
    And the tokens "the-token-of-alice" and "the-token-of-bob" for data and "the-token-of-root" for control
    And orchestratord runs
    When a client asks GET /health
    Then the answer is 200
    When a client asks GET /livez
    Then the answer is 200

  @POOLD-LAUNCH-003
  Scenario: The engine itself answers nobody who does not have its key
    Given one pool with the fake engine
    And orchestratord runs
    And pool "p" is ready
    Then asking the engine of "p" directly without its key is answered 401

  @POOLD-API-001
  Scenario: pool-managerd answers nobody without its token
    Given one pool with the fake engine
    And pool-managerd runs as its own daemon
    Then asking pool-managerd for /v2/pools without its token is answered 401
    And asking pool-managerd for /health without its token is answered 200

  @HANDOFF-001
  Scenario: A handoff is its owner's alone
    Given one pool with the fake engine
    And orchestratord runs
    And the engine of "p" is published
    Then "runtime/engines/p.r0.json" has mode 600
    And "runtime/engines" has mode 700

  @EPROV-009
  Scenario Outline: What would let an engine act on the machine is never a flag, whatever is consented to
    Given the configuration
      """
      pools:
        - id: p
          model: $MODEL
          engine: $STUB_ENGINE
          unsafe_flags: true
          flags: ["<flag>"]
      """
    When orchestratord is run
    Then it ends with code 2
    And it says "<flag>"

    Examples:
      | flag              |
      | --tools           |
      | --slot-save-path  |
      | --rpc             |
      | --api-key         |
