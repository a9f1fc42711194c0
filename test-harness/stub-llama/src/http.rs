//! The routes.

use std::collections::BTreeMap;
use std::io;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use serde_json::{Value, json};

use crate::frames::{self, Dialect};
use crate::generation::{Generation, Plan, Step, apply_template};
use crate::server::{Seen, Shared};
use crate::{once, tokenize};

/// The real server takes bodies of any size; a test never needs more.
const MAX_BODY: usize = 64 << 20;

pub(crate) fn router(shared: Shared) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/v1/health", get(health))
        .route("/props", get(props))
        .route("/slots", get(slots))
        .route("/metrics", get(metrics))
        .route("/v1/models", get(models))
        .route("/tokenize", post(post_tokenize))
        .route("/apply-template", post(post_template))
        .route("/v1/embeddings", post(once::embeddings))
        .route("/v1/rerank", post(once::rerank))
        .route("/completion", post(completion))
        .route("/completions", post(completion))
        .route("/chat/completions", post(chat))
        .route("/v1/chat/completions", post(chat))
        // Not of the real server: what a test asks that did not start this one itself.
        .route("/stub/prompts", get(prompts))
        .fallback(|| async { refuse(404, "not_found_error", "File Not Found") })
        .layer(middleware::from_fn_with_state(shared.clone(), gate))
        .with_state(shared)
}

/// Reads the body, remembers the request, and asks for readiness first and the key second, in the
/// real server's order.
async fn gate(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(bytes) = to_bytes(body, MAX_BODY).await else {
        return refuse(413, "invalid_request_error", "the body is too large or was cut");
    };
    let headers = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let path = parts.uri.path().to_owned();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    shared.remember(Seen { method: parts.method.to_string(), path: path.clone(), headers, body });
    if !shared.is_loaded() {
        return refuse(503, "unavailable_error", "Loading model");
    }
    let public = matches!(path.as_str(), "/health" | "/v1/health");
    let key = parts.headers.get(header::AUTHORIZATION).or_else(|| parts.headers.get("x-api-key"));
    let key = key.and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !public && !shared.admits(key.strip_prefix("Bearer ").unwrap_or(key)) {
        return refuse(401, "authentication_error", "Invalid API Key");
    }
    next.run(Request::from_parts(parts, Body::from(bytes))).await
}

pub(crate) fn refuse(status: u16, kind: &str, message: &str) -> Response {
    answer(status, &frames::error(status, kind, message))
}

pub(crate) fn answer(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/json; charset=utf-8")], body.to_string()).into_response()
}

/// How often each text was given to be continued; lists of tokens are left out.
async fn prompts(State(shared): State<Shared>) -> Response {
    let mut times = BTreeMap::<String, u64>::new();
    for request in shared.seen().iter().filter(|request| request.path == "/completion") {
        if let Some(prompt) = request.body["prompt"].as_str() {
            *times.entry(prompt.to_owned()).or_default() += 1;
        }
    }
    answer(200, &json!(times))
}

async fn health() -> Response {
    answer(200, &json!({"status": "ok"}))
}

async fn props(State(shared): State<Shared>) -> Response {
    let config = shared.config();
    answer(
        200,
        &json!({
            "default_generation_settings": {"params": {"n_predict": -1}, "n_ctx": config.slot_ctx()},
            "total_slots": config.parallel, "model_alias": config.model_name(), "model_ftype": "all F32",
            "model_path": config.model, "modalities": {"vision": false, "video": false, "audio": false},
            "endpoint_slots": true, "endpoint_props": false, "endpoint_metrics": config.metrics,
            "chat_template": "{{ messages }}", "bos_token": "<s>", "eos_token": "</s>",
            "build_info": "b0-stub", "is_sleeping": false,
        }),
    )
}

async fn slots(State(shared): State<Shared>) -> Response {
    if shared.faults().slots_silent {
        return std::future::pending().await;
    }
    answer(200, &shared.slots().view())
}

