//! `GET /v2/devices`.

use axum::Json;
use axum::extract::State;
use devices::Inventory;
use wire::DeviceList;

use super::Api;

pub(super) async fn list(State(api): State<Api>) -> Json<DeviceList> {
    let inventory = api.manager.shared().cards.recent().await;
    let problem = match &*inventory {
        Inventory::DriverOnly(problem) => Some(problem.clone()),
        Inventory::NoCard | Inventory::Cards(_) => None,
    };
    Json(DeviceList { devices: inventory.cards().to_vec(), problem })
}
