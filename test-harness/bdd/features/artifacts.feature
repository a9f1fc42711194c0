Feature: What was said can be kept and shown again

  Background:
    Given one pool with the fake engine
    And orchestratord runs
    And pool "p" is ready

  @ORCHD-ARTIFACT-001
  Scenario: Bytes are found by their digest, and nothing else is
    When a client asks POST /v2/artifacts
      """
      {"what": "a note"}
      """
    Then the answer is 201
    And the answer's "/sha256" is "9807b70d016f317b150607cab60e56d2f29487d6cf976b3752cd519a9f829c45"
    And the answer's "/bytes" is "18"
    When a client asks GET /v2/artifacts/0000000000000000000000000000000000000000000000000000000000000000
    Then the answer is 404 with code "NOT_FOUND"

  @ORCHD-RECEIPT-001
  Scenario: A task that asks for a transcript leaves one that says what was asked and answered
    When a client submits task "t"
      """
      {"prompt": "the blue teapot", "max_tokens": 5, "transcript": true}
      """
    And a client follows task "t"
    And the transcript of task "t" is asked for
    Then the answer is 200
    And the answer's "/request/prompt" is "the blue teapot"
    And the answer's "/tokens_out" is "5"
    And the answer's "/text" is the text of "t"
    And the answer's "/finish_reason" is "length"

  @ORCHD-RECEIPT-002
  Scenario: A task without a seed is told the one that it was given
    When a client submits task "t"
    And a client follows task "t"
    And a client asks GET /v2/tasks/$t
    Then the answer's "/receipt/seed" is a text

  @ORCHD-RESPONSES-001
  Scenario: A response in OpenAI's newest shape
    When a client asks POST /v1/responses
      """
      {"model": "p", "input": "hello", "max_output_tokens": 5}
      """
    Then the answer is 200
    And the answer's "/object" is "response"
    And the answer's "/status" is "incomplete"
    And the answer's "/usage/output_tokens" is "5"

  @ORCHD-RESPONSES-002
  Scenario: What would have to be kept between requests is refused by name
    When a client asks POST /v1/responses
      """
      {"model": "p", "input": "hello", "previous_response_id": "resp_1"}
      """
    Then the answer is 400 with code "INVALID_PARAMS"
    And the answer's "/error/param" is "previous_response_id"

  @ORCHD-WORKER-001
  Scenario: An engine that somebody else runs is bound by a request and unbound by another
    Given an engine "E" that somebody else runs
    When a client registers engine "E" as replica "r7" of pool "guests"
    Then the answer is 202
    And pool "guests" becomes ready
    When a client submits task "t"
      """
      {"model": "guests"}
      """
    And a client follows task "t"
    Then task "t" ran on "guests/r7"
    When a client asks DELETE /v2/workers/guests/r7
    Then the answer is 200
    And pool "guests" is no longer ready

  @ORCHD-ARTIFACT-003
  Scenario Outline: Of more than <what> the oldest go first
    Given the configuration
      """
      artifacts: { <limit> }
      pools: [{ id: p, model: $MODEL, engine: $STUB_ENGINE }]
      """
    And orchestratord starts anew
    When a client stores the texts "first text, second text, third text"
    Then the text "first text" was let go of
    And the text "second text" is still there
    And the text "third text" is still there
    When a client stores the texts "second text, fourth text"
    Then the text "third text" was let go of
    And the text "second text" is still there

    Examples:
      | what                  | limit          |
      | so many               | keep_count: 2  |
      | so many bytes in all  | keep_bytes: 25 |

  @ORCHD-ARTIFACT-003
  Scenario: What alone is more than a caller may keep is refused with the limit
    Given the configuration
      """
      artifacts: { keep_bytes: 25 }
      pools: [{ id: p, model: $MODEL, engine: $STUB_ENGINE }]
      """
    And orchestratord starts anew
    When a client stores the texts "first text"
    And a client stores the text "a text of more than five and twenty bytes"
    Then the answer is 413 with code "TOO_LARGE"
    And the answer mentions "25"
    And the text "first text" is still there

  @ORCHD-ARTIFACT-003
  Scenario: What is too old is let go of
    Given the configuration
      """
      artifacts: { keep_minutes: 30 }
      pools: [{ id: p, model: $MODEL, engine: $STUB_ENGINE }]
      """
    And orchestratord starts anew
    When a client stores the texts "first text, second text"
    And the file of the text "first text" is 31 minutes old
    And the file of the text "second text" is 20 minutes old
    And orchestratord is killed
    And orchestratord starts
    Then the text "first text" was let go of
    And the text "second text" is still there

  @ORCHD-ARTIFACT-004
  Scenario: A disk that refuses is told, and nothing is half kept
    When a client stores the texts "first text"
    And the directory "runtime/artifacts" is taken away
    And a client stores the text "second text"
    Then the answer is 503 with code "STORAGE_UNAVAILABLE"
    And the answer says when to come back
    When the directory "runtime/artifacts" is put back
    Then the text "first text" is still there
    And the text "second text" was let go of
    When a client stores the texts "second text"
    Then the text "second text" is still there
