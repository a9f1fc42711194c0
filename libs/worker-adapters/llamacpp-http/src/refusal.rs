//! What an answer that is not 200 means: the request's fault, or the engine's.
//!
//! The engine's words may quote the request. They go into a refusal, which only the task's owner
//! reads, and never into the reason of a loss, which is logged.

use adapter_host::SubmitError;
use serde::Deserialize;
use wire::{ErrorBody, ErrorCode};

/// An engine's message may quote the request at length.
const MAX_MESSAGE_CHARS: usize = 500;

/// What llama-server's 500 says, in lower case, when the request is at fault. It answers with 500
/// whatever its chat templates, its message parser and its media loader throw.
const THE_REQUESTS: [&str; 20] = [
    "failed to parse",
    "not supported",
    "unsupported",
    "does not support",
    "template",
    "jinja",
    "while executing",
    "invalid",
    "must be",
    "must not be",
    "must contain",
    "expected",
    "missing",
    "required",
    "requires",
    "cannot ",
    "failed to load image",
    "failed to download image",
    "failed to tokenize",
    "schema",
];
/// What it says of itself in words that would pass for those above.
const THE_ENGINES: [&str; 3] = ["invalid input batch", "invalid diff", "the model produced output"];

#[derive(Deserialize)]
struct Envelope {
    error: EngineError,
}

/// llama-server's error object, in answers and in streams.
#[derive(Deserialize)]
struct EngineError {
    #[serde(default)]
    code: Option<u16>,
    #[serde(default)]
    message: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    n_prompt_tokens: Option<u64>,
    #[serde(default)]
    n_ctx: Option<u64>,
}

impl EngineError {
    fn message(self) -> String {
        bounded(&self.message)
    }

    /// Whether it is complete as llama-server writes it, and not what a stranger on the way or a
    /// broken server has put together.
    fn is_whole(&self, status: u16) -> bool {
        self.code == Some(status) && !self.kind.is_empty() && !self.message.is_empty()
    }
}

/// As much of an engine's message as is shown.
pub(crate) fn bounded(message: &str) -> String {
    message.chars().take(MAX_MESSAGE_CHARS).collect()
}

/// Reads a refusal of `path`.
pub(crate) fn read(path: &str, status: u16, body: &[u8]) -> SubmitError {
    let error = serde_json::from_slice::<Envelope>(body).ok().map(|envelope| envelope.error);
    match (status, error) {
        // Not the request's fault: the key is ours to know, and an engine knows its paths.
        (401 | 403, _) => SubmitError::Lost(format!("it refused our API key with {status} on {path}")),
        (404 | 405, _) => SubmitError::Lost(format!("it has no {path} ({status}); is it a llama-server?")),
        // 501: a feature this build or model lacks, which other replicas of the pool lack too.
        (400..=499 | 501, Some(error)) => SubmitError::Refused(Box::new(refused(error))),
        // An engine that says what went wrong is alive, and would say it again.
        (500, Some(error)) if error.is_whole(status) => SubmitError::Refused(Box::new(failed(error))),
        (_, _) => SubmitError::Lost(format!("it answered {path} with {status}")),
    }
}

/// A 500 in the engine's own words.
fn failed(error: EngineError) -> ErrorBody {
    let said = error.message.to_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| said.contains(phrase));
    let of_the_request = says(&THE_REQUESTS) && !THE_ENGINES.iter().any(|phrase| said.starts_with(phrase));
    if of_the_request {
        return ErrorBody::new(ErrorCode::InvalidParams, error.message());
    }
    ErrorBody::new(ErrorCode::Internal, format!("the engine failed at this request: {}", error.message()))
}

