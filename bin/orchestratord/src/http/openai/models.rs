//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::Json;
use axum::extract::{Path, State};
use wire::openai::{ModelCard, ModelList};

use crate::http::error::ApiError;
use crate::http::{AppState, tasks};

pub(in crate::http) async fn models(State(state): State<AppState>) -> Json<ModelList> {
    let data = state.dispatch.model_names().into_iter().map(|id| card(&state, id)).collect();
    Json(ModelList { object: "list".to_owned(), data })
}

pub(in crate::http) async fn model(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<ModelCard>, ApiError> {
    tasks::resolve(&state, &id)?;
    Ok(Json(card(&state, id)))
}

fn card(state: &AppState, id: String) -> ModelCard {
    ModelCard {
        id,
        object: "model".to_owned(),
        created: state.started.unix_seconds,
        owned_by: "llama-orch".to_owned(),
    }
}
