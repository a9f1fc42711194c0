//! Reading request bodies: bounded in size and time, with errors in our envelope.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, MatchedPath, Request};
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use wire::{ErrorCode, TraceContext};

use super::AppState;
use super::error::ApiError;

/// A body is refused beyond this size, unless the configuration says otherwise for its route.
pub(crate) const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Of a body that is too large, this much more is read before the refusal.
const DISCARDED_BYTES: usize = 4 * 1024 * 1024;

/// How large bodies may be and how long they may take.
#[derive(Debug)]
pub(crate) struct BodyLimits {
    /// Bytes, on routes where it is not [`MAX_BODY_BYTES`].
    pub(crate) routes: BTreeMap<String, usize>,
    /// For all of a body.
    pub(crate) timeout: Duration,
}

impl BodyLimits {
    fn bytes(&self, route: Option<&MatchedPath>) -> usize {
        route.and_then(|route| self.routes.get(route.as_str())).copied().unwrap_or(MAX_BODY_BYTES)
    }
}

/// A JSON body with the bytes it came as, and where in a trace the request is.
pub(crate) struct JsonBody<T> {
    pub(crate) value: T,
    pub(crate) bytes: Bytes,
    pub(crate) trace: Option<TraceContext>,
}

impl<T: DeserializeOwned> FromRequest<AppState> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let limit = state.bodies.bytes(request.extensions().get());
        let trace = request.extensions().get().cloned();
        let bytes = read(request, limit, state.bodies.timeout).await?;
        let value = parse(&bytes)?;
        Ok(Self { value, bytes, trace })
    }
}

/// A body as it came.
pub(crate) struct RawBody(pub(crate) Bytes);

impl FromRequest<AppState> for RawBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let limit = state.bodies.bytes(request.extensions().get());
        read(request, limit, state.bodies.timeout).await.map(Self)
    }
}

/// A JSON body that may be absent: then every field has its default.
pub(crate) struct OptionalBody<T>(pub(crate) T);

impl<T: DeserializeOwned + Default> FromRequest<AppState> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let limit = state.bodies.bytes(request.extensions().get());
        let bytes = read(request, limit, state.bodies.timeout).await?;
        let absent = bytes.trim_ascii().is_empty();
        if absent { Ok(Self(T::default())) } else { parse(&bytes).map(Self) }
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // serde would take a list for a struct, field by field.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(ApiError::new(ErrorCode::InvalidParams, "the request body must be a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| not_json(&error))?;
    json.end().map_err(|_| ApiError::new(ErrorCode::InvalidParams, "something follows the JSON object"))?;
    Ok(value)
}

async fn read(request: Request, limit: usize, time: Duration) -> Result<Bytes, ApiError> {
    let announced =
        request.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit + DISCARDED_BYTES) {
        return Err(too_large(limit));
    }
    match tokio::time::timeout(time, collect(request.into_body(), limit)).await {
        Ok(read) => read,
        Err(_) => Err(ApiError::new(
            ErrorCode::InvalidParams,
            format!("the request body did not arrive within {} s", time.as_secs()),
        )),
    }
}

/// Reads a body that is a little too large to its end and throws it away: a client that is still
/// sending when the connection closes sees a reset instead of the answer.
async fn collect(mut body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let (mut kept, mut length) = (BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let broke =
            |error| ApiError::new(ErrorCode::InvalidParams, format!("the request body broke off: {error}"));
        let Ok(data) = frame.map_err(broke)?.into_data() else { continue };
        length += data.len();
        if length <= limit {
            kept.extend_from_slice(&data);
        } else if length > limit + DISCARDED_BYTES {
            break;
        }
    }
    if length > limit { Err(too_large(limit)) } else { Ok(kept.freeze()) }
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(ErrorCode::TooLarge, format!("the request body is larger than {limit} bytes"))
}

/// Says which field is wrong and what it must be, never what the client sent: a prompt in the wrong
/// place must not come back in an error that somebody logs.
fn not_json(error: &serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    let inner = error.inner();
    let text = inner.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    let quoted = || text.split('`').nth(1).unwrap_or_default().to_owned();
    let path = error.path().to_string();
    if !matches!(inner.classify(), serde_json::error::Category::Data) {
        let at = format!("line {} column {}", inner.line(), inner.column());
        return ApiError::new(
            ErrorCode::InvalidParams,
            format!("the request body is not valid JSON at {at}"),
        );
    }
    if text.starts_with("unknown field") || text.starts_with("missing field") {
        return ApiError::invalid(&quoted(), text);
    }
    match text.rsplit_once("expected ") {
        Some((_, expected)) => ApiError::invalid(&path, format!("{path} must be {}", in_json(expected))),
        None => ApiError::invalid(&path, format!("{path} is not valid: {}", rule(text))),
    }
}

/// What the parser calls by the names of Rust, in those of JSON.
fn in_json(expected: &str) -> &str {
    match expected {
        "u32" => "a whole number, not negative and below 2^32",
        "u64" | "usize" => "a whole number, not negative and below 2^64",
        "i64" => "a whole number from -2^63, below 2^63",
        "f32" | "f64" => "a number",
        "a sequence" => "a list",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    }
}

/// Our own types end their errors with the rule, after what was given.
fn rule(text: &str) -> &str {
    text.rsplit_once("is not valid: ").map_or(text, |(_, rule)| rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::TaskRequest;

    #[test]
    fn a_refusal_names_the_field_and_never_quotes_its_value() {
        for (body, param) in [
            (r#"{"model":"m","max_tokens":-1}"#, Some("max_tokens")),
            (r#"{"model":"m","max_tokens":1e23}"#, Some("max_tokens")),
            (r#"{"model":"m","workload":"SECRET"}"#, Some("workload")),
            (r#"{"model":"m","messages":"SECRET"}"#, Some("messages")),
            (r#"{"model":"m","messages":[{"role":7}]}"#, Some("messages[0].role")),
            (r#"{"model":"m","seed":-1}"#, Some("seed")),
            (r#"{"model":"m","task_id":"SECRET!"}"#, Some("task_id")),
            (r#"{"model":"m","promt":"SECRET"}"#, Some("promt")),
            (r#"{"prompt":"SECRET"}"#, Some("model")),
            (r#"{"model":"m""#, None),
            (r#"["SECRET"]"#, None),
        ] {
            let error = parse::<TaskRequest>(body.as_bytes()).err().unwrap();
            assert_eq!(error.0.param.as_deref(), param, "{body}: {}", error.0.message);
            assert!(!error.0.message.contains("SECRET"), "{body}: {}", error.0.message);
        }
    }

    #[test]
    fn a_refusal_says_what_a_field_must_be_in_the_terms_of_json() {
        for (field, must_be) in [
            (r#""max_tokens":-1"#, "max_tokens must be a whole number, not negative and below 2^32"),
            (r#""deadline_ms":1.5"#, "deadline_ms must be a whole number, not negative and below 2^64"),
            (r#""temperature":"hot""#, "temperature must be a number"),
            (r#""messages":"hello""#, "messages must be a list"),
            (r#""placement":7"#, "placement must be an object"),
            (r#""prompt":7"#, "prompt must be a string"),
        ] {
            let body = format!(r#"{{"model":"m",{field}}}"#);
            let error = parse::<TaskRequest>(body.as_bytes()).err().unwrap();
            assert_eq!(error.0.message, must_be);
        }
    }
}
