//! `GET /v2/meta/capabilities`: what can be asked for here now, and within which limits.

use axum::Json;
use axum::extract::State;
use wire::PoolId;
use wire::meta::{Capabilities, PoolCapabilities, RequestLimits};
use wire::operations::{self, Body, Daemon};

use super::AppState;
use super::extract::MAX_BODY_BYTES;

pub(super) async fn capabilities(State(state): State<AppState>) -> Json<Capabilities> {
    // The protocols of others; ours is described by its own document.
    let routes = operations::of(Daemon::Orchestratord)
        .filter(|op| op.path.starts_with("/v1/") && op.request != Body::None)
        .map(|op| op.path.to_owned());
    let of_routes = state.bodies.routes.iter().map(|(path, bytes)| (path.clone(), *bytes as u64));
    Json(Capabilities {
        routes: routes.collect(),
        limits: RequestLimits {
            body_bytes: MAX_BODY_BYTES as u64,
            body_bytes_of_routes: of_routes.collect(),
            body_timeout_ms: u64::try_from(state.bodies.timeout.as_millis()).unwrap_or(u64::MAX),
        },
        pools: state.dispatch.pool_ids().iter().map(|id| pool(&state, id)).collect(),
    })
}

fn pool(state: &AppState, id: &PoolId) -> PoolCapabilities {
    let snapshot = state.registry.snapshot();
    let serving = || snapshot.pool(id).map(|(_, replica)| replica).filter(|r| r.ready && !r.draining);
    let names = |name: fn(&registry::Replica) -> String| {
        let mut names: Vec<String> = serving().map(name).filter(|name| !name.is_empty()).collect();
        names.sort();
        names.dedup();
        names
    };
    let spec = state.dispatch.pool_spec(id);
    PoolCapabilities {
        id: id.clone(),
        aliases: spec.map(|spec| spec.aliases.clone()).unwrap_or_default(),
        kind: state.kinds.get(id),
        ready: serving().next().is_some(),
        models: names(|replica| replica.model_id.to_string()),
        engines: names(|replica| replica.engine_version.to_string()),
        ctx: serving().filter_map(|replica| replica.ctx).max(),
        slots_total: serving().map(|replica| replica.slots_total).sum(),
    }
}
