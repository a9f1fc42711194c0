//! The one error envelope, its codes and what each means to a client.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::PoolId;

/// Every error response of every daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorEnvelope {
    /// The error.
    pub error: ErrorBody,
}

/// What went wrong, for programs (`code`) and people (`message`, `hint`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// Stable code.
    pub code: ErrorCode,
    /// One sentence.
    pub message: String,
    /// OpenAI's error type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The field at fault; null when none is.
    pub param: Option<String>,
    /// Whether the same request may succeed later.
    pub retriable: bool,
    /// When to try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The pool concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_id: Option<PoolId>,
    /// Anything more, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The stable codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "each name is its own documentation; status() says the rest")]
pub enum ErrorCode {
    InvalidParams,
    DeadlineUnmet,
    ContextOverflow,
    MissingToken,
    BadToken,
    Forbidden,
    NotFound,
    ModelNotFound,
    MethodNotAllowed,
    Conflict,
    TooLarge,
    UntrustedArtifact,
    QueueFull,
    RateLimited,
    PoolUnready,
    PoolDraining,
    BreakerOpen,
    StorageUnavailable,
    Internal,
    EngineLost,
    EngineStalled,
    DeadlineExceeded,
    Interrupted,
    ReaderTooSlow,
}

impl ErrorCode {
    /// The HTTP status it is sent with. What ends a task is 500 where the answer has not begun.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidParams | Self::DeadlineUnmet | Self::ContextOverflow => 400,
            Self::MissingToken | Self::BadToken => 401,
            Self::Forbidden => 403,
            Self::NotFound | Self::ModelNotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::UntrustedArtifact => 422,
            Self::QueueFull | Self::RateLimited => 429,
            Self::PoolUnready | Self::PoolDraining | Self::BreakerOpen | Self::StorageUnavailable => 503,
            Self::Internal
            | Self::EngineLost
            | Self::EngineStalled
            | Self::DeadlineExceeded
            | Self::Interrupted
            | Self::ReaderTooSlow => 500,
        }
    }

    /// OpenAI's `type` for it.
    #[must_use]
    pub fn openai_type(self) -> &'static str {
        match self.status() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            503 => "service_unavailable",
            _ => "server_error",
        }
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn retriable(self) -> bool {
        matches!(
            self,
            Self::QueueFull
                | Self::RateLimited
                | Self::PoolUnready
                | Self::PoolDraining
                | Self::BreakerOpen
                | Self::StorageUnavailable
                | Self::EngineLost
                | Self::EngineStalled
                | Self::Interrupted
        )
    }

    /// The wire spelling, `QUEUE_FULL`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidParams => "INVALID_PARAMS",
            Self::DeadlineUnmet => "DEADLINE_UNMET",
            Self::ContextOverflow => "CONTEXT_OVERFLOW",
            Self::MissingToken => "MISSING_TOKEN",
            Self::BadToken => "BAD_TOKEN",
            Self::Forbidden => "FORBIDDEN",
            Self::NotFound => "NOT_FOUND",
            Self::ModelNotFound => "MODEL_NOT_FOUND",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::Conflict => "CONFLICT",
            Self::TooLarge => "TOO_LARGE",
            Self::UntrustedArtifact => "UNTRUSTED_ARTIFACT",
            Self::QueueFull => "QUEUE_FULL",
            Self::RateLimited => "RATE_LIMITED",
            Self::PoolUnready => "POOL_UNREADY",
            Self::PoolDraining => "POOL_DRAINING",
            Self::BreakerOpen => "BREAKER_OPEN",
            Self::StorageUnavailable => "STORAGE_UNAVAILABLE",
            Self::Internal => "INTERNAL",
            Self::EngineLost => "ENGINE_LOST",
            Self::EngineStalled => "ENGINE_STALLED",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::Interrupted => "INTERRUPTED",
            Self::ReaderTooSlow => "READER_TOO_SLOW",
        }
    }
}

impl ErrorBody {
    /// An error with the code's own type and retriability and nothing optional.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            kind: code.openai_type().to_owned(),
            param: None,
            retriable: code.retriable(),
            retry_after_ms: None,
            hint: None,
            pool_id: None,
            detail: None,
        }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names the field at fault.
    #[must_use]
    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Names the pool.
    #[must_use]
    pub fn pool(mut self, pool: PoolId) -> Self {
        self.pool_id = Some(pool);
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after_ms(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_spelling_is_the_serialised_one() {
        for code in
            [ErrorCode::InvalidParams, ErrorCode::QueueFull, ErrorCode::EngineLost, ErrorCode::ModelNotFound]
        {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }
}
