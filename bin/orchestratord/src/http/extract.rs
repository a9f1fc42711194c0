//! Reading request bodies: bounded in size and time, with errors in our envelope.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use wire::{ErrorBody, ErrorCode};

use super::error::ApiError;

/// A body is refused beyond this size.
pub(crate) const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Of a body that is too large, this much more is read before the refusal.
const DISCARDED_BYTES: usize = 4 * 1024 * 1024;
/// A body must have arrived by then.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A JSON body with the bytes it came as.
pub(crate) struct JsonBody<T> {
    pub(crate) value: T,
    pub(crate) bytes: Bytes,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = read(request).await?;
        let value = serde_json::from_slice(&bytes).map_err(|error| not_json(&error))?;
        Ok(Self { value, bytes })
    }
}

async fn read(request: Request) -> Result<Bytes, ApiError> {
    let announced =
        request.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > MAX_BODY_BYTES + DISCARDED_BYTES) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIMEOUT, collect(request.into_body())).await {
        Ok(read) => read,
        Err(_) => Err(ApiError::new(
            ErrorCode::InvalidParams,
            format!("the request body did not arrive within {} s", BODY_TIMEOUT.as_secs()),
        )),
    }
}

/// Reads a body that is a little too large to its end and throws it away: a client that is still
/// sending when the connection closes sees a reset instead of the answer.
async fn collect(mut body: Body) -> Result<Bytes, ApiError> {
    let (mut kept, mut length) = (BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let broke =
            |error| ApiError::new(ErrorCode::InvalidParams, format!("the request body broke off: {error}"));
        let Ok(data) = frame.map_err(broke)?.into_data() else { continue };
        length += data.len();
        if length <= MAX_BODY_BYTES {
            kept.extend_from_slice(&data);
        } else if length > MAX_BODY_BYTES + DISCARDED_BYTES {
            break;
        }
    }
    if length > MAX_BODY_BYTES { Err(too_large()) } else { Ok(kept.freeze()) }
}

fn too_large() -> ApiError {
    ApiError::new(ErrorCode::TooLarge, format!("the request body is larger than {MAX_BODY_BYTES} bytes"))
}

/// serde names unknown and mistyped fields in backquotes; the name becomes `param`.
fn not_json(error: &serde_json::Error) -> ApiError {
    let message = error.to_string();
    let mut body =
        ErrorBody::new(ErrorCode::InvalidParams, format!("the request body is not valid: {message}"));
    body.param = message.split('`').nth(1).map(str::to_owned);
    body.into()
}
