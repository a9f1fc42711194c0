//! Real processes: what they inherit, how they end, how they are known again.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::{Duration, Instant};

use child::{AdoptError, Adopted, Child, Exit, Launch, SpawnError, SpawnId};

const DEADLINE: Duration = Duration::from_secs(20);

fn log_in(dir: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap()
}

fn sh(dir: &Path, script: &str) -> Child {
    Launch::new("/bin/sh", SpawnId::generate(), log_in(dir))
        .args(["-c", script])
        .env("PATH", "/usr/bin:/bin")
        .spawn()
        .unwrap()
}

/// Waits until a line has been written, as a sign of life.
async fn line(dir: &Path, wanted: &str) -> String {
    let end = Instant::now() + DEADLINE;
    loop {
        let text = std::fs::read_to_string(dir.join("log")).unwrap();
        if let Some(line) = text.lines().find(|l| l.starts_with(wanted)) {
            return line[wanted.len()..].trim().to_owned();
        }
        assert!(Instant::now() < end, "no line {wanted:?} in {text:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Gone, or a zombie that waits for whoever inherited it.
async fn is_gone(pid: u32) {
    let end = Instant::now() + DEADLINE;
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let alive = stat.rsplit(')').next().is_some_and(|s| !s.trim().is_empty() && !s.starts_with(" Z"));
        if !alive {
            return;
        }
        assert!(Instant::now() < end, "process {pid} still lives: {stat}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_exit_code_and_a_signal_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let child = sh(dir.path(), "exit 7");
    assert_eq!(child.exited().await.unwrap(), Exit::Code(7));
    assert_eq!(child.exited().await.unwrap(), Exit::Code(7), "asking again changes nothing");
    assert_eq!(child.terminate(DEADLINE).await.unwrap(), Exit::Code(7));
    let child = sh(dir.path(), "kill -9 $$");
    assert_eq!(child.exited().await.unwrap(), Exit::Signal(9));
}

/// POOLD-LAUNCH-001
#[tokio::test]
async fn a_child_gets_only_what_it_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let leaked = File::open("/dev/zero").unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let child = sh(
        dir.path(),
        "env; echo core=$(ulimit -c); ls -l /proc/self/fd; readlink /proc/$$/fd/0; echo done=",
    );
    child.exited().await.unwrap();
    let text = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(!text.contains("/dev/zero"), "a descriptor leaked: {text}");
    assert!(!text.contains("HOME=") && !text.contains("CARGO"), "the environment leaked: {text}");
    assert!(text.contains("core=0"), "{text}");
    assert!(text.contains("/dev/null"), "{text}");
    assert!(text.contains(child.identity().spawn_id.as_ref().unwrap().as_str()), "{text}");
}

/// POOLD-LAUNCH-001
#[tokio::test]
async fn a_child_leads_its_own_session() {
    let dir = tempfile::tempdir().unwrap();
    let child = sh(dir.path(), "cut -d' ' -f6 /proc/self/stat | sed s/^/session=/");
    child.exited().await.unwrap();
    assert_eq!(line(dir.path(), "session=").await, child.pid().to_string());
}

#[tokio::test]
async fn a_child_that_ignores_term_is_killed_after_the_grace_with_all_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let script =
        "trap '' TERM; sleep 600 & echo one=$!; setsid sleep 600 & echo two=$!; echo up=; wait; wait";
    let child = sh(dir.path(), script);
    line(dir.path(), "up=").await;
    let begun = Instant::now();
    let exit = child.terminate(Duration::from_millis(200)).await.unwrap();
    assert_eq!(exit, Exit::Signal(9));
    assert!(begun.elapsed() >= Duration::from_millis(200), "the grace was not given");
    for name in ["one=", "two="] {
        is_gone(line(dir.path(), name).await.parse().unwrap()).await;
    }
    is_gone(child.pid()).await;
}

#[tokio::test]
async fn a_child_that_leaves_on_term_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let child = sh(dir.path(), "trap 'exit 3' TERM; echo up=; while :; do sleep 0.01; done");
    line(dir.path(), "up=").await;
    assert_eq!(child.terminate(DEADLINE).await.unwrap(), Exit::Code(3));
}

#[tokio::test]
async fn a_dropped_child_lives_on_and_can_be_adopted_by_its_identity() {
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::new("/bin/sleep", SpawnId::generate(), log_in(dir.path()));
    let child = launch.args(["600"]).spawn().unwrap();
    let identity = child.identity().clone();
    drop(child);
    let adopted = Adopted::open(&identity).unwrap();
    let mut stranger = identity.clone();
    stranger.start_ticks += 1;
    assert!(matches!(Adopted::open(&stranger), Err(AdoptError::Gone(_))));
    let mut other_spawn = identity.clone();
    other_spawn.spawn_id = Some(SpawnId::generate());
    assert!(matches!(Adopted::open(&other_spawn), Err(AdoptError::Gone(_))));
    let waiting = tokio::time::timeout(DEADLINE, adopted.exited());
    let (exit, ended) = tokio::join!(waiting, adopted.terminate(DEADLINE));
    assert_eq!(exit.unwrap().unwrap(), Exit::Unknown);
    ended.unwrap();
}

#[tokio::test]
async fn processes_are_found_by_their_environment_and_swept_by_their_spawn_id() {
    let dir = tempfile::tempdir().unwrap();
    let marker = SpawnId::generate().to_string();
    let spawn_id = SpawnId::generate();
    let child = Launch::new("/bin/sleep", spawn_id.clone(), log_in(dir.path()))
        .args(["600"])
        .env("MARKER", &marker)
        .spawn()
        .unwrap();
    let found = child::processes_with("MARKER", &marker);
    assert_eq!(found.iter().map(Adopted::pid).collect::<Vec<_>>(), [child.pid()]);
    assert!(child::processes_with("MARKER", "another").is_empty());
    assert_eq!(child::sweep(&SpawnId::generate()), 0);
    assert!(child::sweep(&spawn_id) >= 1);
    assert_eq!(child.exited().await.unwrap(), Exit::Signal(9));
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = Launch::new("/no/such/engine", SpawnId::generate(), log_in(dir.path())).spawn().unwrap_err();
    assert!(matches!(error, SpawnError::Exec { .. }));
    assert_eq!(error.to_string(), "cannot start /no/such/engine");
}

#[tokio::test]
async fn a_hundred_crashes_leave_no_zombie_and_no_descriptor() {
    let dir = tempfile::tempdir().unwrap();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let mut pids = Vec::new();
    for i in 0..100 {
        let child = sh(dir.path(), "exit 1");
        child.exited().await.unwrap();
        pids.push(child.pid());
        if i % 2 == 0 {
            child.terminate(Duration::ZERO).await.unwrap();
        }
    }
    assert!(open() <= before + 10, "{before} descriptors became {}", open());
    for pid in pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(!stat.contains(") Z "), "zombie: {stat}");
    }
}

