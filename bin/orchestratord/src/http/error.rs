//! The one place that turns errors into responses: envelope, status, `Retry-After`.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use wire::event::StreamError;
use wire::{ErrorBody, ErrorCode, ErrorEnvelope};

/// OpenAI's SDKs read this one too.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
/// Tells those SDKs not to repeat what cannot succeed.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// An error on its way out.
#[derive(Debug)]
pub(crate) struct ApiError(pub(crate) Box<ErrorBody>);

impl ApiError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(Box::new(ErrorBody::new(code, message)))
    }

    /// A field that is not what it must be.
    pub(crate) fn invalid(param: &str, message: impl Into<String>) -> Self {
        ErrorBody::new(ErrorCode::InvalidParams, message).param(param).into()
    }
}

impl From<ErrorBody> for ApiError {
    fn from(body: ErrorBody) -> Self {
        Self(Box::new(body))
    }
}

/// The error that ended a task's stream, as a body of its own.
pub(crate) fn from_stream(error: &StreamError) -> ErrorBody {
    let mut body = ErrorBody::new(error.code, error.message.clone());
    body.retriable = error.retriable;
    body.retry_after_ms = error.retry_after_ms;
    body.hint.clone_from(&error.hint);
    body
}

/// What is said of an error where a shape has room for one text only.
pub(crate) fn in_words(body: &ErrorBody) -> String {
    match &body.hint {
        Some(hint) => format!("{}; {hint}", body.message),
        None => body.message.clone(),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = *self.0;
        let status = StatusCode::from_u16(body.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after_ms = body.retry_after_ms;
        let retriable = body.retriable;
        let mut response = (status, Json(ErrorEnvelope { error: body.clone() })).into_response();
        // For those whose clients expect it in another shape.
        response.extensions_mut().insert(Box::new(body));
        let headers = response.headers_mut();
        if let Some(ms) = retry_after_ms {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000).max(1)));
            headers.insert(RETRY_AFTER_MS, HeaderValue::from(ms.clamp(1, 120_000)));
        }
        if !retriable {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        response
    }
}
