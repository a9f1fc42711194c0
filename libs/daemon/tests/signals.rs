//! Signals as this process really gets them. One test, because a process has one set of handlers.

use std::time::Duration;

use daemon::Signals;
use rustix::process::{Signal, getpid, kill_process};
use tokio::sync::Notify;

const THIS: &str =
    "what_was_sent_once_and_arrives_twice_is_one_and_another_later_or_of_another_kind_is_a_second";

fn send(signal: Signal) -> rustix::io::Result<()> {
    kill_process(getpid(), signal)
}

/// ORCHD-STOP-001, POOLD-STOP-003
#[tokio::test]
async fn what_was_sent_once_and_arrives_twice_is_one_and_another_later_or_of_another_kind_is_a_second() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    // Where whoever started the tests has hangups ignored, as nohup does, a daemon does not hear them either.
    if u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 1 {
        let mut again = std::process::Command::new("env");
        again.arg("--default-signal=HUP").arg(std::env::current_exe().unwrap()).args(["--exact", THIS]);
        assert!(again.status().unwrap().success());
        return;
    }
    let mut signals = Signals::listen().unwrap();
    let asked = Notify::new();
    send(Signal::TERM).unwrap();
    signals.end(&asked).await;
    // As `timeout` does: to its child, and then to the group in which the child is.
    send(Signal::TERM).unwrap();
    let heard = tokio::time::timeout(Duration::from_millis(400), signals.end(&asked)).await;
    assert!(heard.is_err(), "two at once are one");

    send(Signal::TERM).unwrap();
    signals.end(&asked).await;
    // A key is not what a supervisor sent, however soon it comes.
    send(Signal::INT).unwrap();
    signals.end(&asked).await;

    send(Signal::HUP).unwrap();
    let heard = asked.notified();
    tokio::select! {
        () = signals.end(&asked) => panic!("a hangup of no terminal ended it"),
        () = heard => {}
    }
}
