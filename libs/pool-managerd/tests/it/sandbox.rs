//! A confined engine: it works, and reaches nothing that is not its own. And what holds for every
//! engine: no core dumps, no key on its command line, loopback only.

use wire::Phase;

use crate::harness::{engines_of, error, setup};

/// POOLD-SANDBOX-001
#[tokio::test]
async fn a_confined_engine_serves_and_has_no_new_privileges() {
    let mut setup = setup();
    setup.pool.sandbox = true;
    let manager = setup.start().await;
    let handoff = manager.ready().await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", handoff.pid.unwrap())).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    manager.stop().await;
    manager.phase(Phase::Stopped).await;
    assert_eq!(engines_of(setup.runtime()), Vec::<u32>::new());
    manager.running.shutdown().await;
}

/// POOLD-SANDBOX-001
#[tokio::test]
async fn a_confined_engine_writes_nothing_and_reads_nobody_elses_files() {
    let mut setup = setup();
    setup.pool.sandbox = true;
    let elsewhere = tempfile::tempdir().unwrap();
    let (secret, written) = (elsewhere.path().join("secret"), elsewhere.path().join("written"));
    std::fs::write(&secret, "another's words").unwrap();
    let script = setup.runtime().join("bin").join("engine");
    std::fs::create_dir(script.parent().unwrap()).unwrap();
    let lines = format!(
        "#!/bin/sh\necho read: $(cat {secret} 2>&1)\necho x >{written}\necho x >{home}\necho wrote nothing\nexit 3\n",
        secret = secret.display(),
        written = written.display(),
        home = "$HOME/x",
    );
    std::fs::write(&script, lines).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    setup.preparer.binary_once(&script);
    let manager = setup.start().await;
    let replica = manager.phase(Phase::BreakerOpen).await;
    let tail = error(&replica).log_tail.join("\n");
    assert!(tail.contains("wrote nothing"), "it ran: {tail}");
    assert!(tail.contains("Permission denied") && !tail.contains("another's words"), "{tail}");
    assert!(!written.exists());
    assert!(!setup.runtime().join("run/home/x").exists());
    manager.running.shutdown().await;
}

/// POOLD-LAUNCH-001, POOLD-LAUNCH-003
#[tokio::test]
async fn no_engine_dumps_core_shows_its_key_or_listens_beyond_loopback() {
    let setup = setup();
    let manager = setup.start().await;
    let handoff = manager.ready().await;
    let proc =
        |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", handoff.pid.unwrap())).unwrap();
    let core = proc("limits").lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned();
    assert_eq!(core.split_ascii_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    let key = handoff.api_key.as_ref().unwrap();
    assert!(!proc("cmdline").contains(key) && !proc("environ").contains(key));
    assert!(proc("cmdline").contains("--host\x00127.0.0.1\x00"));
    let variables = proc("environ");
    let names: Vec<&str> = variables.split('\0').filter_map(|v| Some(v.split_once('=')?.0)).collect();
    for name in names {
        let ours = ["HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "LLORCH_RUN_DIR", "LLORCH_SPAWN_ID"];
        assert!(ours.contains(&name), "{name} was inherited");
    }
    manager.running.shutdown().await;
}