async fn metrics(State(shared): State<Shared>) -> Response {
    if !shared.config().metrics {
        let message = "This server does not support metrics endpoint. Start it with `--metrics`";
        return refuse(501, "not_supported_error", message);
    }
    let stats = shared.stats();
    let text = format!(
        "# HELP llamacpp:tokens_predicted_total Number of generation tokens processed\n\
         # TYPE llamacpp:tokens_predicted_total counter\nllamacpp:tokens_predicted_total {}\n\
         # HELP llamacpp:requests_processing Number of requests processing\n\
         # TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing {}\n\
         # HELP llamacpp:requests_deferred Number of requests deferred\n\
         # TYPE llamacpp:requests_deferred gauge\nllamacpp:requests_deferred {}\n",
        stats.tokens, stats.busy, stats.waiting
    );
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn models(State(shared): State<Shared>) -> Response {
    let config = shared.config();
    answer(
        200,
        &json!({"object": "list", "data": [{
            "id": config.model_name(), "object": "model", "created": 0, "owned_by": "llamacpp",
            "meta": {"n_ctx": config.slot_ctx()},
        }]}),
    )
}

/// The real server answers a broken body with 500: its JSON parser's exception is no
/// `invalid_argument`.
pub(crate) fn parse(body: &[u8]) -> Result<Value, Box<Response>> {
    serde_json::from_slice(body).map_err(|error| Box::new(refuse(500, "server_error", &error.to_string())))
}

async fn post_tokenize(body: Bytes) -> Response {
    match parse(&body) {
        Ok(body) => answer(200, &json!({"tokens": tokenize(body["content"].as_str().unwrap_or_default())})),
        Err(refusal) => *refusal,
    }
}

async fn post_template(body: Bytes) -> Response {
    match parse(&body).map(|body| apply_template(&body)) {
        Ok(Ok(prompt)) => answer(200, &json!({"prompt": prompt})),
        Ok(Err(message)) => refuse(400, "invalid_request_error", &message),
        Err(refusal) => *refusal,
    }
}

async fn completion(State(shared): State<Shared>, body: Bytes) -> Response {
    generate(shared, Dialect::Native, &body).await
}

async fn chat(State(shared): State<Shared>, body: Bytes) -> Response {
    generate(shared, Dialect::Chat, &body).await
}

async fn generate(shared: Shared, dialect: Dialect, body: &[u8]) -> Response {
    let body = match parse(body) {
        Ok(body) => body,
        Err(refusal) => return *refusal,
    };
    let plan = match Plan::read(dialect, &body, shared.config().model_name()) {
        Ok(plan) => plan,
        Err(message) => return refuse(400, "invalid_request_error", &message),
    };
    let (asked, ctx) = (plan.prompt.len() as u64, u64::from(shared.slot_ctx()));
    if asked >= ctx {
        let message = format!(
            "request ({asked} tokens) exceeds the available context size ({ctx} tokens), try increasing it"
        );
        let mut body = frames::error(400, "exceed_context_size_error", &message);
        body["error"]["n_prompt_tokens"] = json!(asked);
        body["error"]["n_ctx"] = json!(ctx);
        return answer(400, &body);
    }
    let Some(lease) = shared.slots().acquire(asked, plan.limit).await else {
        return refuse(503, "unavailable_error", "going down");
    };
    let generation = Generation::new(plan, shared, lease);
    if generation.plan.stream { streamed(generation) } else { whole(generation).await }
}

async fn whole(mut generation: Generation) -> Response {
    let (mut text, mut tokens) = (String::new(), Vec::new());
    loop {
        match generation.next().await {
            Step::Piece(piece) => {
                text.push_str(&piece.text);
                tokens.push(piece.id);
            }
            Step::End(end) => return answer(200, &frames::whole(&generation.plan, &end, &text, &tokens)),
            Step::Error(body) => return answer(500, &body),
            Step::Raw(_) => {}
            // A body that breaks at once closes the connection.
            Step::Break => return Body::from_stream(broken()).into_response(),
        }
    }
}

fn streamed(generation: Generation) -> Response {
    let faults = generation.faults();
    let frames = stream::unfold(Some(generation), |generation| async {
        let mut generation = generation?;
        let (frame, more) = match generation.next().await {
            Step::Piece(piece) => (Ok(sse(&frames::piece(&generation.plan, &piece))), true),
            Step::Raw(bytes) => (Ok(bytes), true),
            Step::Error(body) => (Ok(sse(&[body])), false),
            Step::Break => (Err(io::Error::from(io::ErrorKind::ConnectionReset)), false),
            Step::End(end) => {
                let mut bytes = sse(&frames::end(&generation.plan, &end));
                if generation.plan.dialect == Dialect::Chat {
                    bytes.extend_from_slice(b"data: [DONE]\n\n");
                }
                (Ok(bytes), false)
            }
        };
        Some((frame, more.then_some(generation)))
    });
    let chunks = frames.flat_map(move |frame| match frame {
        Ok(frame) if faults.split_bytes => cut(frame, |_| true),
        Ok(frame) if faults.split_utf8 => cut(frame, |byte| byte & 0xc0 == 0x80),
        Ok(frame) => cut(frame, |_| false),
        Err(error) => stream::iter(vec![Err(error)]),
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(paced(chunks))).into_response()
}

fn sse(frames: &[Value]) -> Vec<u8> {
    frames.iter().flat_map(|frame| format!("data: {frame}\n\n").into_bytes()).collect()
}

type Chunks = stream::Iter<std::vec::IntoIter<io::Result<Bytes>>>;

/// Cuts a frame before every byte of which `before` is true.
fn cut(frame: Vec<u8>, before: impl Fn(u8) -> bool) -> Chunks {
    let mut chunks = Vec::new();
    let mut start = 0;
    for at in 1..frame.len() {
        if before(frame[at]) {
            chunks.push(Ok(Bytes::copy_from_slice(&frame[start..at])));
            start = at;
        }
    }
    chunks.push(Ok(Bytes::copy_from_slice(&frame[start..])));
    stream::iter(chunks)
}

/// Yields between chunks, so that each is written on its own.
fn paced(chunks: impl Stream<Item = io::Result<Bytes>>) -> impl Stream<Item = io::Result<Bytes>> {
    chunks.then(|chunk| async {
        tokio::task::yield_now().await;
        chunk
    })
}

fn broken() -> impl Stream<Item = io::Result<Bytes>> {
    stream::iter([Err(io::Error::from(io::ErrorKind::ConnectionReset))])
}
