//! The catalog of models, through orchestratord.

use super::*;

/// ORCHD-CATALOG-001
#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_is_pool_managerds_with_its_own_refusals() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let digest = "ab".repeat(32);
    let model = json!({"digest": digest, "source": "hf:x/y", "name": "y", "verified_by_source": true,
        "size_bytes": 7, "files": 1, "quantisation": "Q4_K_M", "architecture": "llama", "pinned": true, "in_use": false});
    let list = json!({"models": [model.clone()]});
    let verified = json!({"digest": digest, "intact": true});
    let kept = json!({"error": {"code": "CONFLICT", "message": "the model stays: it is pinned", "type": "x",
        "param": null, "retriable": false}});
    let answer = |status: u16, body: Value| {
        move || std::future::ready((http::StatusCode::from_u16(status).unwrap(), axum::Json(body.clone())))
    };
    use axum::routing::{get, post};
    let router = axum::Router::new()
        .route("/v2/catalog/models", get(answer(200, list.clone())))
        .route("/v2/catalog/models/{id}", get(answer(200, model.clone())).delete(answer(409, kept.clone())))
        .route("/v2/catalog/models/{id}/verify", post(answer(200, verified.clone())));
    let manager = tokio::spawn(async move { axum::serve(listener, router).await });
    let orchestrator = Orchestrator::start_with(|config| config.pool_managerd.url = Some(url)).await;
    assert_eq!(orchestrator.get("/v2/catalog/models").await, list);
    assert_eq!(orchestrator.get("/v2/catalog/models/abababab").await, model);
    assert_eq!(orchestrator.post("/v2/catalog/models/abababab/verify", json!({})).await, (200, verified));
    let removal = orchestrator.http.delete(orchestrator.url("/v2/catalog/models/abababab"));
    let refused = removal.send().await.unwrap();
    assert_eq!(refused.status(), 409);
    let refused: Value = refused.json().await.unwrap();
    assert_eq!(refused["error"]["message"], kept["error"]["message"]);
    for no_digest in ["abc", "..%2f..%2fpools", "abababab%3fx"] {
        let (status, answer) = orchestrator.get_raw(&format!("/v2/catalog/models/{no_digest}")).await;
        assert_eq!((status, &answer["error"]["code"]), (404, &json!("NOT_FOUND")), "{answer}");
    }
    orchestrator.stop().await;
    manager.abort();
}

/// ORCHD-CATALOG-001
#[test]
fn the_catalog_needs_the_control_scope() {
    use wire::operations::{self, Access, Daemon};
    let mut of_catalog = operations::of(Daemon::Orchestratord).filter(|op| op.path.contains("/catalog/"));
    assert!(of_catalog.all(|op| op.access == Access::Control));
}
