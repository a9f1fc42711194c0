Feature: Streams in order that can be resumed

  Background:
    Given one pool with the fake engine
    And orchestratord runs
    And task "t" is submitted
    When a client follows task "t"

  @STREAM-001
  Scenario: Order
    Then the stream of "t" is started, tokens without a gap, and one end
    And the stream of "t" has 8 tokens
    And the stream of "t" ends because of "length"

  @STREAM-002 @STREAM-005
  Scenario: Resuming and reading twice
    Then whoever resumes "t" after any event gets exactly the rest
    And a second reader of "t" gets the same

  @STREAM-003
  Scenario: An unknown task has no stream
    When a client asks GET /v2/tasks/0192f0c1-2a3b-7c4d-8e5f-a6b7c8d9e0f1/events
    Then the answer is 404 with code "NOT_FOUND"

  @STREAM-009
  Scenario: A position that was never given out is refused
    When a client asks GET /v2/tasks/$t/events with "Last-Event-ID: 999999"
    Then the answer is 400 with code "INVALID_PARAMS"

  @STREAM-002
  Scenario: Whoever loses the connection comes back to exactly the next token
    When a client submits task "long"
      """
      {"max_tokens": 40}
      """
    And a client reads 11 tokens of task "long" and leaves
    And the client of task "long" comes back
    Then the stream of "long" is started, tokens without a gap, and one end
    And the stream of "long" has 40 tokens

  @STREAM-001
  Scenario: The verbose stream has the same tokens
    When a client submits task "v"
      """
      {"max_tokens": 20}
      """
    And a client follows task "v" verbosely
    Then the stream of "v" has 20 tokens
    And the stream of "v" ends because of "length"

  @STREAM-001
  Scenario: A stop string ends the answer before itself
    When a client submits task "s"
      """
      {"max_tokens": 2000, "stop": ["frog"]}
      """
    And a client follows task "s"
    Then the stream of "s" is started, tokens without a gap, and one end
    And the stream of "s" ends because of "stop"
    And the text of "s" does not mention "frog"

  @STREAM-002
  Scenario: A position in the address does as well as the header
    When a client asks GET /v2/tasks/$t/events?after=4
    Then the answer is 200
    And the answer's events are
      """
      token token token token end
      """
    When a client asks GET /v2/tasks/$t/events?after=never
    Then the answer is 400 with code "INVALID_PARAMS"
    And the answer's "/error/param" is "after"
