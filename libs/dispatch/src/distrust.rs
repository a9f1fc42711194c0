//! Which lives of replicas get no task just now. The registry still shows them up: their engines broke
//! off, or report errors of their own one after the other.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use wire::ReplicaKey;

use crate::Limits;

type Life = (ReplicaKey, u64);

/// How much longer a life is left alone that was tried again and broke off again. Three tries of one task
/// then take five pauses, in which probes see that an engine is gone; with equal ones they took two, and the
/// task failed by an engine that had died a moment ago.
const AGAIN: u32 = 4;

#[derive(Debug)]
pub(crate) struct Distrust {
    faults_allowed: u32,
    suspects: HashMap<Life, Instant>,
    /// Until when those were left alone last that broke off and have finished nothing since.
    losses: HashMap<Life, Instant>,
    /// Errors in a row, of lives that have reported any.
    faults: HashMap<Life, u32>,
}

impl Distrust {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            faults_allowed: limits.faults,
            suspects: HashMap::new(),
            losses: HashMap::new(),
            faults: HashMap::new(),
        }
    }

    /// An engine broke off, or did not take a task: it gets none for a moment.
    pub(crate) fn lost(&mut self, key: &ReplicaKey, generation: u64, now: Instant, pause: Duration) {
        self.losses.retain(|(known, of), _| known != key || *of >= generation);
        let until = match self.losses.get(&(key.clone(), generation)) {
            // Several tasks lose one engine at once.
            Some(until) if *until > now => *until,
            Some(_) => now + pause * AGAIN,
            None => now + pause,
        };
        self.losses.insert((key.clone(), generation), until);
        self.suspect(key, generation, until);
    }

    /// Gives a life no task until then.
    fn suspect(&mut self, key: &ReplicaKey, generation: u64, until: Instant) {
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
        if !self.faults.is_empty() || !self.losses.is_empty() {
            let life = (key.clone(), generation);
            self.faults.remove(&life);
            self.losses.remove(&life);
        }
    }

    /// Those that get no task now, and until when.
    pub(crate) fn suspects(&mut self, now: Instant) -> HashMap<Life, Instant> {
        self.suspects.retain(|_, until| *until > now);
        self.suspects.clone()
    }
}

#[cfg(test)]
mod tests {
    use wire::{PoolId, ReplicaId};

    use super::*;

    /// ORCHD-GATE-002
    #[test]
    fn who_breaks_off_again_is_left_alone_longer_until_it_finishes_something() {
        let key = ReplicaKey { pool: PoolId::try_new("p").unwrap(), replica: ReplicaId::nth(0) };
        let (began, pause) = (Instant::now(), Duration::from_secs(1));
        let mut distrust = Distrust::new(&Limits::default());
        let lost = |distrust: &mut Distrust, after: u64| {
            let now = began + pause * u32::try_from(after).unwrap();
            distrust.lost(&key, 1, now, pause);
            distrust.suspects(now)[&(key.clone(), 1)].duration_since(began).as_secs()
        };
        assert_eq!(lost(&mut distrust, 0), 1);
        assert_eq!(lost(&mut distrust, 0), 1, "another task of the same loss");
        assert_eq!(lost(&mut distrust, 1), 5);
        assert_eq!(lost(&mut distrust, 5), 9);
        distrust.trust(&key, 1);
        assert_eq!(lost(&mut distrust, 20), 21);
    }
}
