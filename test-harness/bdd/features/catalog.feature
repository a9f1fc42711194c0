Feature: Which models are here, and which may be used

  @MPROV-013
  Scenario: The catalog tells of each model what it is and whether it still is that
    Given the configuration
      """
      pools: [{ id: p, model: builtin:haiku, engine: $STUB_ENGINE }]
      """
    When engine-provisioner is run
    Then it ends with code 0
    When engine-provisioner is run to "models list"
    Then it ends with code 0
    And it prints "builtin:haiku"
    When engine-provisioner is run to "models verify"
    Then it ends with code 0
    And it prints "is what was fetched"
    When the staged model of "p" is damaged
    And engine-provisioner is run to "models verify"
    Then it ends with code 7

  @MPROV-005
  Scenario: A damaged builtin model is put right before it is used
    Given the configuration
      """
      pools: [{ id: p, model: builtin:haiku, engine: $STUB_ENGINE }]
      """
    When engine-provisioner is run
    And the staged model of "p" is damaged
    And engine-provisioner is run
    Then it ends with code 0
    When engine-provisioner is run to "models verify"
    Then it ends with code 0

  @MPROV-014
  Scenario: A model can be pinned, and one that ships is never removed
    Given the configuration
      """
      pools: [{ id: p, model: builtin:haiku, engine: $STUB_ENGINE }]
      """
    When engine-provisioner is run
    And engine-provisioner is run to "models list --json"
    And the model's digest is noted
    And engine-provisioner is run to "models pin $digest"
    Then it ends with code 0
    When engine-provisioner is run to "models list"
    Then it prints "pinned"
    When engine-provisioner is run to "models unpin $digest"
    Then it ends with code 0
    When engine-provisioner is run to "models remove $digest"
    Then it ends with code 6
    And it says "it ships with the program"

  @MPROV-012
  Scenario: With strict trust a model for which nobody vouches is refused
    Given the configuration
      """
      models: { trust: strict }
      pools: [{ id: p, model: $MODEL, engine: $STUB_ENGINE }]
      """
    When engine-provisioner is run
    Then it ends with code 7
    And it says "model_sha256"
    And no engine was started and no handoff written

  @MPROV-012
  Scenario: With strict trust a model from elsewhere is refused, whatever its digest
    Given the configuration
      """
      models: { trust: strict, allowed_sources: ["file:/elsewhere/"] }
      pools:
        - id: p
          model: $MODEL
          model_sha256: "0000000000000000000000000000000000000000000000000000000000000000"
          engine: $STUB_ENGINE
      """
    When engine-provisioner is run
    Then it ends with code 7
    And it says "file:/elsewhere/"

  @MPROV-012
  Scenario: A model that the machine's own check refuses is not used, and its pool says why
    Given the script "check" that runs "echo the signature is not ours; exit 1"
    And the configuration
      """
      models: { verify_command: [$DIR/check] }
      pools: [{ id: p, model: $MODEL, engine: $STUB_ENGINE }]
      """
    And orchestratord runs
    Then replica r0 of pool "p" reaches phase "failed"
    When a client asks GET /v2/pools/p
    Then the answer's "/replicas/0/last_error/message" mentions "the signature is not ours"
    When a client submits task "t"
    Then the answer is 503 with code "POOL_UNREADY"
    And the answer mentions "the signature is not ours"

  @POOLD-RELOAD-005 @MPROV-012
  Scenario: A reload to a model from elsewhere is refused before anything is fetched
    Given the configuration
      """
      models: { trust: strict, allowed_sources: ["hf:ours/"] }
      pools: [{ id: p, model: builtin:haiku, engine: $STUB_ENGINE }]
      """
    And orchestratord runs
    And pool "p" is ready
    When a client asks POST /v2/pools/p/reload
      """
      {"model": "hf:theirs/model:Q4_K_M"}
      """
    Then the answer is 422 with code "UNTRUSTED_ARTIFACT"
    And the answer's "/error/param" is "model"
    And the answer's "/error/retriable" is "false"
    And the answer's "/error/message" mentions "hf:ours/"
    When a client asks GET /v2/operations
    Then the answer has no "/operations/0"
    When a client submits task "t"
    Then task "t" becomes done

  @ORCHD-CATALOG-001
  Scenario: The catalog can be asked over HTTP, and says of a damaged model that it is
    Given the configuration
      """
      pools: [{ id: p, model: builtin:haiku, engine: $STUB_ENGINE }]
      """
    And orchestratord runs
    And pool "p" is ready
    When a client asks GET /v2/catalog/models
    Then the answer's "/models/0/source" is "builtin:haiku"
    And the answer's "/models/0/size_bytes" is a number above 1000000
    And the answer's "/models/0/digest" is noted as "model"
    When a client asks POST /v2/catalog/models/$model/verify
    Then the answer's "/intact" is "true"
    When the staged model of "p" is damaged
    And a client asks POST /v2/catalog/models/$model/verify
    Then the answer's "/intact" is "false"
    And the answer's "/problem" is a text
    When a client asks DELETE /v2/catalog/models/$model
    Then the answer is 409 with code "CONFLICT"
    And the answer's "/error/message" mentions "ships with the program"
    When a client asks GET /v2/catalog/models/00000000
    Then the answer is 404 with code "NOT_FOUND"
