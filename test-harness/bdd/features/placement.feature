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
    And the decision about task "t" mentions "p/r1"

  @ORCHD-GATE-001
  Scenario: An alias leads to its pool
    When a client submits task "t"
      """
      {"model": "other"}
      """
    And a client follows task "t"
    Then the stream of "t" is started, tokens without a gap, and one end
    And task "t" ran on "q/r0"

  @ORCHD-PLACE-001
  Scenario: A task that says nothing goes where there is room, and the decision names both
    Given task "holds" is submitted
      """
      {"max_tokens": 100000, "placement": {"mode": "pin", "pool_id": "p", "replica_id": "r0"}}
      """
    And task "holds" is in state running
    When a client submits task "t"
    And a client follows task "t"
    Then task "t" ran on "p/r1"
    And the decision about task "t" mentions "p/r1: the only replica with a free slot"
    And the decision about task "t" mentions "r0"

  @ORCHD-PLACE-001
  Scenario: A preference is followed where it can be
    When a client submits task "t"
      """
      {"placement": {"mode": "prefer", "pool_id": "p", "replica_id": "r1"}}
      """
    And a client follows task "t"
    Then task "t" ran on "p/r1"

  @ORCHD-PLACE-001
  Scenario: A preference for a busy replica does not make a task wait
    Given task "holds" is submitted
      """
      {"max_tokens": 100000, "placement": {"mode": "pin", "pool_id": "p", "replica_id": "r1"}}
      """
    And task "holds" is in state running
    When a client submits task "t"
      """
      {"placement": {"mode": "prefer", "pool_id": "p", "replica_id": "r1"}}
      """
    And a client follows task "t"
    Then task "t" ran on "p/r0"

  @ORCHD-PLACE-001
  Scenario: A task pinned to a busy replica waits and says for what
    Given task "holds" is submitted
      """
      {"max_tokens": 100000, "placement": {"mode": "pin", "pool_id": "p", "replica_id": "r1"}}
      """
    And task "holds" is in state running
    When a client submits task "t"
      """
      {"placement": {"mode": "pin", "pool_id": "p", "replica_id": "r1"}}
      """
    Then the decision about task "t" mentions "p/r1, where it is pinned, has no free slot"
    When a client asks DELETE /v2/tasks/$holds
    Then task "t" becomes done
    And task "t" ran on "p/r1"

  @ORCHD-PLACE-004
  Scenario Outline: A place that does not exist is refused
    When a client submits task "t"
      """
      {"placement": <placement>}
      """
    Then the answer is <status> with code "<code>"
    And the answer's "/error/param" is "<param>"
    And the answer's "/error/message" mentions "<words>"

    Examples:
      | placement                                             | status | code           | param          | words         |
      | {"mode": "pin", "pool_id": "nowhere"}                 | 400    | INVALID_PARAMS | placement      | pool p        |
      | {"mode": "pin", "pool_id": "p", "replica_id": "r9"}   | 400    | INVALID_PARAMS | placement      | p has r0, r1  |
      | {"mode": "nearest"}                                   | 400    | INVALID_PARAMS | placement.mode | `pin`         |
