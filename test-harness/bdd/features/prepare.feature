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
    And it says "gpu"

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
    And it says "replicas"
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
