Feature: Engines see the cards they were given

  Background:
    Given the configuration
      """
      pools:
        - id: roomy
          model: $MODEL
          provisioning: { gpu: auto, sources: [{ path: { binary: $STUB } }] }
        - id: first
          model: $MODEL
          devices: [0]
          provisioning: { gpu: required, sources: [{ path: { binary: $STUB } }] }
        - id: named
          model: $MODEL
          devices: [GPU-aa]
          provisioning: { gpu: required, sources: [{ path: { binary: $STUB } }] }
      """
    And a machine with two NVIDIA cards and a CUDA compiler

  @POOLD-DEVICE-002 @EPROV-005
  Scenario: The card with the most room, a card by its index, and a card by its name
    Given orchestratord runs
    And pool "roomy" is ready
    And pool "first" is ready
    And pool "named" is ready
    Then the engine of "roomy" sees only card "GPU-bb"
    And the engine of "first" sees only card "GPU-aa"
    And the engine of "named" sees only card "GPU-aa"

  @POOLD-DEVICE-001
  Scenario: The cards are shown
    Given orchestratord runs
    When a client asks GET /v2/devices
    Then the answer is 200
    And the answer's "/devices/1/uuid" is "GPU-bb"
    And the answer's "/devices/1/vram_free_bytes" is "12582912000"
