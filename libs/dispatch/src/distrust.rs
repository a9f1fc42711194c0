//! Which lives of replicas get no task just now. The registry still shows them up: their engines broke
//! off, or report errors of their own one after the other.

use std::collections::HashMap;

use tokio::time::Instant;
use wire::ReplicaKey;

use crate::Limits;

type Life = (ReplicaKey, u64);

#[derive(Debug)]
pub(crate) struct Distrust {
    faults_allowed: u32,
    suspects: HashMap<Life, Instant>,
    /// Errors in a row, of lives that have reported any.
    faults: HashMap<Life, u32>,
}

impl Distrust {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { faults_allowed: limits.faults, suspects: HashMap::new(), faults: HashMap::new() }
    }

    /// Gives a life no task until then.
    pub(crate) fn suspect(&mut self, key: &ReplicaKey, generation: u64, until: Instant) {
        // Of a replica that has had a later life only that one matters.
        self.suspects.retain(|(known, of), _| known != key || *of >= generation);
        self.suspects.insert((key.clone(), generation), until);
    }

    /// An error that the engine reported itself: the request's fault as likely as the engine's, so one
    /// says nothing. Every one after too many in a row takes the engine out for a moment.
    pub(crate) fn fault(&mut self, key: &ReplicaKey, generation: u64, until: Instant) {
        self.faults.retain(|(known, of), _| known != key || *of >= generation);
        let faults = self.faults.entry((key.clone(), generation)).or_default();
        *faults = faults.saturating_add(1);
        if *faults >= self.faults_allowed {
            self.suspect(key, generation, until);
        }
    }

    /// The engine has finished a task.
    pub(crate) fn trust(&mut self, key: &ReplicaKey, generation: u64) {
        if !self.faults.is_empty() {
            self.faults.remove(&(key.clone(), generation));
        }
    }

    /// Those that get no task now, and until when.
    pub(crate) fn suspects(&mut self, now: Instant) -> HashMap<Life, Instant> {
        self.suspects.retain(|_, until| *until > now);
        self.suspects.clone()
    }
}
