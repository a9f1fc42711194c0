//! A JSON body that may be absent: then every field has its default.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;
use wire::ErrorCode;

use super::problem::Problem;

/// The body, or its default where there is none. Its `Content-Type` does not matter.
pub(super) struct Optional<T>(pub(super) T);

impl<T, S> FromRequest<S> for Optional<T>
where
    T: DeserializeOwned + Default,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|error| Problem::new(ErrorCode::TooLarge, error.body_text()))?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(T::default()));
        }
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            Problem::new(ErrorCode::InvalidParams, format!("the body is not understood: {error}"))
        })
    }
}
