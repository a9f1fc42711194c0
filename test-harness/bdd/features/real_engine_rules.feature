@real-engine
Feature: On the real engine, under load and under rules
  What the queue, the breaker, budgets, tokens and rules for models promise, with llama-server behind it.

  @ORCHD-ADMIT-003 @ORCHD-FAIR-003 @ORCHD-ADMIT-009
  Scenario: A busy engine has a full queue, an order, and an end for who cannot wait
    Given a model that is slow enough to be interrupted
    And the real engine and the configuration
      """
      pools: [{ id: p, model: $SLOW, flags: [--threads, "1"], ctx: 16384, queue: { capacity: 4 } }]
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
      {"priority": "batch", "temperature": 0, "max_tokens": 400}
      """
    And task "interactive" is submitted
      """
      {"temperature": 0}
      """
    And 2 tasks are submitted
    When a client submits task "one too many"
    Then the answer is 429 with code "QUEUE_FULL"
    And the answer says when to come back
    When a client asks DELETE /v2/tasks/$interactive
    Then task "interactive" becomes cancelled
    When a client submits task "hasty"
      """
      {"temperature": 0, "deadline_ms": 300}
      """
    And a client follows task "hasty"
    Then the stream of "hasty" ends with error "DEADLINE_EXCEEDED"
    When a client submits task "interactive again"
      """
      {"temperature": 0, "max_tokens": 400}
      """
    And a client asks DELETE /v2/tasks/$running
    Then the answer is 202
    And task "running" becomes cancelled
    And task "interactive again" began before task "batch"
    And GET /v2/pools/p/health soon shows "1" at "/slots_free"

  @ORCHD-ADMIT-009
  Scenario: A deadline is held against what the engine was seen to do
    Given the real engine and its model
    And orchestratord runs
    And pool "haiku" is ready
    And 6 tasks are submitted
      """
      {"model": "haiku", "prompt": "Write a haiku that includes the word river"}
      """
    And those tasks are done
    When a client submits task "hasty"
      """
      {"model": "haiku", "max_tokens": 2000, "deadline_ms": 1}
      """
    Then the answer is 400 with code "DEADLINE_UNMET"

  @POOLD-RESTART-002 @POOLD-RESET-001
  Scenario: An engine that is killed in every life is left to the breaker, and a reset serves again
    Given the real engine and its model
    And orchestratord runs
    And pool "haiku" is ready
    When every engine of "haiku" is killed until its breaker opens
    And a client submits task "t"
      """
      {"model": "haiku"}
      """
    Then the answer is 503 with code "BREAKER_OPEN"
    And the answer says when to come back
    When a client asks POST /v2/pools/haiku/reset
    Then the answer is 202
    And the operation becomes succeeded
    And pool "haiku" becomes ready
    When a client submits task "t"
      """
      {"model": "haiku", "prompt": "Write a haiku that includes the word river"}
      """
    And a client follows task "t"
    Then the stream of "t" is started, tokens without a gap, and one end

  @ORCHD-GATE-001 @ORCHD-PLACE-001
  Scenario: Tasks run where they are pinned to, where they would rather, and where there is room
    Given a model that is slow enough to be interrupted
    And the real engine and the configuration
      """
      pools: [{ id: p, model: $SLOW, flags: [--threads, "1"], ctx: 16384, replicas: 2, aliases: [other] }]
      """
    And orchestratord runs
    And pool "p" is ready
    Then GET /v2/pools/p/health soon shows "2" at "/slots_free"
    When a client submits task "preferred"
      """
      {"temperature": 0, "placement": {"mode": "prefer", "pool_id": "p", "replica_id": "r1"}}
      """
    Then task "preferred" becomes done
    And task "preferred" ran on "p/r1"
    When a client submits task "holds"
      """
      {"max_tokens": 16000, "temperature": 0, "placement": {"mode": "pin", "pool_id": "p", "replica_id": "r0"}}
      """
    Then task "holds" becomes running
    When a client submits task "anywhere"
      """
      {"model": "other", "temperature": 0}
      """
    And a client follows task "anywhere"
    Then the stream of "anywhere" is started, tokens without a gap, and one end
    And task "anywhere" ran on "p/r1"
    When a client submits task "pinned"
      """
      {"temperature": 0, "placement": {"mode": "pin", "pool_id": "p", "replica_id": "r0"}}
      """
    Then the decision about task "pinned" mentions "p/r0, where it is pinned, has no free slot"
    When a client asks DELETE /v2/tasks/$holds
    Then task "pinned" becomes done
    And task "pinned" ran on "p/r0"

  @ORCHD-SESSION-001 @ORCHD-SESSION-002 @ORCHD-USAGE-002
  Scenario: A budget is used up by what the engine counted
    Given the real engine and the configuration
      """
      sessions: { tokens: 20 }
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
    And GET /v2/sessions/talk soon shows "12" at "/tokens_out"
    And GET /v2/sessions/talk soon shows "0" at "/budgets/tokens_remaining"
    And GET /v2/usage soon shows "12" at "/usage/0/tokens_out"
    When a client submits task "two"
      """
      {"session_id": "talk"}
      """
    Then the answer is 429 with code "RATE_LIMITED"
    And the answer's "/error/retriable" is "false"

  @SEC-003 @SEC-007 @POOLD-LAUNCH-003
  Scenario: Whose token it is decides who sees an answer
    Given the real engine and the configuration
      """
      api: { tokens_file: $DIR/tokens }
      pools: [{ id: haiku, model: builtin:haiku }]
      """
    And the tokens "the-token-of-alice" and "the-token-of-bob" for data and "the-token-of-root" for control
    And orchestratord runs
    Then asking GET /readyz with "Authorization: Bearer the-token-of-root" is soon answered 200
    When a client asks POST /v1/chat/completions
      """
      {"model": "haiku", "temperature": 0, "messages": [{"role": "user", "content": "Write a haiku that includes the word river"}]}
      """
    Then the answer is 401 with code "MISSING_TOKEN"
    When a client asks POST /v1/chat/completions with "Authorization: Bearer the-token-of-alice"
      """
      {"model": "haiku", "temperature": 0, "messages": [{"role": "user", "content": "Write a haiku that includes the word river"}]}
      """
    Then the answer is 200
    And the answer's "/choices/0/message/content" mentions "river"
    When a client asks POST /v2/tasks with "Authorization: Bearer the-token-of-alice"
      """
      {"model": "haiku", "prompt": "river", "max_tokens": 4, "task_id": "of-alice"}
      """
    Then the answer is 202
    When a client asks GET /v2/tasks/of-alice/events with "Authorization: Bearer the-token-of-bob"
    Then the answer is 404 with code "NOT_FOUND"
    When a client asks GET /v2/tasks/of-alice/events with "Authorization: Bearer the-token-of-alice"
    Then the answer is 200
    And the answer mentions "event: end"
    When a client asks POST /v2/pools/haiku/drain with "Authorization: Bearer the-token-of-alice"
    Then the answer is 403 with code "FORBIDDEN"
    And asking the engine of "haiku" directly without its key is answered 401

  @MPROV-012
  Scenario: With strict trust the model that ships serves, and one for which nobody vouches never starts
    Given the real engine and the configuration
      """
      models: { trust: strict }
      pools:
        - { id: ours, model: builtin:haiku }
        - { id: theirs, model: $MODEL }
      """
    And orchestratord runs
    And pool "ours" is ready
    Then replica r0 of pool "theirs" reaches phase "failed"
    When a client submits task "t"
      """
      {"model": "theirs"}
      """
    Then the answer is 503 with code "POOL_UNREADY"
    And the answer mentions "model_sha256"
    When a client submits task "t"
      """
      {"model": "ours", "prompt": "Write a haiku that includes the word river"}
      """
    And a client follows task "t"
    Then the stream of "t" is started, tokens without a gap, and one end

  @ORCHD-RECEIPT-001 @ORCHD-VERIFY-001 @ORCHD-ARTIFACT-001
  Scenario: A transcript is kept, and asking again gives the same tokens
    Given the real engine and its model
    And orchestratord runs
    And pool "haiku" is ready
    And task "t" is submitted
      """
      {"model": "haiku", "prompt": "Write a haiku that includes the word river", "transcript": true}
      """
    When a client follows task "t"
    And the transcript of task "t" is asked for
    Then the answer is 200
    And the answer's "/request/prompt" mentions "river"
    And the answer's "/text" is the text of "t"
    When orchestratord is run to verify task "t"
    Then it ends with code 0
    And it prints "the same answer"

  @ORCHD-ONCE-001
  Scenario: Scores come from the real engine
    Given the real engine and the configuration
      """
      pools: [{ id: scores, model: $MODEL, kind: rerank }]
      """
    And orchestratord runs
    And pool "scores" is ready
    When a client asks POST /v1/rerank
      """
      {"model": "scores", "query": "which cats", "documents": ["a dog", "the cats", "the cats"]}
      """
    Then the answer is 200
    And the answer scores document 1 as document 2 and not as document 0
