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
      {"model": "pp"}
      """
    Then the answer is 404 with code "MODEL_NOT_FOUND"
    And the answer's "/error/hint" mentions "did you mean p?"

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

  @OV-006
  Scenario Outline: What is no request of ours is refused in the same words
    When a client asks <method> <path>
      """
      <body>
      """
    Then the answer is <status> with code "<code>"

    Examples:
      | method | path                   | body              | status | code               |
      | PUT    | /v2/tasks              | {}                | 405    | METHOD_NOT_ALLOWED |
      | POST   | /v2/tasks              | {"model": "p",    | 400    | INVALID_PARAMS     |
      | POST   | /v2/tasks              | {"prompt": "x"}   | 400    | INVALID_PARAMS     |
      | POST   | /v2/tasks              | {"model": "p"}    | 400    | INVALID_PARAMS     |
      | POST   | /v2/tasks/none/cancel  | {}                | 404    | NOT_FOUND          |
      | DELETE | /v2/sessions/none      |                   | 404    | NOT_FOUND          |
      | GET    | /v2/operations/none    |                   | 404    | NOT_FOUND          |
      | POST   | /v2/pools/none/reset   |                   | 404    | NOT_FOUND          |
      | POST   | /v2/pools/p/drain      | {"deadline": 1}   | 400    | INVALID_PARAMS     |
      | GET    | /v2/tasks?state=asleep |                   | 400    | INVALID_PARAMS     |
      | GET    | /v2/tasks?limit=0      |                   | 400    | INVALID_PARAMS     |

  @SEC-005
  Scenario: A body that is too large is refused with its limit
    When a client submits a prompt of 300000 words to "p"
    Then the answer is 413 with code "TOO_LARGE"
    And the answer mentions "1048576"

  @ORCHD-ADMIT-002
  Scenario Outline: A number at the edge is refused, never clamped
    When a client submits task "t"
      """
      {<field>}
      """
    Then the answer is 400 with code "INVALID_PARAMS"

    Examples:
      | field                              |
      | "max_tokens": 9223372036854775808  |
      | "deadline_ms": 0                   |
      | "temperature": 10.1                |
      | "top_p": -1                        |
      | "seed": 4294967296                 |
      | "stop": 7                          |
      | "detach_grace_ms": 0               |

  @ORCHD-OPENAI-001
  Scenario: On the OpenAI routes an error has OpenAI's type and the same code
    When a client asks POST /v1/chat/completions
      """
      {"model": "absent", "messages": [{"role": "user", "content": "x"}]}
      """
    Then the answer is 404 with code "MODEL_NOT_FOUND"
    And the answer's "/error/type" is "not_found_error"
    And the answer's "/error/param" is "model"
