//! Errors of `/v1/messages` in the shape that Anthropic's SDKs read, wherever in the daemon they
//! come from.

use axum::Json;
use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use wire::ErrorBody;
use wire::anthropic::{MessagesError, MessagesErrorBody};

use crate::http::error::in_words;

/// The paths whose errors these are.
const PATHS: [&str; 2] = ["/v1/messages", "/v1/messages/count_tokens"];

/// Puts another body to errors of this API; headers and status stay.
pub(in crate::http) async fn reshape(request: Request, next: Next) -> Response {
    let ours = request.extensions().get::<MatchedPath>().is_some_and(|path| PATHS.contains(&path.as_str()));
    let mut response = next.run(request).await;
    if !ours {
        return response;
    }
    let Some(body) = response.extensions_mut().remove::<Box<ErrorBody>>() else { return response };
    let status = response.status();
    let mut reshaped = (status, Json(error(&body))).into_response();
    let new = reshaped.headers().clone();
    std::mem::swap(reshaped.headers_mut(), response.headers_mut());
    reshaped.headers_mut().remove(http::header::CONTENT_LENGTH);
    reshaped.headers_mut().extend(new);
    *reshaped.extensions_mut() = std::mem::take(response.extensions_mut());
    reshaped
}

/// `{type: error, error: {type, message}}`, with our code and hint beside them.
pub(super) fn error(body: &ErrorBody) -> MessagesError {
    let kind = match body.code.status() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        503 => "overloaded_error",
        _ => "api_error",
    };
    let error = MessagesErrorBody { kind: kind.to_owned(), message: in_words(body), code: body.code };
    MessagesError { kind: "error".to_owned(), error }
}
