@real-engine
Feature: On the real engine, where there is not room for all
  Who goes first, who has to give way, and what is not there, with llama-server behind it.

  @ORCHD-FAIR-005 @ORCHD-ADMIT-003
  Scenario: With drop-lru the batch task that waits gives up its place, and then nobody does
    Given a model that is slow enough to be interrupted
    And the real engine and the configuration
      """
      pools: [{ id: p, model: $SLOW, flags: [--threads, "1"], ctx: 16384, queue: { capacity: 4, full_policy: drop-lru } }]
      """
    And orchestratord runs
    And pool "p" is ready
    And task "running" is submitted
      """
      {"max_tokens": 16000, "temperature": 0}
      """
    And task "running" is in state running
    And task "batch" is submitted
      """
      {"priority": "batch", "temperature": 0}
      """
    And 3 tasks are submitted
      """
      {"temperature": 0}
      """
    When a client submits task "interactive"
      """
      {"temperature": 0}
      """
    Then the answer is 202
    When a client follows task "batch"
    Then the stream of "batch" ends with error "QUEUE_FULL"
    When a client submits task "one too many"
    Then the answer is 429 with code "QUEUE_FULL"
    And the answer says when to come back
    When a client asks DELETE /v2/tasks/$running
    Then task "running" becomes cancelled
    And task "interactive" becomes done

  @ORCHD-FAIR-001
  Scenario: Two callers take turns at one engine, however many tasks one of them has
    Given a model that is slow enough to be interrupted
    And the real engine and the configuration
      """
      pools: [{ id: p, model: $SLOW, flags: [--threads, "1"], ctx: 16384 }]
      """
    And orchestratord runs
    And pool "p" is ready
    And task "running" is submitted
      """
      {"max_tokens": 16000, "temperature": 0}
      """
    And task "running" is in state running
    And task "many 1" is submitted
      """
      {"session_id": "many", "temperature": 0, "max_tokens": 40}
      """
    And task "many 2" is submitted
      """
      {"session_id": "many", "temperature": 0, "max_tokens": 40}
      """
    And task "many 3" is submitted
      """
      {"session_id": "many", "temperature": 0, "max_tokens": 40}
      """
    And task "one" is submitted
      """
      {"session_id": "one", "temperature": 0, "max_tokens": 40}
      """
    When a client asks DELETE /v2/tasks/$running
    Then task "one" began before task "many 2"
    And task "many 2" began before task "many 3"

  @EPROV-005 @POOLD-DEVICE-001 @POOLD-DEVICE-003 @ORCHD-ADMIT-007
  Scenario: On a machine without a card a pool that names one is refused, and the others serve
    Given the real engine as $ENGINE and the configuration
      """
      pools:
        - id: named
          model: $MODEL
          devices: [0]
          provisioning: { gpu: auto, sources: [{ path: { binary: $ENGINE } }] }
        - id: needed
          model: $MODEL
          provisioning: { gpu: required, sources: [{ path: { binary: $ENGINE } }] }
        - id: plain
          model: $MODEL
          provisioning: { gpu: auto, sources: [{ path: { binary: $ENGINE } }] }
      """
    When engine-provisioner is run to "--pool named"
    Then it ends with code 3
    And it says "no NVIDIA card was found"
    And it says "remove `devices`"
    When engine-provisioner is run to "--pool plain"
    Then it ends with code 0
    And it says "no NVIDIA card found: the engine runs on the CPU"
    And no engine was started and no handoff written
    Given orchestratord runs
    And pool "plain" is ready
    Then replica r0 of pool "named" reaches phase "failed"
    And replica r0 of pool "needed" reaches phase "failed"
    And the engine of "plain" is given no card
    When a client asks GET /v2/devices
    Then the answer is 200
    And the answer has no "/devices/0"
    When a client submits task "t"
      """
      {"model": "named"}
      """
    Then the answer is 503 with code "POOL_UNREADY"
    And the answer mentions "no NVIDIA card was found"
    When a client submits task "t"
      """
      {"model": "plain", "temperature": 0}
      """
    And a client follows task "t"
    Then the stream of "t" is started, tokens without a gap, and one end

  @POOLD-STOP-001 @POOLD-OPS-001 @STREAM-002
  Scenario: A drained engine is loaded again when it is asked for, and what it says can be read again
    Given the real engine and its model
    And orchestratord runs
    And pool "haiku" is ready
    And the engine of "haiku" is published
    When a client asks POST /v2/pools/haiku/drain
    Then the answer is 202
    And the operation becomes succeeded
    And replica r0 of pool "haiku" reaches phase "stopped"
    And the engine of "haiku" is gone and its handoff, too
    When a client asks POST /v2/pools/haiku/preload
    Then the answer is 202
    And pool "haiku" becomes ready
    When a client submits task "t"
      """
      {"model": "haiku", "prompt": "Write a haiku that includes the word river", "temperature": 0, "max_tokens": 20}
      """
    And a client follows task "t"
    Then the stream of "t" is started, tokens without a gap, and one end
    And whoever resumes "t" after any event gets exactly the rest
    And a second reader of "t" gets the same
