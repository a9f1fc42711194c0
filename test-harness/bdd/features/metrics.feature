Feature: A counter equals what the client saw

  @ORCHD-METRICS-001
  Scenario: Tokens and tasks
    Given one pool with the fake engine
    And orchestratord runs
    And pool "p" is ready
    And the counter orchd_tokens_out_total is noted
    And the counter orchd_tasks_enqueued_total is noted
    And the counter orchd_tasks_canceled_total is noted
    When a client submits task "t"
    And a client follows task "t"
    Then the counter orchd_tokens_out_total rose by the tokens of task "t"
    And the counter orchd_tasks_enqueued_total rose by 1
    And the counter orchd_tasks_canceled_total rose by 0
