//! Preload with an engine and a model of the stores.

use serde_json::json;
use wire::config::{EngineSource, PathSource};
use wire::{ErrorCode, Phase};

use crate::harness::setup;

/// POOLD-PRELOAD-001
#[tokio::test]
async fn a_pool_that_does_not_serve_runs_the_engine_and_the_model_that_are_named_by_digest() {
    let setup = setup();
    let model = setup.fetched("pico.gguf", b"a model");
    let engine = "e1".repeat(32);
    setup.preparer.stored(&engine, "/store/llama-server".as_ref());
    let manager = setup.start().await;
    let first = manager.ready().await;
    manager.stop().await;
    manager.phase(Phase::Stopped).await;

    let named = json!({"engine_digest": engine, "model_digest": model}).to_string();
    let (status, answer) = manager.ask("preload", &named).await;
    assert_eq!((status, &answer["wanted"]), (202, &json!("running")), "{answer}");
    let second = manager.ready().await;
    assert!(second.generation > first.generation);
    let asked = setup.preparer.asked.lock().unwrap().clone().unwrap();
    assert_eq!((asked.model.as_str(), asked.model_sha256), ("https://example.org/pico.gguf", Some(model)));
    let only = EngineSource::Path(PathSource { binary: "/store/llama-server".into() });
    assert_eq!(asked.provisioning.sources, [only]);
    assert_eq!(manager.pool().await.model_ref, "https://example.org/pico.gguf");

    let (status, answer) = manager.ask("preload", &named).await;
    assert_eq!(status, 202, "what runs already goes on: {answer}");
    assert_eq!(manager.ready().await, second);
    manager.running.shutdown().await;
}

/// POOLD-PRELOAD-001
#[tokio::test]
async fn what_is_in_no_store_and_what_is_no_digest_is_refused_and_changes_nothing() {
    let setup = setup();
    setup.fetched("pico.gguf", b"a model");
    let manager = setup.start().await;
    let before = manager.ready().await;
    let calls = || setup.preparer.calls.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(calls(), 1);
    for (body, param, words) in [
        (json!({"engine_digest": "0".repeat(64)}), "engine_digest", "engine-provisioner list"),
        (json!({"model_digest": "0".repeat(64)}), "model_digest", "the catalog has"),
        (json!({"model_digest": "/models/m.gguf"}), "model_digest", "the catalog has"),
        (json!({"model_path": "/models/m.gguf"}), "", "model_path"),
        (json!({"flags": ["--tools"]}), "", "flags"),
        (json!({"env": {"LLAMA_ARG_TOOLS": "1"}}), "", "env"),
    ] {
        let (status, answer) = manager.ask("preload", &body.to_string()).await;
        let error = &answer["error"];
        assert_eq!((status, &error["code"]), (400, &json!(ErrorCode::InvalidParams.as_str())), "{answer}");
        assert_eq!(error["param"].as_str().unwrap_or_default(), param, "{answer}");
        assert!(error["message"].as_str().unwrap().contains(words), "{answer}");
    }
    assert_eq!((manager.ready().await, calls()), (before, 1));
    manager.running.shutdown().await;
}

/// POOLD-PRELOAD-001
#[tokio::test]
async fn an_engine_that_serves_is_not_taken_away_by_a_preload() {
    let setup = setup();
    let model = setup.fetched("pico.gguf", b"a model");
    let manager = setup.start().await;
    let before = manager.ready().await;
    let (status, answer) = manager.ask("preload", &json!({"model_digest": model}).to_string()).await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!(ErrorCode::Conflict.as_str())), "{answer}");
    assert!(answer["error"]["hint"].as_str().unwrap().contains("/v2/pools/p/reload"), "{answer}");
    assert_eq!(manager.ready().await, before);
    manager.running.shutdown().await;
}
