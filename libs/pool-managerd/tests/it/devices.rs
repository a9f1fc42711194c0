//! The machine's cards as the API and the metrics show them.

use wire::{Device, DeviceList};

use crate::harness::setup;

const GIB: u64 = 1 << 30;

pub(crate) fn card(index: u32, total_gib: u64, free_gib: u64) -> Device {
    Device {
        index,
        uuid: format!("GPU-{index}"),
        name: format!("Card {index}"),
        vram_total_bytes: total_gib * GIB,
        vram_free_bytes: free_gib * GIB,
        compute_capability: "8.6".to_owned(),
        driver: Some("550.54.14".to_owned()),
        utilisation_percent: Some(25),
        users: Vec::new(),
    }
}

/// POOLD-DEVICE-001
#[tokio::test]
async fn the_cards_are_shown_by_the_api_and_in_the_metrics() {
    let setup = setup();
    setup.cards.set(vec![card(0, 24, 20), card(1, 12, 12)]);
    let manager = setup.start().await;
    let token = manager.running.token().to_owned();
    let answer = manager.request("GET", "/v2/devices").bearer_auth(token).send().await.unwrap();
    let shown: DeviceList = answer.json().await.unwrap();
    assert_eq!(shown, DeviceList { devices: vec![card(0, 24, 20), card(1, 12, 12)], problem: None });
    let metrics = manager.metrics().await;
    for line in [
        format!("poold_device_memory_free_bytes{{device=\"0\"}} {}", 20 * GIB),
        format!("poold_device_memory_total_bytes{{device=\"1\"}} {}", 12 * GIB),
        "poold_device_utilisation_ratio{device=\"0\"} 0.25".to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line} is missing in:\n{metrics}");
    }
    manager.running.shutdown().await;
}

/// POOLD-DEVICE-001
#[tokio::test]
async fn where_no_card_can_be_listed_the_api_says_why_and_what_to_do() {
    let setup = setup();
    setup.cards.fail("nvidia-smi ended with exit status: 9 and said: no driver");
    let manager = setup.start().await;
    let token = manager.running.token().to_owned();
    let answer = manager.request("GET", "/v2/devices").bearer_auth(token).send().await.unwrap();
    let shown: DeviceList = answer.json().await.unwrap();
    let problem = shown.problem.unwrap();
    assert!(shown.devices.is_empty());
    assert!(
        problem.contains("exit status: 9 and said: no driver; ") && problem.contains("repair it"),
        "{problem}"
    );
    manager.running.shutdown().await;
}
