//! Which handler serves which operation. The list of operations itself is `wire::operations`; a
//! test asks this router for each of them.

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{delete, get, post};
use http::Uri;
use wire::operations::Access;
use wire::{ErrorBody, ErrorCode};

use super::error::ApiError;
use super::{
    AppState, access, anthropic, artifacts, capabilities, catalog, dashboard, devices, events, guard, logs,
    meta, openai, operations, pools, responses, sessions, tasks, workers,
};

/// The whole HTTP surface of orchestratord. Its requests are logged by the server ([`super::access::logged`]).
pub fn router(state: AppState) -> Router {
    let open = Router::new()
        .route("/health", get(meta::health))
        .route("/livez", get(meta::health))
        .route("/ready", get(meta::ready))
        .route("/readyz", get(meta::ready));
    let data = Router::new()
        .route("/v2/tasks", post(tasks::submit).get(tasks::list))
        .route("/v2/tasks/{id}", get(tasks::show).delete(tasks::cancel))
        .route("/v2/tasks/{id}/cancel", post(tasks::cancel))
        .route("/v2/tasks/{id}/events", get(events::follow))
        .route("/v2/artifacts", post(artifacts::store))
        .route("/v2/artifacts/{sha256}", get(artifacts::read))
        .route("/v2/sessions/{id}", get(sessions::show).delete(sessions::forget))
        .route("/v2/pools", get(pools::list))
        .route("/v2/pools/{id}", get(pools::show))
        .route("/v2/pools/{id}/health", get(pools::health))
        .route("/v1/pools/{id}/health", get(pools::health))
        .route("/v2/meta/version", get(meta::version))
        .route("/v2/openapi.json", get(meta::openapi))
        .route("/v2/meta/capabilities", get(capabilities::capabilities))
        .route("/v1/models", get(openai::models))
        .route("/v1/models/{id}", get(openai::model))
        .route("/v1/chat/completions", post(openai::chat))
        .route("/v1/completions", post(openai::completions))
        .route("/v1/responses", post(responses::create))
        .route("/v1/messages", post(anthropic::messages))
        .route("/v1/messages/count_tokens", post(anthropic::count_tokens))
        .route("/v1/embeddings", post(openai::embeddings))
        .route("/v1/rerank", post(openai::rerank));
    let control = Router::new()
        .route("/control/pools/{id}/health", get(pools::health))
        .route("/v2/devices", get(devices::list))
        .route("/v2/pools/{id}/logs", get(logs::logs))
        .route("/v2/pools/{id}/preload", post(pools::preload))
        .route("/v2/pools/{id}/drain", post(operations::drain))
        .route("/v2/pools/{id}/undrain", post(operations::undrain))
        .route("/v2/pools/{id}/reload", post(operations::reload))
        .route("/v2/pools/{id}/reset", post(operations::reset))
        .route("/v2/events", get(dashboard::watch))
        .route("/v2/catalog/models", get(catalog::list))
        .route("/v2/catalog/models/{id}", get(catalog::show).delete(catalog::remove))
        .route("/v2/catalog/models/{id}/verify", post(catalog::verify))
        .route("/v2/workers", get(workers::list))
        .route("/v2/workers/register", post(workers::register))
        .route("/v2/workers/{pool}/{replica}", delete(workers::unregister))
        .route("/v2/workers/{pool}/{replica}/heartbeat", post(workers::heartbeat))
        .route("/v2/operations", get(operations::list))
        .route("/v2/operations/{id}", get(operations::show))
        .route("/v2/usage", get(meta::usage))
        .route("/metrics", get(meta::metrics));
    let authorised = |routes: Router<AppState>, access: Access| {
        routes.route_layer(from_fn_with_state((state.guard.clone(), access), guard::authorise))
    };
    open.merge(authorised(data, Access::Data))
        .merge(authorised(control, Access::Control))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(state.guard.clone(), guard::same_origin))
        .layer(from_fn(anthropic::reshape))
        .layer(from_fn_with_state(state.traces.clone(), access::correlate))
        .with_state(state)
}

async fn not_found(uri: Uri) -> ApiError {
    ErrorBody::new(ErrorCode::NotFound, format!("nothing is served at {}", uri.path()))
        .hint("what is served is described at /v2/openapi.json")
        .into()
}

async fn method_not_allowed(uri: Uri) -> ApiError {
    ApiError::new(ErrorCode::MethodNotAllowed, format!("{} does not serve this method", uri.path()))
}
