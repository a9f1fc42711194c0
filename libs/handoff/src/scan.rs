//! One look at the whole directory: what is claimed, and what is not believed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;
use wire::{Handoff, ReplicaKey};

use crate::dir::file_name;
use crate::{EngineUrl, RejectReason, read};

/// What a scan found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// One claim per replica.
    pub claims: BTreeMap<ReplicaKey, Claim>,
    /// Every other `*.json`, with the reason, ordered by name.
    pub rejected: Vec<Rejected>,
}

/// A replica's claim to be ready. Believe it only after a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Name of the file in the directory.
    pub file: String,
    /// What it says.
    pub handoff: Handoff,
    /// Its `url`, validated.
    pub url: EngineUrl,
}

/// A file that is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Name of the file in the directory.
    pub file: String,
    /// Why.
    pub reason: RejectReason,
}

impl Claim {
    /// The replica that is claimed.
    #[must_use]
    pub fn key(&self) -> ReplicaKey {
        ReplicaKey { pool: self.handoff.pool_id.clone(), replica: self.handoff.replica_id.clone() }
    }
}

/// Reads every `*.json` in `path`. A missing directory holds no claims.
pub(crate) fn scan(path: &Path) -> io::Result<Scan> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir: OwnedFd = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(Scan::default()),
        Err(error) => return Err(error.into()),
    };
    let us = rustix::process::geteuid().as_raw();
    let mut scan = Scan::default();
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let file = name.to_string_lossy();
        // Dot files are temporary files of a publish under way.
        if file.starts_with('.') || !file.ends_with(".json") {
            continue;
        }
        let file = file.into_owned();
        match read::read(&dir, name, us) {
            Ok(Some((handoff, url))) => scan.add(Claim { file, handoff, url }),
            Ok(None) => {}
            Err(reason) => scan.rejected.push(Rejected { file, reason }),
        }
    }
    scan.rejected.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(scan)
}

impl Scan {
    fn add(&mut self, claim: Claim) {
        match self.claims.entry(claim.key()) {
            Entry::Vacant(entry) => {
                entry.insert(claim);
            }
            Entry::Occupied(mut entry) => {
                let loser = if outranks(&claim, entry.get()) { entry.insert(claim) } else { claim };
                let reason = RejectReason::Superseded { by: entry.get().file.clone() };
                self.rejected.push(Rejected { file: loser.file, reason });
            }
        }
    }
}

/// The later life wins; within one life the canonical name; else the smaller name, so that the
/// order of the directory never decides.
fn outranks(a: &Claim, b: &Claim) -> bool {
    let canonical = file_name(&a.key());
    let rank = |c: &Claim| (c.handoff.generation, c.file == canonical);
    rank(a).cmp(&rank(b)).then_with(|| b.file.cmp(&a.file)).is_gt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(file: &str, generation: u64) -> Claim {
        let text = format!(r#"{{"url":"http://127.0.0.1:1","pool_id":"a","generation":{generation}}}"#);
        let (handoff, url) = read::parse(text.as_bytes()).unwrap();
        Claim { file: file.to_owned(), handoff, url }
    }

    /// HANDOFF-006
    #[test]
    fn of_two_claims_to_a_replica_the_same_one_wins_in_any_order() {
        for (winner, loser) in [
            (claim("llamacpp.json", 2), claim("a.r0.json", 1)),
            (claim("a.r0.json", 1), claim("a.json", 1)),
            (claim("b.json", 1), claim("c.json", 1)),
        ] {
            for pair in [[&winner, &loser], [&loser, &winner]] {
                let mut scan = Scan::default();
                pair.into_iter().for_each(|c| scan.add(c.clone()));
                assert_eq!(scan.claims[&winner.key()].file, winner.file);
                let reason = RejectReason::Superseded { by: winner.file.clone() };
                assert_eq!(scan.rejected, [Rejected { file: loser.file.clone(), reason }]);
            }
        }
    }
}
