//! Pools and their health.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use registry::Snapshot;
use wire::operation::PreloadRequest;
use wire::pool::{PoolList, ReplicaError};
use wire::{
    ErrorBody, ErrorCode, Handoff, PerformanceHints, Phase, PoolHealth, PoolId, PoolView, ReplicaKey,
    ReplicaView, Wanted,
};

use super::AppState;
use super::error::ApiError;
use super::extract::OptionalBody;
use super::manager::{Manager, not_taken};
use crate::feed::FeedView;

pub(super) async fn list(State(state): State<AppState>) -> Json<PoolList> {
    Json(PoolList { pools: state.pools(), configuration: state.configuration.view() })
}

pub(super) async fn show(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<PoolView>, ApiError> {
    find(&state, &id).map(Json)
}

pub(super) async fn health(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<PoolHealth>, ApiError> {
    let view = find(&state, &id)?;
    let snapshot = state.registry.snapshot();
    let replicas: Vec<_> = snapshot.pool(&view.id).map(|(_, replica)| replica).filter(|r| r.ready).collect();
    let serving = || replicas.iter().filter(|replica| !replica.draining);
    let reported = view.replicas.iter().find_map(|r| r.last_error.as_ref().map(|e| e.message.clone()));
    Ok(Json(PoolHealth {
        live: !replicas.is_empty() || view.replicas.iter().any(|r| r.pid.is_some()),
        ready: serving().next().is_some(),
        draining: !replicas.is_empty() && serving().next().is_none(),
        slots_total: serving().map(|replica| replica.slots_total).sum(),
        slots_free: serving().map(|replica| replica.slots_free).sum(),
        engine_version: replicas.first().map(|replica| replica.engine_version.to_string()),
        last_heartbeat_ms: state.feed.heartbeat(&view.id).map(|age| age.as_millis() as u64),
        last_error: reported.or_else(|| state.feed.last_error(&view.id)),
    }))
}

/// Hands the order on to pool-managerd; what becomes of it shows in the pool's phase and steps.
pub(super) async fn preload(
    State(state): State<AppState>,
    manager: Manager,
    Path(id): Path<String>,
    OptionalBody(request): OptionalBody<PreloadRequest>,
) -> Result<(StatusCode, Json<PoolView>), ApiError> {
    let pool = find(&state, &id)?.id;
    let view = manager.of(&pool)?.preload(&pool, &request).await;
    Ok((StatusCode::ACCEPTED, Json(view.map_err(|error| not_taken(error, Some(&pool)))?)))
}

pub(super) fn find(state: &AppState, id: &str) -> Result<PoolView, ApiError> {
    let known = || state.dispatch.pool_ids().iter().map(PoolId::to_string).collect::<Vec<_>>().join(", ");
    PoolId::try_new(id).ok().and_then(|id| state.pool(&id)).ok_or_else(|| {
        ErrorBody::new(ErrorCode::NotFound, format!("no pool is called {id:?}"))
            .hint(format!("the pools here are: {}", known()))
            .into()
    })
}

/// A pool that pool-managerd does not run: its engines are someone else's.
pub(super) fn unmanaged(id: &PoolId) -> PoolView {
    PoolView {
        id: id.clone(),
        aliases: Vec::new(),
        model_ref: String::new(),
        model: None,
        wanted: Wanted::Running,
        steps: Vec::new(),
        replicas: Vec::new(),
    }
}

/// What was measured of a replica; `None`: nothing yet.
pub(super) fn hints(replica: &registry::Replica) -> Option<PerformanceHints> {
    let registry::Hints { load, per_token } = replica.hints;
    let per_second = |per_token: Duration| {
        let seconds = per_token.as_secs_f64();
        (seconds > 0.0).then(|| (10.0 / seconds).round() / 10.0)
    };
    let hints = PerformanceHints {
        load_ms: load.map(|load| load.as_millis() as u64),
        tokens_per_s: per_token.and_then(per_second),
    };
    (hints != PerformanceHints::default()).then_some(hints)
}

/// Adds to a pool the engines that someone else runs for it: known by a handoff or registered, and up
/// at least once. Of one that pool-managerd runs, a life that began since it was last asked is shown, too.
pub(super) fn add_others(view: &mut PoolView, feed: &FeedView, snapshot: &Snapshot) {
    for (handoff, error) in feed.handoffs(&view.id) {
        if view.model_ref.is_empty() {
            view.model_ref.clone_from(&handoff.model.id);
        }
        let key = ReplicaKey { pool: view.id.clone(), replica: handoff.replica_id.clone() };
        let known = snapshot.replicas.get(&key);
        let serves = known.is_some_and(|known| known.ready && known.generation == handoff.generation);
        let phase = match known {
            Some(replica) if replica.ready && replica.draining => Phase::Draining,
            Some(replica) if replica.ready => Phase::Ready,
            _ => Phase::Backoff,
        };
        match view.replicas.iter_mut().find(|replica| replica.id == handoff.replica_id) {
            None => view.replicas.push(claimed(handoff, phase, error)),
            Some(told) if serves => overtake(told, handoff, phase),
            Some(_) => {}
        }
    }
}

/// pool-managerd is asked twice a second; a handoff is here at once. One of a later life, whose engine
/// serves, says more of a replica than what was told of the life before.
fn overtake(told: &mut ReplicaView, handoff: Handoff, phase: Phase) {
    if handoff.generation <= told.generation {
        return;
    }
    let (failures, losses, hints) = (told.failures, std::mem::take(&mut told.losses), told.hints.take());
    *told = ReplicaView { failures, losses, hints, ..claimed(handoff, phase, None) };
}

/// A replica as its handoff claims it to be.
fn claimed(handoff: Handoff, phase: Phase, error: Option<String>) -> ReplicaView {
    ReplicaView {
        id: handoff.replica_id,
        phase,
        phase_ms: 0,
        engine_version: Some(handoff.engine_version).filter(|version| !version.is_empty()),
        pid: handoff.pid,
        url: Some(handoff.url),
        device_mask: handoff.device_mask,
        hints: None,
        determinism: handoff.determinism,
        slots_total: handoff.slots_total,
        slots_free: None,
        generation: handoff.generation,
        failures: 0,
        losses: std::collections::BTreeMap::new(),
        next_attempt_ms: None,
        last_error: error.map(|message| ReplicaError {
            cause: "unreachable".to_owned(),
            message,
            remedy: Some("someone else runs this engine; it is used again when it answers".to_owned()),
            log_tail: Vec::new(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// ORCHD-REG-003
    #[test]
    fn a_life_that_serves_is_shown_before_pool_managerd_was_asked_again() {
        let handoff = |generation: u64| -> Handoff {
            let text = json!({"url": "http://127.0.0.1:1", "pool_id": "p", "generation": generation, "pid": 7,
                "engine_version": "b9"});
            serde_json::from_value(text).unwrap()
        };
        let told = || ReplicaView {
            phase: Phase::Provisioning,
            engine_version: None,
            pid: None,
            generation: 1,
            failures: 2,
            losses: [("signal".to_owned(), 2)].into(),
            next_attempt_ms: Some(9),
            ..claimed(handoff(1), Phase::Provisioning, Some("gone".to_owned()))
        };
        let mut same = told();
        overtake(&mut same, handoff(1), Phase::Ready);
        assert_eq!((same.phase, same.engine_version), (Phase::Provisioning, None));

        let mut next = told();
        overtake(&mut next, handoff(2), Phase::Ready);
        assert_eq!((next.phase, next.generation, next.pid), (Phase::Ready, 2, Some(7)));
        assert_eq!(next.engine_version.as_deref(), Some("b9"));
        assert_eq!((next.next_attempt_ms, next.last_error.is_none()), (None, true));
        // What it went through before is still its own.
        assert_eq!((next.failures, next.losses), (2, told().losses));
    }
}
