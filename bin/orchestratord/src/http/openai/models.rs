//! `GET /v1/models` and `GET /v1/models/{id}`, as the SDKs of OpenAI and of Anthropic read them.

use std::time::{Duration, UNIX_EPOCH};

use axum::Json;
use axum::extract::{Path, State};
use wire::openai::{ModelCard, ModelList};

use crate::http::error::ApiError;
use crate::http::{AppState, tasks};

pub(in crate::http) async fn models(State(state): State<AppState>) -> Json<ModelList> {
    let data: Vec<_> = state.dispatch.model_names().into_iter().map(|id| card(&state, id)).collect();
    let id = |card: Option<&ModelCard>| card.map(|card| card.id.clone());
    let (first_id, last_id) = (id(data.first()), id(data.last()));
    Json(ModelList { object: "list".to_owned(), data, has_more: false, first_id, last_id })
}

pub(in crate::http) async fn model(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<ModelCard>, ApiError> {
    tasks::resolve(&state, &id)?;
    Ok(Json(card(&state, id)))
}

fn card(state: &AppState, id: String) -> ModelCard {
    let created = state.started.unix_seconds;
    ModelCard {
        display_name: id.clone(),
        id,
        object: "model".to_owned(),
        r#type: "model".to_owned(),
        created,
        created_at: wire::rfc3339(UNIX_EPOCH + Duration::from_secs(created)),
        owned_by: "llama-orch".to_owned(),
    }
}
