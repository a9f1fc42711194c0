//! `orchestratord verify` on receipts, transcripts and tasks.

use std::process::Output;

use serde_json::{Value, json};

use crate::house::{Daemon, House};

fn verify(house: &House, daemon: &Daemon, arguments: &[&str]) -> Output {
    let addr = daemon.base.trim_start_matches("http://");
    house.command(&[&["verify"], arguments].concat()).env("ORCHD_ADDR", addr).output().unwrap()
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{:?} {}{}", output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// ORCHD-VERIFY-001, ORCHD-VERIFY-002, ORCHD-RECEIPT-001, ORCHD-TRANSCRIPT-001
#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_is_run_again_and_what_differs_is_said() {
    let house = House::new(1);
    let daemon = house.start();
    let ask =
        json!({"model": "p", "task_id": "kept", "prompt": "again", "max_tokens": 12, "transcript": true});
    assert_eq!(house.post(&daemon, &ask).await.0, 202);
    house.events(&daemon, "kept", None).await;
    let view = house.get(&daemon, "/v2/tasks/kept").await;
    let receipt = &view["receipt"];
    let digest = receipt["transcript_sha256"].as_str().unwrap();
    let path = |name: &str| house.dir.path().join(name);
    std::fs::write(path("view.json"), view.to_string()).unwrap();
    let file = |name: &str| path(name).to_str().unwrap().to_owned();

    for named in ["kept", digest, &file("view.json")] {
        let output = verify(&house, &daemon, &[named]);
        assert_eq!(output.status.code(), Some(0), "{named}: {}", said(&output));
        let said = said(&output);
        for line in
            ["same     seed: ", "same     tokens_sha256: ", "same     sampling.top_k: 40", "the same answer"]
        {
            assert!(said.contains(line), "{line}: {said}");
        }
    }

    let mut other = receipt.clone();
    other["tokens_sha256"] = json!("0".repeat(64));
    other["engine_version"] = json!("another");
    std::fs::write(path("receipt.json"), other.to_string()).unwrap();
    let output = verify(&house, &daemon, &[&file("receipt.json")]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("differs  engine_version: was another, is "), "{}", said(&output));
    daemon.terminate();
}

/// ORCHD-VERIFY-001, ORCHD-RECEIPT-002
#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_without_a_transcript_wants_the_request() {
    let house = House::new(1);
    let daemon = house.start();
    let ask = json!({"model": "p", "task_id": "bare", "prompt": "again", "max_tokens": 12}).to_string();
    let request = house.dir.path().join("request.json");
    std::fs::write(&request, &ask).unwrap();
    let answer = house.http.post(format!("{}/v2/tasks", daemon.base)).body(ask).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    let events = house.events(&daemon, "bare", None).await;
    let end: &Value = &events.last().unwrap().2;
    assert!(end["receipt"]["seed"].is_string(), "a seed was drawn: {end}");
    assert!(end["receipt"]["transcript_sha256"].is_null(), "{end}");

    let output = verify(&house, &daemon, &["bare"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("--request"), "{}", said(&output));
    let request = request.to_str().unwrap();
    let output = verify(&house, &daemon, &["bare", "--request", request]);
    assert!(output.status.success() && !said(&output).contains("note"), "{}", said(&output));

    std::fs::write(request, json!({"model": "p", "prompt": "another", "max_tokens": 12}).to_string())
        .unwrap();
    let output = verify(&house, &daemon, &["bare", "--request", request]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("is not byte for byte what submitted the task"), "{}", said(&output));
    assert!(said(&output).contains("other tokens came out"), "{}", said(&output));

    let nobody = house.command(&["verify", "bare"]).env("ORCHD_ADDR", "127.0.0.1:1").output().unwrap();
    assert_eq!(nobody.status.code(), Some(69), "{}", said(&nobody));
    daemon.terminate();
}
