//! Ending descendants that escaped the process group, by what they cannot shed: their session or
//! the spawn id in their environment.

use rustix::process::Signal;

use crate::{Adopted, SPAWN_ID_VARIABLE, SpawnId, procfs};

/// A fork can be faster than one pass over `/proc`; a process that forks for ever is not chased.
const PASSES: u32 = 5;

/// Kills every process that was started with this spawn id and returns how many there were.
/// Blocking, a few milliseconds.
pub fn sweep(spawn_id: &SpawnId) -> usize {
    kill_all(|process| process.identity().spawn_id.as_ref() == Some(spawn_id))
}

/// Every process of ours whose environment has `name=value`, held by pidfd.
#[must_use]
pub fn processes_with(name: &str, value: &str) -> Vec<Adopted> {
    living(|process| {
        procfs::environment_value(process.pid(), name).is_ok_and(|found| found.as_deref() == Some(value))
    })
}

/// Kills what is left of a session. Only while its leader is unreaped: until then the session's
/// number cannot be given to strangers.
pub(crate) fn kill_session(leader: u32, spawn_id: Option<&SpawnId>) {
    kill_all(|process| {
        process.pid() != leader
            && (procfs::stat(process.pid()).is_ok_and(|stat| stat.session == leader)
                || (spawn_id.is_some() && process.identity().spawn_id.as_ref() == spawn_id))
    });
}

fn kill_all(is_ours: impl Fn(&Adopted) -> bool) -> usize {
    let mut killed = 0;
    for _ in 0..PASSES {
        let found = living(&is_ours);
        if found.is_empty() {
            break;
        }
        killed += found.len();
        found.iter().for_each(|process| process.signal(Signal::KILL));
    }
    killed
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
