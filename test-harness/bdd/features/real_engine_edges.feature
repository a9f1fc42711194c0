@real-engine
Feature: On the real engine, where something is missing, broken or forgotten
  What is promised for the case that something is not as it should be, with llama-server behind it.

  @EPROV-002 @ORCHD-RUN-001
  Scenario: The source that works serves when the one before it does not
    Given the real engine and the configuration
      """
      pools:
        - id: p
          model: $MODEL
          provisioning:
            sources:
              - path: { binary: /absent/llama-server }
              - sdist:
                  package: llama-cpp-python
                  version: 0.3.36
                  sha256: 832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
                  subdir: vendor/llama.cpp
      """
    And orchestratord runs
    And pool "p" is ready
    When a client submits task "t"
    And a client follows task "t"
    Then the stream of "t" is started, tokens without a gap, and one end
    When a client asks GET /v2/pools/p
    Then the answer's "/replicas/0/engine_version" mentions "llamacpp-0.3.36"

  @EPROV-005
  Scenario: An engine that was built for the CPU is not taken for one of a card
    Given the real engine as $ENGINE and the configuration
      """
      pools:
        - id: p
          model: $MODEL
          provisioning: { gpu: required, sources: [{ path: { binary: $ENGINE } }] }
      """
    And a machine with two NVIDIA cards and a CUDA compiler
    When engine-provisioner is run
    Then it ends with code 5
    And it says "--list-devices names no CUDA device"
    And no engine was started and no handoff written
    When engine-provisioner is run to "--gpu off"
    Then it ends with code 0
    And it prints a prepared engine for "p" whose binary_path is "$ENGINE"

  @ORCHD-AUTOBIND-002 @HANDOFF-005
  Scenario: A handoff that turns corrupt does not take its engine from anybody
    Given the real engine and its model
    And orchestratord runs
    And pool "haiku" is ready
    When the handoff of "haiku" is published again as pool "other"
    Then pool "other" becomes ready
    When the handoff "other.json" says
      """
      {"url": "http://127
      """
    Then orchestratord's log says "other.json"
    And pool "other" becomes ready
    When a client submits task "t"
      """
      {"model": "other", "prompt": "Write a haiku that includes the word river"}
      """
    And a client follows task "t"
    Then the stream of "t" is started, tokens without a gap, and one end
    And task "t" ran on "other/r0"
    When the handoff "other.json" is removed
    Then pool "other" is no longer ready

  @ORCHD-RESUME-001 @ORCHD-RESUME-002
  Scenario: Another engine goes on with an answer when the first one is killed
    Given a model that is slow enough to be interrupted
    And the real engine and the configuration
      """
      pools: [{ id: p, model: $SLOW, flags: [--threads, "1"], replicas: 2 }]
      """
    And orchestratord runs
    Then GET /v2/pools/p/health soon shows "2" at "/slots_free"
    When a client submits task "cut"
      """
      {"max_tokens": 800, "temperature": 0, "placement": {"mode": "prefer", "pool_id": "p", "replica_id": "r0"}}
      """
    And a client reads 10 tokens of task "cut" and leaves
    And the engine of "p" is killed
    And the client of task "cut" comes back
    Then the stream of "cut" goes on behind one seam without a gap
    And the stream of "cut" has an event "resumed" whose "/replica_id" is "r1"
    And the stream of "cut" ends because of "length"

  @ORCHD-ARTIFACT-003 @ORCHD-RECEIPT-001
  Scenario: Of more transcripts than are kept the oldest is let go of
    Given the real engine and the configuration
      """
      artifacts: { keep_count: 1 }
      pools: [{ id: p, model: $MODEL }]
      """
    And orchestratord runs
    And pool "p" is ready
    And task "first" is submitted
      """
      {"transcript": true, "temperature": 0}
      """
    When a client follows task "first"
    And the transcript of task "first" is asked for
    Then the answer's "/text" is the text of "first"
    When a client submits task "second"
      """
      {"transcript": true, "temperature": 0, "prompt": "there was a pond"}
      """
    And a client follows task "second"
    And the transcript of task "second" is asked for
    Then the answer's "/text" is the text of "second"
    When the transcript of task "first" is asked for
    Then the answer is 404 with code "NOT_FOUND"

  @ORCHD-CATALOG-001 @MPROV-005
  Scenario: A model that was damaged on its disk is told from one that was not, and is made whole by a reload
    Given the real engine as $ENGINE and the configuration
      """
      pools: [{ id: p, model: builtin:haiku, provisioning: { gpu: off, sources: [{ path: { binary: $ENGINE } }] } }]
      """
    And orchestratord runs
    And pool "p" is ready
    When a client asks GET /v2/catalog/models
    Then the answer's "/models/0/digest" is noted as "model"
    When a client asks POST /v2/catalog/models/$model/verify
    Then the answer's "/intact" is "true"
    When the staged model of "p" is damaged
    And a client asks POST /v2/catalog/models/$model/verify
    Then the answer's "/intact" is "false"
    When a client asks POST /v2/pools/p/reload
      """
      {"model": "builtin:haiku"}
      """
    Then the answer is 202
    And the operation becomes succeeded
    When a client asks POST /v2/catalog/models/$model/verify
    Then the answer's "/intact" is "true"
    When a client submits task "t"
      """
      {"prompt": "Write a haiku that includes the word river", "temperature": 0, "max_tokens": 60}
      """
    And a client follows task "t"
    Then the text of "t" mentions "river"

  @ORCHD-SESSION-001 @ORCHD-SESSION-002
  Scenario: A session that is not used is forgotten, and its budget is there again
    Given the real engine and the configuration
      """
      sessions: { ttl_ms: 1500, tokens: 12 }
      pools: [{ id: p, model: $MODEL }]
      """
    And orchestratord runs
    And pool "p" is ready
    And task "one" is submitted
      """
      {"session_id": "talk", "temperature": 0, "max_tokens": 12}
      """
    When a client follows task "one"
    Then the stream of "one" is started, tokens without a gap, and one end
    And asking GET /v2/sessions/talk is soon answered 404
    When a client submits task "two"
      """
      {"session_id": "talk", "temperature": 0, "max_tokens": 12}
      """
    And a client follows task "two"
    Then the stream of "two" is started, tokens without a gap, and one end
    And the streams of "one" and "two" have the same text

  @SEC-001 @SEC-003
  Scenario: Where others can reach it, it starts with tokens and asks for them, and without it does not start
    Given the real engine and its model
    When orchestratord is run on 0.0.0.0:0
    Then it ends with code 2
    And it says "no tokens are configured"
    And no engine was started and no handoff written
    Given the real engine and the configuration
      """
      api: { tokens_file: $DIR/tokens }
      pools: [{ id: haiku, model: builtin:haiku }]
      """
    And the tokens "the-token-of-alice" and "the-token-of-bob" for data and "the-token-of-root" for control
    And orchestratord runs on 0.0.0.0:0
    Then asking GET /readyz with "Authorization: Bearer the-token-of-root" is soon answered 200
    And orchestratord's log says "0.0.0.0:"
    When a client asks POST /v1/completions
      """
      {"model": "haiku", "prompt": "river", "max_tokens": 5}
      """
    Then the answer is 401 with code "MISSING_TOKEN"
    When a client asks POST /v1/completions with "Authorization: Bearer the-token-of-alice"
      """
      {"model": "haiku", "prompt": "river", "max_tokens": 5}
      """
    Then the answer is 200
    And the answer's "/usage/completion_tokens" is a number above 0
