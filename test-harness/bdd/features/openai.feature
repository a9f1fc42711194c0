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
    Given the configuration
      """
      pools: [{ id: p, model: $MODEL, engine: $STUB_ENGINE, aliases: [another-name] }]
      """
    And orchestratord starts anew
    When a client asks GET /v1/models
    Then the answer is 200
    And the answer's "/data/0/id" is "another-name"
    And the answer's "/data/1/id" is "p"

  @ORCHD-COMPLETIONS-001
  Scenario: A text completion in one piece
    When a client asks POST /v1/completions
      """
      {"model": "p", "prompt": "once upon", "max_tokens": 6}
      """
    Then the answer is 200
    And the answer's "/object" is "text_completion"
    And the answer's "/choices/0/finish_reason" is "length"
    And the answer's "/choices/0/text" is a text
    And the answer's "/usage/completion_tokens" is "6"

  @ORCHD-COMPLETIONS-001
  Scenario Outline: What a text completion cannot do is refused by name
    When a client asks POST /v1/completions
      """
      {"model": "p", "prompt": "once upon", <field>}
      """
    Then the answer is 400 with code "INVALID_PARAMS"
    And the answer's "/error/param" is "<param>"

    Examples:
      | field             | param   |
      | "n": 2            | n       |
      | "best_of": 3      | best_of |
      | "echo": true      | echo    |
      | "suffix": "end"   | suffix  |

  @STREAM-007
  Scenario: A streamed answer whose usage is asked for ends with it
    When a client asks POST /v1/chat/completions
      """
      {"model": "p", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5, "stream": true, "stream_options": {"include_usage": true}}
      """
    Then the answer is 200
    And the answer mentions '"completion_tokens":5'
    And the answer mentions "data: [DONE]"
    And the answer does not mention "event:"

  @ORCHD-MESSAGES-001
  Scenario: A message in Anthropic's shape
    When a client asks POST /v1/messages
      """
      {"model": "p", "max_tokens": 6, "messages": [{"role": "user", "content": "hello"}]}
      """
    Then the answer is 200
    And the answer's "/type" is "message"
    And the answer's "/role" is "assistant"
    And the answer's "/content/0/type" is "text"
    And the answer's "/stop_reason" is "max_tokens"
    And the answer's "/usage/output_tokens" is "6"

  @ORCHD-MESSAGES-001
  Scenario: A streamed message has Anthropic's events in order
    When a client asks POST /v1/messages
      """
      {"model": "p", "max_tokens": 3, "stream": true, "messages": [{"role": "user", "content": "hello"}]}
      """
    Then the answer is 200
    And the answer's events are
      """
      message_start content_block_start content_block_delta content_block_delta content_block_delta content_block_stop message_delta message_stop
      """

  @ORCHD-MESSAGES-002
  Scenario: An error of a message is in Anthropic's shape
    When a client asks POST /v1/messages
      """
      {"model": "absent", "max_tokens": 6, "messages": [{"role": "user", "content": "hello"}]}
      """
    Then the answer is 404
    And the answer's "/type" is "error"
    And the answer's "/error/type" is "not_found_error"
    And the answer's "/error/message" mentions "absent"

  @ORCHD-OPENAI-002
  Scenario Outline: Whoever hangs up on <path> has cancelled
    Given the next life of the fake engine has "token-ms=50"
    And orchestratord starts anew
    And pool "p" is ready
    When a client begins POST <path>
      """
      {"model": "p", "max_tokens": 100000, "stream": true, <input>}
      """
    Then GET /v2/pools/p/health soon shows "0" at "/slots_free"
    When that client hangs up
    Then GET /v2/pools/p/health soon shows "1" at "/slots_free"
    And the metric orchd_tasks_canceled_total is 1

    Examples:
      | path                  | input                                           |
      | /v1/chat/completions  | "messages": [{"role": "user", "content": "x"}]  |
      | /v1/completions       | "prompt": "x"                                   |
      | /v1/messages          | "messages": [{"role": "user", "content": "x"}]  |

  @ORCHD-ONCE-001
  Scenario: Vectors and scores come from pools of their kind
    Given the configuration
      """
      pools:
        - { id: p, model: $MODEL, engine: $STUB_ENGINE }
        - { id: vectors, model: $MODEL, kind: embedding, engine: $STUB_ENGINE }
        - { id: scores, model: $MODEL, kind: rerank, engine: $STUB_ENGINE }
      """
    And orchestratord starts anew
    And pool "vectors" is ready
    And pool "scores" is ready
    When a client asks POST /v1/embeddings
      """
      {"model": "vectors", "input": ["a cat", "dogs are not cats"]}
      """
    Then the answer is 200
    And the answer's "/data/1/index" is "1"
    And the answer's "/data/1/embedding/0" is a number above -1
    When a client asks POST /v1/rerank
      """
      {"model": "scores", "query": "which cats", "documents": ["a dog", "the cats"]}
      """
    Then the answer is 200
    And the answer's "/results/0/index" is "1"
    When a client asks POST /v1/embeddings
      """
      {"model": "p", "input": "a cat"}
      """
    Then the answer is 400 with code "INVALID_PARAMS"
    And the answer's "/error/param" is "model"
    When a client asks POST /v1/chat/completions
      """
      {"model": "vectors", "messages": [{"role": "user", "content": "x"}]}
      """
    Then the answer is 400 with code "INVALID_PARAMS"

  @ORCHD-META-001
  Scenario: What can be asked for can be asked
    When a client asks GET /v2/meta/capabilities
    Then the answer is 200
    And the answer's "/routes" mentions "/v1/chat/completions"
    And the answer's "/limits/body_bytes" is "1048576"
    And the answer's "/pools/0/ctx" is "2048"

  @ORCHD-RUN-001
  Scenario: A question on the command line uses the orchestratord that listens
    When orchestratord is run to ask "who are you"
    Then it ends with code 0
    And it prints an answer
    And the metric orchd_tasks_enqueued_total is 1