/// POOLD-CAUSE-002
#[tokio::test]
async fn how_an_adopted_process_ended_is_told_by_the_kernel_once_its_parent_has_reaped_it() {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = kernel.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    let tells = (numbers.next(), numbers.next()) >= (Some(6), Some(15));
    let cases = [("read x; exit 7", Exit::Code(7)), ("read x; kill -6 $$", Exit::Signal(6))];
    for (script, exit) in cases {
        let mut process = std::process::Command::new("/bin/sh")
            .args(["-c", script])
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let identity = child::ProcessIdentity::of(process.id()).unwrap();
        let adopted = Adopted::open(&identity).unwrap();
        assert_eq!(adopted.exit_status(), None, "it lives");
        drop(process.stdin.take());
        assert_eq!(adopted.exited().await.unwrap(), Exit::Unknown);
        process.wait().unwrap();
        assert_eq!(adopted.exit_status(), tells.then_some(exit), "{kernel}");
    }
}

/// POOLD-PROBE-004
#[tokio::test]
async fn a_process_that_is_stopped_is_seen_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let child = sh(dir.path(), "kill -STOP $$; sleep 600");
    let end = Instant::now() + DEADLINE;
    while !child::is_stopped(child.pid()) {
        assert!(Instant::now() < end, "it never stopped");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    child.terminate(Duration::ZERO).await.unwrap();
    assert!(!child::is_stopped(child.pid()));
}
