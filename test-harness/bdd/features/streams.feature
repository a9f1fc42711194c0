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
