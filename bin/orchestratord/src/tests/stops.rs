//! How it ends: in order, and at once when that is asked for.

use super::*;

/// A reader of a task's events, in its own task: everything it received.
async fn reader(orchestrator: &Orchestrator, task: &str) -> tokio::task::JoinHandle<String> {
    let url = orchestrator.url(&format!("/v2/tasks/{task}/events"));
    let mut answer = orchestrator.http.get(url).send().await.unwrap();
    let first = answer.chunk().await.unwrap().unwrap();
    tokio::spawn(async move {
        let mut text = first.to_vec();
        while let Ok(Some(bytes)) = answer.chunk().await {
            text.extend_from_slice(&bytes);
        }
        String::from_utf8(text).unwrap()
    })
}

/// R19: the second signal comes in the middle of the patience, and its readers still hear why.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_within_a_second_and_tells_the_readers() {
    let orchestrator = Orchestrator::start().await;
    let stub = stub_with(|faults| faults.token = Duration::from_millis(5));
    orchestrator.publish(&stub, "p", 1);
    let task = orchestrator.submit(json!({"max_tokens": 1_000_000})).await;
    let waiting = orchestrator.submit(json!({})).await;
    let heard = reader(&orchestrator, &task).await;
    let stopping = orchestrator.running.state().stopping.clone();
    let began = Instant::now();
    orchestrator
        .running
        .shutdown(async move {
            stopping.cancelled().await;
            // A person who presses again; whoever is later finds it ended, which is as good.
            tokio::time::sleep(Duration::from_millis(200)).await;
        })
        .await;
    // Well below the patience of the first signal; the chaos suite (R19) measures the second itself.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let heard = heard.await.unwrap();
    assert!(heard.trim_end().lines().any(|line| line == "event: error"), "{task} {waiting}: {heard}");
    assert!(heard.contains("INTERRUPTED") && !heard.contains("ENGINE_LOST"), "{heard}");
}

/// L9: nobody is connected, so nobody is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_without_connections_does_not_linger() {
    let mut times = Vec::new();
    // A machine that is busy can make any one of them slow.
    for _ in 0..5 {
        let orchestrator = Orchestrator::start().await;
        let stub = stub();
        orchestrator.publish(&stub, "p", 1);
        orchestrator.until_ready("p", true).await;
        times.push(orchestrator.stop().await);
        if times.iter().any(|took| *took < Duration::from_millis(700)) {
            return;
        }
    }
    panic!("{times:?}");
}

/// What runs when the stop begins is finished, not lost with our own view of the engine.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_task_finishes_during_a_stop() {
    let orchestrator = Orchestrator::start().await;
    let stub = stub_with(|faults| faults.token = Duration::from_millis(5));
    orchestrator.publish(&stub, "p", 1);
    let task = orchestrator.submit(json!({"max_tokens": 100})).await;
    let heard = reader(&orchestrator, &task).await;
    orchestrator.stop().await;
    let heard = heard.await.unwrap();
    assert!(heard.contains("event: end") && heard.contains("\"tokens_out\":100"), "{heard}");
}

/// M5
#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_names_its_holder() {
    let orchestrator = Orchestrator::start().await;
    let dir = tempfile::tempdir().unwrap();
    let refused = async |listen| {
        let settings = settings(dir.path(), |_| {});
        app::start(&settings, listen).await.err().unwrap()
    };
    let addr = orchestrator.running.addr();
    let by_us = refused(addr).await;
    assert!(
        by_us.to_string().contains(&format!("an orchestratord already runs at http://{addr}")),
        "{by_us}"
    );
    let other = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let by_another = refused(other.local_addr().unwrap()).await;
    assert!(by_another.to_string().contains(&format!("(PID {})", std::process::id())), "{by_another}");
    let foreign = refused("192.0.2.1:0".parse().unwrap()).await;
    assert!(foreign.to_string().contains("choose an address of this machine"), "{foreign}");
    let code = |error: &anyhow::Error| format!("{:?}", crate::exit::code(error));
    let is = |code: u8| format!("{:?}", std::process::ExitCode::from(code));
    assert_eq!([code(&by_us), code(&by_another), code(&foreign)], [is(75), is(75), is(2)]);
    orchestrator.stop().await;
}

/// L10
#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_runtime_directory_is_a_mistake_in_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let mut settings = settings(dir.path(), |config| config.pool_managerd.url = None);
    settings.config.paths.runtime = file.join("runtime");
    let error = app::start(&settings, settings.config.api.listen).await.err().unwrap();
    assert!(error.to_string().contains("ORCHD_RUNTIME_DIR"), "{error}");
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
    assert_eq!(format!("{:?}", crate::exit::code(&error)), format!("{:?}", std::process::ExitCode::from(2)));
}

/// M4
#[tokio::test(flavor = "multi_thread")]
async fn a_second_one_on_the_directory_is_told_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), |config| {
        config.pool_managerd.url = None;
        // Nothing is built: the source is refused at once.
        config.pools[0].provisioning.sources =
            serde_json::from_value(json!([{"path": {"binary": "/nonexistent/llama-server"}}])).unwrap();
    });
    let first = app::start(&settings, settings.config.api.listen).await.unwrap();
    let error = app::start(&settings, settings.config.api.listen).await.err().unwrap();
    let held = error.downcast_ref::<crate::exit::Held>().unwrap();
    assert_eq!(held.addr(), Some(first.addr()), "{held}");
    first.shutdown(std::future::pending()).await;
}
