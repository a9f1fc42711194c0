//! Showing and forgetting sessions.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use dispatch::{Dispatch, Owner};
use wire::{ErrorBody, ErrorCode, SessionId, SessionView};

use super::error::ApiError;
use super::{AppState, tasks};
use crate::tokens::Caller;

pub(super) async fn show(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<SessionView>, ApiError> {
    find(&state, &caller, &id, Dispatch::session)
}

pub(super) async fn forget(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<SessionView>, ApiError> {
    find(&state, &caller, &id, Dispatch::forget_session)
}

fn find(
    state: &AppState,
    caller: &Caller,
    id: &str,
    ask: impl FnOnce(&Dispatch, &SessionId, &Owner) -> Option<SessionView>,
) -> Result<Json<SessionView>, ApiError> {
    let known = SessionId::try_new(id).ok().and_then(|id| ask(&state.dispatch, &id, &tasks::owner(caller)));
    known.map(Json).ok_or_else(|| {
        ErrorBody::new(ErrorCode::NotFound, format!("no session is called {id:?}"))
            .hint("a session begins with a task that names it, and is forgotten when it is not used")
            .into()
    })
}
