Feature: On the real engine
  What is claimed about the engine is shown on llama-server itself, with the model that ships.

  @ORCHD-RUN-001 @EPROV-006 @POOLD-READY-001
  Scenario: Real tokens, twice the same, and none after its end
    Given the real engine and its model
    And orchestratord runs
    And pool "haiku" is ready
    When a client submits task "one"
      """
      {"model": "haiku", "prompt": "Write a haiku that includes the word river", "temperature": 0, "seed": 7, "max_tokens": 40}
      """
    And a client follows task "one"
    Then the stream of "one" is started, tokens without a gap, and one end
    When a client submits task "two"
      """
      {"model": "haiku", "prompt": "Write a haiku that includes the word river", "temperature": 0, "seed": 7, "max_tokens": 40}
      """
    And a client follows task "two"
    Then the streams of "one" and "two" have the same text

  @ORCHD-ADMIT-008
  Scenario: A prompt that cannot fit is refused with both numbers
    Given the real engine and its model
    And orchestratord runs
    And pool "haiku" is ready
    When a client submits a prompt of 9000 words to "haiku"
    Then the answer is 400 with code "CONTEXT_OVERFLOW"
    And the answer mentions "2048"
