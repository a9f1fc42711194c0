//! Usage per token and model.

use super::*;

/// ORCHD-USAGE-002, ORCHD-JOURNAL-009
#[tokio::test(flavor = "multi_thread")]
async fn usage_is_counted_by_token_and_model_and_survives_a_restart() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    let (alice, alices) = crate::tokens::generate(crate::tokens::Scope::Data, "alice");
    let (bob, bobs) = crate::tokens::generate(crate::tokens::Scope::Data, "bob");
    std::fs::write(keys.path(), format!("{alices}{bobs}control cccccccccccccccc\n")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = keys.path().to_owned();
    let settings = settings(dir.path(), |config| config.api.tokens_file = Some(path.into()));
    let handoffs = HandoffDir::open(dir.path().join("engines")).unwrap();
    let stub = stub();
    let mut seen = Vec::new();
    for round in 1..=2 {
        // Before the start: the one of the round before would be bound first and replaced in between.
        let handoff = json!({"url": stub.url(), "pool_id": "p", "generation": round, "slots_total": 1, "model": {"id": format!("m{round}")}});
        handoffs.publish(&serde_json::from_value(handoff).unwrap()).unwrap();
        let running = app::start(&settings, settings.config.api.listen).await.unwrap();
        let base = format!("http://{}", running.addr());
        let http = Client::orchestratord();
        let health = http.get(format!("{base}/v2/pools/p/health")).bearer_auth(&alice);
        until(async || {
            let health: Value = health.try_clone().unwrap().send().await.unwrap().json().await.unwrap();
            health["ready"] == true
        })
        .await;
        for (token, max_tokens) in [(&alice, 5), (&bob, 7)] {
            let body = json!({"model": "p", "prompt": "x", "max_tokens": max_tokens});
            let request = http.post(format!("{base}/v1/completions")).bearer_auth(token);
            let answer = request.json(&body).send().await.unwrap();
            let (status, text) = (answer.status(), answer.text().await.unwrap());
            assert_eq!(status, 200, "{round}: {text}");
        }
        let usage = http.get(format!("{base}/v2/usage"));
        let refused = usage.try_clone().unwrap().bearer_auth(&alice).send().await.unwrap();
        assert_eq!(refused.status(), 403);
        let usage = usage.bearer_auth("cccccccccccccccc").send().await.unwrap();
        let usage: Value = usage.json().await.unwrap();
        let used = |caller: &str| {
            let rows = usage["usage"].as_array().unwrap().iter().filter(|row| row["caller"] == caller);
            let of = |row: &Value| (row["model"].clone(), row["tasks"].clone(), row["tokens_out"].clone());
            rows.map(of).collect::<Vec<_>>()
        };
        let models =
            |tokens: u64| (1..=round).map(move |nth| (json!(format!("m{nth}")), json!(1), json!(tokens)));
        assert_eq!(used("alice"), models(5).collect::<Vec<_>>(), "{usage}");
        assert_eq!(used("bob"), models(7).collect::<Vec<_>>(), "{usage}");
        seen.push(usage["since"].clone());
        running.shutdown(std::future::pending()).await;
    }
    assert_eq!(seen[0], seen[1]);
    let kept: Value = serde_json::from_slice(&std::fs::read(dir.path().join("usage.json")).unwrap()).unwrap();
    assert_eq!((&kept["version"], &kept["since"]), (&json!(1), &seen[0]), "{kept}");
}
