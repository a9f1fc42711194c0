Feature: The OpenAI front door

  Background:
    Given one pool with the fake engine
    And orchestratord runs
    And pool "p" is ready

  @ORCHD-OPENAI-001
  Scenario: A chat completion in one piece
    When a client asks POST /v1/chat/completions
      """
      {"model": "p", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
      """
    Then the answer is 200
    And the answer's "/object" is "chat.completion"
    And the answer's "/usage/completion_tokens" is "5"

  @STREAM-007
  Scenario: A streamed one carries no ids and ends with [DONE]
    When a client asks POST /v1/chat/completions
      """
      {"model": "p", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5, "stream": true}
      """
    Then the answer is 200
    And the answer mentions "data: [DONE]"
    And the answer mentions "chat.completion.chunk"

  Scenario: The models are the pools and their aliases
    When a client asks GET /v1/models
    Then the answer is 200
    And the answer's "/data/0/id" is "p"
