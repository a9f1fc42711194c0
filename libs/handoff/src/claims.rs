//! What a reader of the directory believes from scan to scan. A file that turns corrupt does not
//! take its replica down: the claim before it stands until the file is whole again or gone.

use std::collections::{BTreeMap, BTreeSet};

use wire::ReplicaKey;

use crate::{Claim, RejectReason, Rejected, Scan};

/// The claims that stand. Starts empty.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    standing: BTreeMap<ReplicaKey, Claim>,
    rejected: BTreeMap<String, RejectReason>,
}

/// What a scan changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A replica without a claim has one.
    Appeared(Claim),
    /// A replica's claim says something else now.
    Changed(Claim),
    /// A replica's claim is gone.
    Vanished(ReplicaKey),
    /// A file is not believed, for a reason it did not have at the scan before.
    Rejected(Rejected),
}

impl Claims {
    /// Takes a scan in and says what it changed: first what vanished, then what came, then what
    /// is newly rejected; each in order.
    pub fn update(&mut self, scan: Scan) -> Vec<Change> {
        let mut changes = self.drop_vanished(&scan);
        for (key, claim) in scan.claims {
            match self.standing.get(&key) {
                None => changes.push(Change::Appeared(claim.clone())),
                Some(before) if before.handoff != claim.handoff => {
                    changes.push(Change::Changed(claim.clone()));
                }
                Some(_) => {}
            }
            self.standing.insert(key, claim);
        }
        changes.extend(self.newly_rejected(scan.rejected));
        changes
    }

    /// The claims that stand now.
    #[must_use]
    pub fn standing(&self) -> &BTreeMap<ReplicaKey, Claim> {
        &self.standing
    }

    fn drop_vanished(&mut self, scan: &Scan) -> Vec<Change> {
        // A file that lost to another was read whole: it no longer says what it said.
        let corrupt: BTreeSet<&str> = scan
            .rejected
            .iter()
            .filter(|r| !matches!(r.reason, RejectReason::Superseded { .. }))
            .map(|r| r.file.as_str())
            .collect();
        let gone: Vec<ReplicaKey> = self
            .standing
            .iter()
            .filter(|(key, claim)| !scan.claims.contains_key(*key) && !corrupt.contains(claim.file.as_str()))
            .map(|(key, _)| key.clone())
            .collect();
        gone.into_iter()
            .map(|key| {
                self.standing.remove(&key);
                Change::Vanished(key)
            })
            .collect()
    }

    fn newly_rejected(&mut self, rejected: Vec<Rejected>) -> Vec<Change> {
        let before = std::mem::take(&mut self.rejected);
        let mut changes = Vec::new();
        for rejected in rejected {
            self.rejected.insert(rejected.file.clone(), rejected.reason.clone());
            if before.get(&rejected.file) != Some(&rejected.reason) {
                changes.push(Change::Rejected(rejected));
            }
        }
        changes
    }
}
