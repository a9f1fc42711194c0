Feature: Errors are for the person who reads them

  Background:
    Given one pool with the fake engine
    And orchestratord runs

  @ORCHD-ADMIT-002 @OV-006
  Scenario Outline: A bad request is told which field
    When a client asks POST /v2/tasks
      """
      <body>
      """
    Then the answer is 400 with code "INVALID_PARAMS"
    And the answer's "/error/param" is "<param>"

    Examples:
      | body                                                     | param       |
      | {"model": "p", "prompt": "x", "max_tokns": 3}            | max_tokns   |
      | {"model": "p", "prompt": "x", "max_tokens": 0}           | max_tokens  |
      | {"model": "p", "prompt": "x", "max_tokens": -1}          | max_tokens  |
      | {"model": "p", "prompt": "x", "temperature": -0.5}       | temperature |
      | {"model": "p", "prompt": "x", "priority": "urgent"}      | priority    |

  @ORCHD-ADMIT-005
  Scenario: An unknown model is answered with the nearest names
    When a client submits task "t"
      """
      {"model": "q"}
      """
    Then the answer is 404 with code "MODEL_NOT_FOUND"
    And the answer mentions "p"

  @OV-006
  Scenario: A path that does not exist has the envelope, too
    When a client asks GET /v3/nothing
    Then the answer is 404 with code "NOT_FOUND"

  @OV-006
  Scenario: A caller's correlation id comes back
    When a client asks GET /v2/tasks/none with "X-Correlation-Id: abc-123"
    Then the answer has header "x-correlation-id" with "abc-123"
    And the answer has header "x-request-id" with "abc-123"

  @SEC-006
  Scenario: The engine is never made to fetch anything
    When a client asks POST /v1/chat/completions
      """
      {"model": "p", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}}]}]}
      """
    Then the answer is 400 with code "INVALID_PARAMS"
