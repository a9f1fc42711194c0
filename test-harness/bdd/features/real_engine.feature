@real-engine
Feature: On the real engine
  What is claimed about the engine is shown on llama-server itself, with the model that ships.

  @ORCHD-RUN-001 @EPROV-006 @POOLD-READY-001
  Scenario: Real tokens, twice the same, and none after its end
    Given the real engine and its model
    And orchestratord runs
    And pool "haiku" is ready
    When a client submits task "one"
      """
      {"model": "haiku", "prompt": "Write a haiku that includes the word river", "temperature": 0, "seed": 7, "max_tokens": 40}
      """
    And a client follows task "one"
    Then the stream of "one" is started, tokens without a gap, and one end
    When a client submits task "two"
      """
      {"model": "haiku", "prompt": "Write a haiku that includes the word river", "temperature": 0, "seed": 7, "max_tokens": 40}
      """
    And a client follows task "two"
    Then the streams of "one" and "two" have the same text

  @ORCHD-ADMIT-008
  Scenario: A prompt that cannot fit is refused with both numbers
    Given the real engine and its model
    And orchestratord runs
    And pool "haiku" is ready
    When a client submits a prompt of 9000 words to "haiku"
    Then the answer is 400 with code "CONTEXT_OVERFLOW"
    And the answer mentions "2048"

  @EPROV-006 @EPROV-013 @EPROV-015
  Scenario: A prepared engine is found again, also without a network, and is what was built
    Given the real engine and its model
    When engine-provisioner is run
    Then it ends with code 0
    And what it printed is noted
    When engine-provisioner is run to "--offline"
    Then it ends with code 0
    And it prints the same again
    And it never says "building"
    When engine-provisioner is run to "list"
    Then it ends with code 0
    And it prints "llamacpp-0.3.36"
    When engine-provisioner is run to "models list"
    Then it prints "builtin:haiku"

  @ORCHD-AUTOBIND-001
  Scenario: An engine is bound by any handoff that leads to it
    Given the real engine and its model
    And orchestratord runs
    And pool "haiku" is ready
    When the handoff of "haiku" is published again as pool "other"
    Then pool "other" becomes ready
    When a client submits task "t"
      """
      {"model": "other", "prompt": "Write a haiku that includes the word river"}
      """
    And a client follows task "t"
    Then the stream of "t" is started, tokens without a gap, and one end
    And task "t" ran on "other/r0"

  @POOLD-LOSS-001 @POOLD-RESTART-001 @ORCHD-METRICS-001 @POOLD-LAUNCH-003
  Scenario: A killed engine comes back, and counters are what its clients saw
    Given the real engine and its model
    And orchestratord runs
    And pool "haiku" is ready
    Then asking the engine of "haiku" directly without its key is answered 401
    When the engine of "haiku" is killed
    Then the engine of "haiku" comes back as a new generation
    And pool "haiku" becomes ready
    When the counter orchd_tokens_out_total is noted
    And a client submits task "t"
      """
      {"model": "haiku", "prompt": "Write a haiku that includes the word river", "session_id": "talk"}
      """
    And a client follows task "t"
    Then the counter orchd_tokens_out_total rose by the tokens of task "t"
    And GET /v2/sessions/talk soon shows "1" at "/turns"

  @OV-002 @POOLD-DRAIN-001 @ORCHD-OPS-001
  Scenario: The engine outlives the kill of orchestratord, is drained, and comes back
    Given the real engine and its model
    And orchestratord runs
    And pool "haiku" is ready
    And the engine of "haiku" is published
    When orchestratord is killed
    And orchestratord starts
    Then pool "haiku" becomes ready
    And the engine of "haiku" is still the same process
    When a client asks POST /v2/pools/haiku/drain
    Then the answer is 202
    And the operation becomes succeeded
    And the engine of "haiku" is gone and its handoff, too
    When a client asks POST /v2/pools/haiku/undrain
    Then the answer is 202
    And pool "haiku" becomes ready

  @POOLD-RELOAD-001
  Scenario: A reload replaces the engine
    Given the real engine and its model
    And orchestratord runs
    And pool "haiku" is ready
    And the engine of "haiku" is published
    When a client asks POST /v2/pools/haiku/reload
      """
      {"model": "builtin:haiku"}
      """
    Then the answer is 202
    And the operation becomes succeeded
    And the engine of "haiku" comes back as a new generation
    And pool "haiku" becomes ready

  @POOLD-CONFIG-002 @POOLD-RELOAD-004 @POOLD-CAUSE-001
  Scenario: A configuration with which the real engine does not start is rolled back
    Given the real engine and the configuration
      """
      pools: [{ id: p, model: $MODEL }]
      """
    And orchestratord runs
    And pool "p" is ready
    And the engine of "p" is published
    When the file "config.yaml" says
      """
      pools: [{ id: p, model: $MODEL, flags: ["--cache-type-k", "q9_9"] }]
      """
    Then GET /v2/operations soon shows "rolled_back" at "/operations/0/state"
    And GET /v2/operations soon shows "bad_flag" at "/operations/0/outcome/error/cause"
    And the engine of "p" is still the same process
    When a client submits task "t"
    And a client follows task "t"
    Then the stream of "t" is started, tokens without a gap, and one end

  @POOLD-SANDBOX-001
  Scenario: A confined real engine serves
    Given the real engine and the configuration
      """
      pools: [{ id: p, model: $MODEL, sandbox: true }]
      """
    And orchestratord runs
    And pool "p" is ready
    Then the engine of "p" is confined by the kernel
    When a client submits task "t"
    And a client follows task "t"
    Then the stream of "t" is started, tokens without a gap, and one end

  @ORCHD-RESUME-001 @ORCHD-RESUME-002 @STREAM-002 @ORCHD-CANCEL-001
  Scenario: An answer goes on behind the kill of its engine, and is cancelled when that is asked
    Given a model that is slow enough to be interrupted
    And the real engine and the configuration
      """
      pools: [{ id: p, model: $SLOW, flags: [--threads, "1"], ctx: 16384, deterministic: true }]
      """
    And orchestratord runs
    And pool "p" is ready
    When a client submits task "cut"
      """
      {"max_tokens": 800, "temperature": 0}
      """
    And a client reads 10 tokens of task "cut" and leaves
    And the engine of "p" is killed
    And the client of task "cut" comes back
    Then the stream of "cut" goes on behind one seam without a gap
    When a client submits task "long"
      """
      {"max_tokens": 16000, "temperature": 0}
      """
    And a client reads 3 tokens of task "long" and leaves
    And a client submits task "waiting"
    And a client asks DELETE /v2/tasks/$waiting
    Then task "waiting" becomes cancelled
    When a client asks DELETE /v2/tasks/$long
    Then the answer is 202
    And task "long" becomes cancelled
    And GET /v2/pools/p/health soon shows "1" at "/slots_free"

  @ORCHD-OPENAI-001 @ORCHD-MESSAGES-001 @ORCHD-COMPLETIONS-001 @ORCHD-RUN-001
  Scenario: Every front door leads to the same engine
    Given the real engine and its model
    And orchestratord runs
    And pool "haiku" is ready
    When a client asks POST /v1/chat/completions
      """
      {"model": "haiku", "temperature": 0, "messages": [{"role": "user", "content": "Write a haiku that includes the word river"}]}
      """
    Then the answer is 200
    And the answer's "/choices/0/message/content" mentions "river"
    And the answer's "/choices/0/finish_reason" is "stop"
    When a client asks POST /v1/messages
      """
      {"model": "haiku", "temperature": 0, "max_tokens": 100, "messages": [{"role": "user", "content": "Write a haiku that includes the word river"}]}
      """
    Then the answer is 200
    And the answer's "/content/0/text" mentions "river"
    And the answer's "/stop_reason" is "end_turn"
    When a client asks POST /v1/completions
      """
      {"model": "haiku", "prompt": "river", "max_tokens": 5}
      """
    Then the answer is 200
    And the answer's "/usage/completion_tokens" is a number above 0
    When orchestratord is run to ask "Write a haiku that includes the word river"
    Then it ends with code 0
    And it prints an answer

  @ORCHD-ONCE-001 @EPROV-029
  Scenario: Vectors come from the real engine, also of a model that does not say how to pool
    Given the real engine and the configuration
      """
      pools: [{ id: vectors, model: $MODEL, kind: embedding }]
      """
    And orchestratord runs
    And pool "vectors" is ready
    When a client asks POST /v1/embeddings
      """
      {"model": "vectors", "input": ["a cat", "dogs are not cats"]}
      """
    Then the answer is 200
    And the answer's "/data/1/embedding/63" is a number above -2
    And the answer's "/usage/prompt_tokens" is a number above 2
