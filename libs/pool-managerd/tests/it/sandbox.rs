//! A confined engine: it works, and reaches nothing that is not its own. And what holds for every
//! engine: no core dumps, no key on its command line, loopback only.

use wire::Phase;
use wire::config::OnExit;

use crate::harness::{engines_of, error, setup};

fn is_confined(pid: u32) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(status.contains("Seccomp:\t2"), "its system calls are filtered: {status}");
}

/// POOLD-SANDBOX-001, POOLD-SANDBOX-003
#[tokio::test]
async fn a_confined_engine_serves_is_adopted_and_stopped_and_stays_confined() {
    let mut setup = setup();
    (setup.pool.sandbox, setup.pool.on_exit) = (true, OnExit::Keep);
    let manager = setup.start().await;
    let before = manager.ready().await;
    is_confined(before.pid.unwrap());
    manager.running.shutdown().await;

    let manager = setup.start().await;
    assert_eq!(manager.ready().await, before);
    assert!(manager.metrics().await.contains(r#"poold_adoptions_total{pool_id="p",replica_id="r0"} 1"#));
    is_confined(before.pid.unwrap());
    manager.stop().await;
    manager.phase(Phase::Stopped).await;
    assert_eq!(engines_of(setup.runtime()), Vec::<u32>::new());
    manager.running.shutdown().await;
}

/// Whether this kernel keeps a confined process's signals inside (Landlock's sixth version).
fn scopes_signals() -> bool {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = kernel.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(12))
}

/// POOLD-SANDBOX-001
#[tokio::test]
async fn a_confined_engine_writes_nothing_reads_nobody_elses_files_and_signals_nobody() {
    let mut setup = setup();
    setup.pool.sandbox = true;
    let elsewhere = tempfile::tempdir().unwrap();
    let (secret, written) = (elsewhere.path().join("secret"), elsewhere.path().join("written"));
    std::fs::write(&secret, "another's words").unwrap();
    let script = setup.runtime().join("bin").join("engine");
    std::fs::create_dir(script.parent().unwrap()).unwrap();
    let lines = format!(
        "#!/bin/sh\necho read: $(cat {secret} 2>&1)\necho x >{written}\necho x >{home}\n\
         kill -0 {manager} && echo signalled\nkill -0 $$ && echo itself\necho wrote nothing\nexit 3\n",
        secret = secret.display(),
        written = written.display(),
        home = "$HOME/x",
        manager = std::process::id(),
    );
    std::fs::write(&script, lines).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    setup.preparer.binary_once(&script);
    let manager = setup.start().await;
    let replica = manager.phase(Phase::BreakerOpen).await;
    let tail = error(&replica).log_tail.join("\n");
    assert!(tail.contains("wrote nothing"), "it ran: {tail}");
    assert!(tail.contains("Permission denied") && !tail.contains("another's words"), "{tail}");
    assert!(tail.contains("itself"), "it may signal its own: {tail}");
    assert_eq!(tail.contains("signalled"), !scopes_signals(), "{tail}");
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
