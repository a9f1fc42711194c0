//! Who may ask (the bearer token, on everything but `/health`), and the correlation id of every
//! answer, refusals included.

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use wire::{CorrelationId, ErrorCode};

use super::problem::Problem;
use crate::Token;

const CORRELATION: HeaderName = HeaderName::from_static("x-correlation-id");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) async fn require_token(State(token): State<Token>, request: Request, next: Next) -> Response {
    if request.uri().path() == "/health" {
        return next.run(request).await;
    }
    match bearer(&request) {
        Some(sent) if token.is(sent) => next.run(request).await,
        Some(_) => Problem::new(ErrorCode::BadToken, "this bearer token is not the one of this daemon")
            .into_response(),
        None => Problem::new(ErrorCode::MissingToken, "a bearer token is required")
            .hint("send Authorization: Bearer with the content of <runtime>/pool-managerd.token")
            .into_response(),
    }
}

fn bearer(request: &Request) -> Option<&str> {
    let (scheme, token) = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

pub(super) async fn correlate(request: Request, next: Next) -> Response {
    let sent = request.headers().get(CORRELATION).and_then(|value| value.to_str().ok());
    let id = sent.and_then(|text| CorrelationId::try_new(text).ok()).unwrap_or_else(CorrelationId::generate);
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(CORRELATION, value.clone());
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}
