Feature: Engines are prepared, and only prepared
  engine-provisioner returns an engine as a value for pool-managerd to spawn. Nothing runs before that.

  @EPROV-001 @OV-001
  Scenario: A prepared engine is printed and nothing is started
    Given one pool with the fake engine
    When engine-provisioner is run
    Then it ends with code 0
    And it prints a prepared engine for "p" whose model_path is "$DIR/model.gguf"
    And no engine was started and no handoff written

  @EPROV-002
  Scenario: A source that does not work is followed by the next
    Given the configuration
      """
      pools:
        - id: p
          model: $MODEL
          provisioning:
            gpu: off
            sources:
              - path: { binary: /absent/llama-server }
              - path: { binary: $STUB }
      """
    When engine-provisioner is run
    Then it ends with code 0
    And it prints a prepared engine for "p" whose binary_path is "$STUB"

  @EPROV-002
  Scenario: When no source works, each reason is listed
    Given the configuration
      """
      pools:
        - id: p
          model: $MODEL
          provisioning:
            gpu: off
            sources:
              - path: { binary: /absent/one }
              - path: { binary: /absent/two }
      """
    When engine-provisioner is run
    Then it ends with code 4
    And it says "/absent/one"
    And it says "/absent/two"
    And no engine was started and no handoff written

  @EPROV-005
  Scenario: A required GPU that is not there is refused before anything is done
    Given the configuration
      """
      pools:
        - id: p
          model: $MODEL
          provisioning: { gpu: required, sources: [{ path: { binary: $STUB } }] }
      """
    When engine-provisioner is run
    Then it ends with code 3
    And it says "no NVIDIA card was found"

  @MPROV-004
  Scenario: A model with another digest than the configured one is refused
    Given the configuration
      """
      pools:
        - id: p
          model: $MODEL
          model_sha256: "0000000000000000000000000000000000000000000000000000000000000000"
          engine: $STUB_ENGINE
      """
    When engine-provisioner is run
    Then it ends with code 7
    And it says "0000000000"

  @OV-007
  Scenario: An unknown key is named with its line and the nearest known one
    Given the configuration
      """
      pools:
        - id: p
          model: $MODEL
          replcias: 2
      """
    When engine-provisioner is run
    Then it ends with code 2
    And it says "replcias"
    And it says "did you mean `replicas`?"
    And it says "config.yaml:4"

  @EPROV-009
  Scenario: A flag that would open the engine to others is refused
    Given the configuration
      """
      pools:
        - id: p
          model: $MODEL
          engine: $STUB_ENGINE
          flags: ["--host", "0.0.0.0"]
      """
    When engine-provisioner is run
    Then it ends with code 2
    And it says "--host"

  @EPROV-005
  Scenario: Without a card the engine runs on the CPU, and that is said
    Given the configuration
      """
      pools:
        - id: p
          model: $MODEL
          provisioning: { gpu: auto, sources: [{ path: { binary: $STUB } }] }
      """
    When engine-provisioner is run
    Then it ends with code 0
    And it says "no NVIDIA card found: the engine runs on the CPU"

  @EPROV-005
  Scenario: A card that cannot be built for is never answered with a silent CPU build
    Given the configuration
      """
      pools:
        - id: p
          model: $MODEL
          provisioning: { gpu: auto, toolkit: system, sources: [{ path: { binary: $STUB } }] }
      """
    And a machine with two NVIDIA cards and no CUDA compiler
    When engine-provisioner is run
    Then it ends with code 3
    And it says "RTX 3060"
    And it says "provisioning.gpu: off"
    When engine-provisioner is run to "--gpu off"
    Then it ends with code 0
    And it prints a prepared engine for "p" whose binary_path is "$STUB"

  @POOLD-DEVICE-003
  Scenario: A card that is not there is refused with those that are
    Given the configuration
      """
      pools:
        - id: p
          model: $MODEL
          devices: [7]
          provisioning: { gpu: auto, sources: [{ path: { binary: $STUB } }] }
      """
    And a machine with two NVIDIA cards and a CUDA compiler
    When engine-provisioner is run
    Then it ends with code 3
    And it says "card 7, which this machine does not have"
    And it says "RTX 3090"
    And it says "GPU-bb"

  @MPROV-003
  Scenario: A file that is no model is refused before any engine sees it
    Given the file "model.gguf" says
      """
      <html>404: not found</html>
      """
    And one pool with the fake engine
    When engine-provisioner is run
    Then it ends with code 6
    And it says "model.gguf"
    And no engine was started and no handoff written

  @EPROV-001
  Scenario: A plan says what would be done and does nothing
    Given one pool with the fake engine
    When engine-provisioner is run to "plan"
    Then it ends with code 0
    And it prints "$STUB"
    And it prints "model.gguf"
    And no engine was started and no handoff written

  @EPROV-015
  Scenario: Offline, what is missing is named before anything is asked for
    Given the configuration
      """
      pools:
        - id: p
          model: hf:nobody/nothing:Q4_K_M
          engine: $STUB_ENGINE
      """
    When engine-provisioner is run to "--offline"
    Then it ends with code 6
    And it says "hf:nobody/nothing"
    And it says "offline"

  @EPROV-001
  Scenario: Only the pool that is asked for is prepared
    Given the configuration
      """
      pools:
        - { id: p, model: $MODEL, engine: $STUB_ENGINE }
        - { id: q, model: file:/absent.gguf, engine: $STUB_ENGINE }
      """
    When engine-provisioner is run to "--pool p"
    Then it ends with code 0
    And it prints a prepared engine for "p" whose model_path is "$DIR/model.gguf"
    When engine-provisioner is run to "--pool x"
    Then it ends with code 2
    And it says "p, q"
