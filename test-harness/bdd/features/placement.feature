Feature: Every placement is explained

  Background:
    Given the configuration
      """
      pools:
        - { id: p, model: $MODEL, engine: $STUB_ENGINE, replicas: 2 }
        - { id: q, model: $MODEL, engine: $STUB_ENGINE, aliases: [other] }
      """
    And orchestratord runs
    And pool "p" is ready
    And pool "q" is ready
    Then replica r0 of pool "p" reaches phase "ready"
    And replica r1 of pool "p" reaches phase "ready"

  @ORCHD-GATE-001
  Scenario: A pinned task runs where it was pinned to
    When a client submits task "t"
      """
      {"placement": {"mode": "pin", "pool_id": "p", "replica_id": "r1"}}
      """
    And a client follows task "t"
    Then the stream of "t" is started, tokens without a gap, and one end
    And task "t" ran on "p/r1"
    And the decision about task "t" mentions "r1"

  @ORCHD-GATE-001
  Scenario: An alias leads to its pool
    When a client submits task "t"
      """
      {"model": "other"}
      """
    And a client follows task "t"
    Then the stream of "t" is started, tokens without a gap, and one end
    And task "t" ran on "q/r0"
