//! Ending descendants that escaped the process group, by what they cannot shed: their session or
//! the spawn id in their environment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{Adopted, SPAWN_ID_VARIABLE, SpawnId, procfs};

/// A fork can be faster than one pass over `/proc`; a process that forks for ever is not chased.
const PASSES: u32 = 5;

/// Kills every process that was started with this spawn id and returns how many there were.
/// Blocking, a few milliseconds; does not wait for their end.
pub fn sweep(spawn_id: &SpawnId) -> usize {
    kill_once(|process| process.identity().spawn_id.as_ref() == Some(spawn_id)).len()
}

/// Every process of ours whose environment has `name=value`, held by pidfd. Blocking: one read for
/// each process of the machine.
#[must_use]
pub fn processes_with(name: &str, value: &str) -> Vec<Adopted> {
    let is_marked =
        |pid: u32| procfs::environment_value(pid, name).is_ok_and(|found| found.as_deref() == Some(value));
    let marked = procfs::pids().unwrap_or_default().into_iter().filter(|pid| is_marked(*pid));
    // Looked at again once it is held: the number may have gone to a stranger in between.
    marked.filter_map(|pid| Adopted::of(pid).ok()).filter(|process| is_marked(process.pid())).collect()
}

/// Kills every process of ours whose environment has `name=value`, whatever session it is in, and
/// returns whether there were any. Blocking: waits until they are gone, a second for each pass at most.
pub fn end_marked(name: &str, value: &str) -> bool {
    let own = std::process::id();
    let is_marked = |pid: u32| {
        pid != own && procfs::environment_value(pid, name).is_ok_and(|found| found.as_deref() == Some(value))
    };
    let mut any = false;
    for _ in 0..PASSES {
        let marked = procfs::pids().unwrap_or_default().into_iter().filter(|pid| is_marked(*pid));
        // Looked at again once it is held: the number may have gone to a stranger in between.
        let held = marked.filter_map(|pid| Adopted::of(pid).ok()).filter(|process| is_marked(process.pid()));
        let found: Vec<Adopted> = held.collect();
        if found.is_empty() {
            break;
        }
        any = true;
        found.iter().for_each(|process| process.signal(Signal::KILL));
        let end = Instant::now() + DIES_WITHIN;
        while found.iter().any(|process| is_marked(process.pid())) && Instant::now() < end {
            std::thread::sleep(LOOK_AGAIN);
        }
    }
    any
}

/// Between two looks at processes that were just killed.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A killed process still has to be scheduled to die; on a busy machine that takes a moment.
const DIES_WITHIN: Duration = Duration::from_secs(1);

/// Kills what is left of a session and waits until it is gone. Only while its leader is unreaped:
/// until then the session's number cannot be given to strangers.
pub(crate) async fn end_session(leader: u32, spawn_id: Option<SpawnId>) {
    end_all(move |process| {
        process.pid() != leader
            && (procfs::stat(process.pid()).is_ok_and(|stat| stat.session == leader)
                || (spawn_id.is_some() && process.identity().spawn_id == spawn_id))
    })
    .await;
}

/// Kills everything with this spawn id and waits until it is gone.
pub(crate) async fn end_spawned(spawn_id: SpawnId) {
    end_all(move |process| process.identity().spawn_id.as_ref() == Some(&spawn_id)).await;
}

async fn end_all(is_ours: impl Fn(&Adopted) -> bool + Send + Sync + 'static) {
    let is_ours = Arc::new(is_ours);
    for _ in 0..PASSES {
        let is_ours = Arc::clone(&is_ours);
        // Reading all of /proc is not for the async threads.
        let killed = tokio::task::spawn_blocking(move || kill_once(&*is_ours)).await.unwrap_or_default();
        if killed.is_empty() {
            break;
        }
        for process in killed {
            let _late_ones_are_found_again = tokio::time::timeout(DIES_WITHIN, process.exited()).await;
        }
    }
}

fn kill_once(is_ours: impl Fn(&Adopted) -> bool) -> Vec<Adopted> {
    let found = living(is_ours);
    found.iter().for_each(|process| process.signal(Signal::KILL));
    found
}

/// Zombies and processes of other users have no readable identity and are never in the list. Only
/// processes with a spawn id or a session of ours pay for more than one look at `/proc`.
fn living(is_ours: impl Fn(&Adopted) -> bool) -> Vec<Adopted> {
    let own = std::process::id();
    let mut candidates = procfs::pids().unwrap_or_default();
    candidates.retain(|pid| {
        *pid != own
            && (procfs::environment_value(*pid, SPAWN_ID_VARIABLE).is_ok_and(|id| id.is_some())
                || procfs::stat(*pid).is_ok_and(|stat| stat.session != *pid && stat.session != 0))
    });
    candidates.into_iter().filter_map(|pid| Adopted::of(pid).ok()).filter(is_ours).collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn everything_with_the_mark_ends_and_nothing_else() {
        let mark = format!("{}-{:?}", std::process::id(), std::thread::current().id());
        let sleeper = |value: &str| {
            // A shell that waits stays what it is; one that becomes its last command shows no environment
            // while it does.
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "sleep 60 & wait"]).env("LLORCH_TEST_MARK", value).stdout(Stdio::null());
            let child = command.spawn().unwrap();
            // Just executed, it shows no environment yet.
            while processes_with("LLORCH_TEST_MARK", value).is_empty() {
                std::thread::yield_now();
            }
            child
        };
        let (mut ours, mut stranger) = (sleeper(&mark), sleeper(&format!("{mark}-stranger")));
        assert!(end_marked("LLORCH_TEST_MARK", &mark));
        assert!(!ours.wait().unwrap().success());
        assert!(!end_marked("LLORCH_TEST_MARK", &mark), "its own child is gone, too");
        assert_eq!(stranger.try_wait().unwrap(), None);
        assert!(end_marked("LLORCH_TEST_MARK", &format!("{mark}-stranger")));
        stranger.wait().unwrap();
    }
}