fn refused(error: EngineError) -> ErrorBody {
    if error.kind == "exceed_context_size_error" {
        let message = match (error.n_prompt_tokens, error.n_ctx) {
            (Some(asked), Some(ctx)) => {
                format!("the prompt has {asked} tokens, the context holds {ctx}")
            }
            _ => error.message(),
        };
        return ErrorBody::new(ErrorCode::ContextOverflow, message)
            .hint("shorten the prompt, or raise the pool's ctx");
    }
    ErrorBody::new(ErrorCode::InvalidParams, error.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(status: u16, body: &str) -> Option<ErrorCode> {
        match read("/completion", status, body.as_bytes()) {
            SubmitError::Refused(body) => Some(body.code),
            SubmitError::Lost(_) => None,
        }
    }

    /// LCPP-004
    #[test]
    fn only_what_every_replica_would_refuse_is_a_refusal() {
        let error = |kind: &str| format!(r#"{{"error":{{"code":400,"message":"m","type":"{kind}"}}}}"#);
        assert_eq!(code(400, &error("invalid_request_error")), Some(ErrorCode::InvalidParams));
        assert_eq!(code(400, &error("exceed_context_size_error")), Some(ErrorCode::ContextOverflow));
        assert_eq!(code(501, &error("not_supported_error")), Some(ErrorCode::InvalidParams));
        for status in [302, 401, 403, 404, 502, 503, 504] {
            assert_eq!(code(status, &error("x")), None, "{status}");
        }
        assert_eq!(code(400, "<html>"), None, "not llama-server's words");
    }

    fn of_500(message: &str) -> Option<ErrorCode> {
        let error = serde_json::json!({"error": {"code": 500, "message": message, "type": "server_error"}});
        code(500, &error.to_string())
    }

    /// LCPP-007; the messages are llama-server's own.
    #[test]
    fn a_500_in_the_engines_words_is_a_refusal_and_never_a_loss() {
        for message in [
            "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
            "Failed to parse messages: Unsupported tool call type: {\"type\":\"foo\"}",
            "Failed to parse messages: [json.exception.out_of_range.403] key 'text' not found",
            "Failed to parse tools: Expected 'tools' to be an array, got \"x\"; tools = \"x\"",
            "Jinja Exception: Conversation roles must alternate user/assistant/user/assistant/...",
            "Cannot use both json_schema and grammar",
        ] {
            assert_eq!(of_500(message), Some(ErrorCode::InvalidParams), "{message}");
        }
        for message in ["Compute error.", "Invalid input batch.", "failed to process mtmd chunk"] {
            assert_eq!(of_500(message), Some(ErrorCode::Internal), "{message}");
            assert!(!ErrorCode::Internal.retriable());
        }
    }

    /// LCPP-007
    #[test]
    fn a_500_that_is_not_llama_servers_is_a_loss() {
        for body in [
            "",
            "Internal Server Error",
            "{}",
            r#"{"error":"x"}"#,
            r#"{"error":{"message":"invalid"}}"#,
            r#"{"error":{"code":502,"message":"invalid","type":"server_error"}}"#,
            r#"{"error":{"code":500,"message":"invalid","type":"serv"#,
        ] {
            assert_eq!(code(500, body), None, "{body}");
        }
    }

    /// LCPP-008, SEC-004
    #[test]
    fn the_reason_of_a_loss_holds_no_word_of_the_engines() {
        for status in [302, 401, 403, 404, 405, 500, 502, 503, 504, 599] {
            let body = r#"{"error":{"code":1,"message":"the prompt was my secret","type":"secret"}}"#;
            let SubmitError::Lost(reason) = read("/completion", status, body.as_bytes()) else {
                panic!("{status} is a loss")
            };
            assert!(!reason.contains("secret"), "{reason}");
            assert!(reason.contains("/completion") && reason.contains(&status.to_string()), "{reason}");
        }
    }

    #[test]
    fn a_context_overflow_says_both_numbers() {
        let body = r#"{"error":{"code":400,"message":"m","type":"exceed_context_size_error",
            "n_prompt_tokens":12002,"n_ctx":512}}"#;
        let error = read("/completion", 400, body.as_bytes()).to_string();
        assert!(error.contains("12002") && error.contains("512"), "{error}");
    }
}
