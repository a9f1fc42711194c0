//! `GET /v2/devices`: the cards, and whose engines use how much of them.

use axum::Json;
use axum::extract::State;
use wire::DeviceList;

use super::Api;

pub(super) async fn list(State(api): State<Api>) -> Json<DeviceList> {
    let shared = api.manager.shared();
    let inventory = shared.cards.recent().await;
    Json(DeviceList { devices: shared.ledger.named(inventory.cards()), problem: inventory.problem() })
}
