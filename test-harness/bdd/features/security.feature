Feature: Closed by default

  @SEC-001
  Scenario: An address that others can reach needs tokens
    Given one pool with the fake engine
    When orchestratord is run on 0.0.0.0:0
    Then it ends with code 2
    And it says "token"

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
