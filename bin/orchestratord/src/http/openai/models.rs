//! `GET /v1/models`.

use axum::Json;
use axum::extract::State;
use wire::openai::{ModelCard, ModelList};

use crate::http::AppState;

pub(in crate::http) async fn models(State(state): State<AppState>) -> Json<ModelList> {
    let card = |id: String| ModelCard {
        id,
        object: "model".to_owned(),
        created: state.started.unix_seconds,
        owned_by: "llama-orch".to_owned(),
    };
    let data = state.dispatch.model_names().into_iter().map(card).collect();
    Json(ModelList { object: "list".to_owned(), data })
}
