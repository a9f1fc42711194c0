//! The catalog of models, over the API.

use serde_json::{Value, json};

use crate::harness::setup;

/// POOLD-CATALOG-001
#[tokio::test]
async fn a_model_is_shown_read_again_and_removed_unless_it_is_pinned() {
    let setup = setup();
    let digest = setup.fetched("pico.gguf", b"not much of a model");
    let manager = setup.start().await;
    let token = manager.running.token().to_owned();
    let ask = async |method: &str, path: String| {
        let answer = manager.request(method, &path).bearer_auth(&token).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let one = |what: &str| format!("/v2/catalog/models/{}{what}", &digest[..12]);
    let (_, list) = ask("GET", "/v2/catalog/models".to_owned()).await;
    assert_eq!((&list["models"][0]["digest"], &list["models"][0]["pinned"]), (&json!(digest), &json!(false)));
    assert_eq!(ask("GET", one("")).await.1, list["models"][0]);

    // The header of this file is no model's, and that is said; its bytes are what was fetched.
    let (status, answer) = ask("POST", one("/verify")).await;
    assert_eq!((status, &answer["intact"]), (200, &json!(false)), "{answer}");
    assert!(!answer["problem"].as_str().unwrap().contains("SHA-256"), "{answer}");
    let file = setup.runtime().join("cache/models").join(&digest).join("pico.gguf");
    std::fs::write(&file, b"damaged").unwrap();
    let (_, answer) = ask("POST", one("/verify")).await;
    assert!(answer["problem"].as_str().unwrap().contains("SHA-256"), "{answer}");

    let pin = file.with_file_name("pinned");
    std::fs::write(&pin, "").unwrap();
    let (status, answer) = ask("DELETE", one("")).await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("CONFLICT")), "{answer}");
    std::fs::remove_file(&pin).unwrap();
    let (status, answer) = ask("DELETE", one("")).await;
    assert_eq!((status, &answer["digest"]), (200, &json!(digest)), "{answer}");
    assert!(!file.exists());
    assert_eq!(ask("GET", one("")).await.0, 404);
    manager.running.shutdown().await;
}
