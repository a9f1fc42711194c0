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

  @ORCHD-METRICS-001
  Scenario: What a client was refused, cancelled or told as an error is counted once
    Given the configuration
      """
      pools:
        - id: p
          model: $MODEL
          engine: $STUB_ENGINE
          env: { STUB_TOKEN_MS: "50" }
          queue: { capacity: 1 }
      """
    And orchestratord runs
    And pool "p" is ready
    When a client submits task "running"
      """
      {"max_tokens": 1000}
      """
    Then task "running" becomes running
    And the metric orchd_slots_free is 0
    When a client submits task "waiting"
    Then the answer is 202
    And the metric orchd_queue_depth is 1
    When a client submits task "one too many"
    Then the answer is 429 with code "QUEUE_FULL"
    And the metric orchd_tasks_rejected_total is 1
    And the metric orchd_tasks_rejected_total{reason="queue_full"} is 1
    When a client asks DELETE /v2/tasks/$waiting
    Then task "waiting" becomes cancelled
    When a client submits task "hasty"
      """
      {"deadline_ms": 300}
      """
    And a client follows task "hasty"
    Then the stream of "hasty" ends with error "DEADLINE_EXCEEDED"
    And the metric orchd_tasks_failed_total{code="DEADLINE_EXCEEDED"} is 1
    And the metric orchd_queue_depth is 0
    When a client asks DELETE /v2/tasks/$running
    Then task "running" becomes cancelled
    And the metric orchd_tasks_canceled_total is 2
    And the metric orchd_tasks_enqueued_total is 3
    And the metric orchd_tasks_started_total is 1
    And the metric orchd_slots_free is 1

  @ORCHD-METRICS-001
  Scenario: The tokens of the OpenAI routes are counted, too
    Given one pool with the fake engine
    And orchestratord runs
    And pool "p" is ready
    When a client asks POST /v1/chat/completions
      """
      {"model": "p", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
      """
    Then the answer's "/usage/completion_tokens" is "5"
    And the metric orchd_tokens_out_total is 5
    And the metric orchd_tokens_in_total is the answer's "/usage/prompt_tokens"

  @ORCHD-METRICS-001
  Scenario: An open stream is counted while it is open
    Given one pool with the fake engine that has "STUB_TOKEN_MS: '20'"
    And orchestratord runs
    And pool "p" is ready
    When a client submits task "t"
      """
      {"max_tokens": 1000}
      """
    And a client opens the stream of task "t"
    Then the metric orchd_streams_open is 1
    When that client hangs up
    Then the metric orchd_streams_open is 0
