//! What an answer that is not 200 means: the request's fault, or the engine's.

use adapter_host::SubmitError;
use serde::Deserialize;
use wire::{ErrorBody, ErrorCode};

/// An engine's message may quote the request at length.
const MAX_MESSAGE_CHARS: usize = 500;

#[derive(Deserialize)]
struct Envelope {
    error: EngineError,
}

/// llama-server's error object, in answers and in streams.
#[derive(Deserialize)]
pub(crate) struct EngineError {
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
    pub(crate) fn message(self) -> String {
        self.message.chars().take(MAX_MESSAGE_CHARS).collect()
    }
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
        (_, Some(error)) => {
            SubmitError::Lost(format!("it answered {path} with {status}: {}", error.message()))
        }
        (_, None) => SubmitError::Lost(format!("it answered {path} with {status}")),
    }
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

    #[test]
    fn only_what_every_replica_would_refuse_is_a_refusal() {
        let error = |kind: &str| format!(r#"{{"error":{{"code":400,"message":"m","type":"{kind}"}}}}"#);
        assert_eq!(code(400, &error("invalid_request_error")), Some(ErrorCode::InvalidParams));
        assert_eq!(code(400, &error("exceed_context_size_error")), Some(ErrorCode::ContextOverflow));
        assert_eq!(code(501, &error("not_supported_error")), Some(ErrorCode::InvalidParams));
        for status in [302, 401, 403, 404, 500, 503] {
            assert_eq!(code(status, &error("x")), None, "{status}");
        }
        assert_eq!(code(400, "<html>"), None, "not llama-server's words");
    }

    #[test]
    fn a_context_overflow_says_both_numbers() {
        let body = r#"{"error":{"code":400,"message":"m","type":"exceed_context_size_error",
            "n_prompt_tokens":12002,"n_ctx":512}}"#;
        let error = read("/completion", 400, body.as_bytes()).to_string();
        assert!(error.contains("12002") && error.contains("512"), "{error}");
    }
}
