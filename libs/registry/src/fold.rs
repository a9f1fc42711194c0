//! The fold itself: one event in, one state out. No locks and no waking here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use wire::ReplicaKey;

use crate::{Event, Hints, Replica, Snapshot, Up};

/// How the life that a slot belongs to goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    Serves,
    /// It finishes what it has.
    Drains(Drain),
    Over {
        reason: Arc<str>,
        /// It was draining when it ended.
        drained: Option<Drain>,
    },
}

/// Why a life takes nothing new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// Somebody asked for it, and the replica comes back when somebody says so.
    Asked,
    /// Another life of the replica takes its place.
    Superseded,
}

/// What is left of a sum when the next one comes: about the last thirty generations count.
const FADE: f64 = 0.97;

/// What generations got of a life; long ones count more, as they should.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    tokens: f64,
    seconds: f64,
}

impl Pace {
    fn saw(&mut self, tokens: u64, took: Duration) {
        #[expect(clippy::cast_precision_loss, reason = "a count of tokens")]
        let tokens = tokens as f64;
        self.tokens = self.tokens * FADE + tokens;
        self.seconds = self.seconds * FADE + took.as_secs_f64();
    }

    fn per_token(self) -> Option<Duration> {
        let seconds = (self.tokens > 0.0).then(|| self.seconds / self.tokens)?;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

pub(crate) type StandingWatch = watch::Receiver<Standing>;

/// A slot that was taken.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) life: u64,
    pub(crate) standing: StandingWatch,
}

#[derive(Debug, Default)]
pub(crate) struct Fold {
    shown: Arc<Snapshot>,
    lives: BTreeMap<ReplicaKey, Life>,
    /// Lives that were draining when a new one took their place: their leases hold until they end.
    retired: Vec<Retired>,
    next_life: u64,
}

// One stretch of being up. Finer than a generation, because a mute engine may come back with the
// same one while leases from before are still out.
#[derive(Debug)]
struct Life {
    id: u64,
    in_use: u32,
    pace: Pace,
    standing: watch::Sender<Standing>,
}

#[derive(Debug)]
struct Retired {
    key: ReplicaKey,
    generation: u64,
    life: Life,
}

impl Standing {
    pub(crate) fn drain(&self) -> Option<Drain> {
        match self {
            Self::Serves => None,
            Self::Drains(drain) => Some(*drain),
            Self::Over { drained, .. } => *drained,
        }
    }
}

impl Life {
    fn drains(&self) -> bool {
        self.standing.borrow().drain().is_some()
    }

    fn end(self, reason: &str) {
        let drained = self.standing.borrow().drain();
        self.standing.send_replace(Standing::Over { reason: reason.into(), drained });
    }
}

impl Fold {
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.shown)
    }

    /// Returns whether anything changed that somebody may wait for.
    pub(crate) fn apply(&mut self, event: Event) -> bool {
        match event {
            Event::Up(up) => self.up(up),
            Event::Superseded { key, generation } => self.superseded(&key, generation),
            Event::Generated { key, generation, tokens, took } => {
                self.generated(&key, generation, tokens, took);
                // Shown to whoever looks. It comes with the end of every task, whose slot wakes already.
                false
            }
            Event::Down { key, generation, reason } => self.down(&key, generation, &reason),
            Event::Gone { key, generation, reason } => self.gone(&key, generation, &reason),
        }
    }

    pub(crate) fn take_slot(&mut self, key: &ReplicaKey, generation: u64) -> Option<Held> {
        let replica = self.shown.replicas.get(key)?;
        if replica.generation != generation || !replica.takes_work() {
            return None;
        }
        let life = self.lives.get_mut(key)?;
        life.in_use += 1;
        let held = Held { life: life.id, standing: life.standing.subscribe() };
        self.recount(key);
        Some(held)
    }

    /// Returns whether the slot belonged to the life that is up now.
    pub(crate) fn free_slot(&mut self, key: &ReplicaKey, life: u64) -> bool {
        if let Some(at) = self.retired.iter().position(|retired| retired.life.id == life) {
            self.retired[at].life.in_use = self.retired[at].life.in_use.saturating_sub(1);
            if self.retired[at].life.in_use == 0 {
                self.retired.swap_remove(at);
            }
            return false;
        }
        let Some(current) = self.lives.get_mut(key).filter(|current| current.id == life) else {
            return false;
        };
        current.in_use = current.in_use.saturating_sub(1);
        self.recount(key);
        true
    }

    /// Whether anybody holds a slot of this life.
    pub(crate) fn is_held(&self, key: &ReplicaKey, generation: u64) -> bool {
        let current = self.shown.replicas.get(key).filter(|replica| replica.generation == generation);
        let in_use = current.and_then(|_| self.lives.get(key)).is_some_and(|life| life.in_use > 0);
        in_use || self.retired.iter().any(|retired| retired.key == *key && retired.generation == generation)
    }

    fn up(&mut self, up: Up) -> bool {
        let known = self.shown.replicas.get(&up.key);
        let known_generation = known.map(|replica| replica.generation);
        if known_generation.is_some_and(|known| known > up.generation) {
            return false;
        }
        let last_down_reason = known.and_then(|replica| replica.last_down_reason.clone());
        if let Some(known) = known_generation.filter(|known| *known != up.generation) {
            self.replace_life(&up.key, known);
        }
        let returned = self.take_back(&up.key, up.generation);
        let next_life = &mut self.next_life;
        let life = self.lives.entry(up.key.clone()).or_insert_with(|| {
            returned.unwrap_or_else(|| {
                *next_life += 1;
                Life {
                    id: *next_life,
                    in_use: 0,
                    pace: Pace::default(),
                    standing: watch::Sender::new(Standing::Serves),
                }
            })
        });
        life.standing.send_replace(if up.draining {
            Standing::Drains(Drain::Asked)
        } else {
            Standing::Serves
        });
        let replica = Replica {
            generation: up.generation,
            slots_total: up.slots,
            slots_free: up.slots.saturating_sub(life.in_use),
            ready: true,
            draining: up.draining,
            engine_version: up.engine_version.into(),
            engine: up.engine,
            model_id: up.model_id.into(),
            model_digest: up.model_digest.into(),
            ctx: up.ctx,
            determinism: up.determinism,
            device_mask: up.device_mask.map(Into::into),
            hints: Hints { load: up.load, per_token: life.pace.per_token() },
            last_down_reason,
        };
        if self.shown.replicas.get(&up.key) == Some(&replica) {
            return false;
        }
        Arc::make_mut(&mut self.shown).replicas.insert(up.key, replica);
        true
    }

    fn generated(&mut self, key: &ReplicaKey, generation: u64, tokens: u64, took: Duration) {
        if self.shown.replicas.get(key).is_none_or(|replica| replica.generation != generation) {
            return;
        }
        let Some(life) = self.lives.get_mut(key).filter(|_| tokens > 0) else { return };
        life.pace.saw(tokens, took);
        let per_token = life.pace.per_token();
        self.change(key, |replica| replica.hints.per_token = per_token);
    }

    fn superseded(&mut self, key: &ReplicaKey, generation: u64) -> bool {
        let Some(current) = self.shown.replicas.get(key).filter(|replica| replica.generation == generation)
        else {
            return false;
        };
        let drained = current.draining;
        if let Some(life) = self.lives.get(key) {
            life.standing.send_replace(Standing::Drains(Drain::Superseded));
        }
        self.change(key, |replica| replica.draining = true);
        !drained
    }

    fn down(&mut self, key: &ReplicaKey, generation: u64, reason: &str) -> bool {
        self.end_retired(key, generation, reason);
        let Some(replica) = self.shown.replicas.get(key) else { return false };
        if replica.generation > generation || (replica.generation == generation && !replica.ready) {
            return false;
        }
        self.end_life(key, reason);
        self.change(key, |replica| {
            replica.generation = generation;
            replica.ready = false;
            replica.draining = false;
            replica.slots_free = 0;
            replica.last_down_reason = Some(reason.into());
        });
        true
    }

    /// As down, and nothing of it is shown any more.
    fn gone(&mut self, key: &ReplicaKey, generation: u64, reason: &str) -> bool {
        let went_down = self.down(key, generation, reason);
        if self.shown.replicas.get(key).is_none_or(|replica| replica.generation != generation) {
            return went_down;
        }
        Arc::make_mut(&mut self.shown).replicas.remove(key);
        true
    }

    fn end_life(&mut self, key: &ReplicaKey, reason: &str) {
        if let Some(life) = self.lives.remove(key) {
            life.end(reason);
        }
    }

    /// A life that was draining keeps what runs on it; another one is over.
    fn replace_life(&mut self, key: &ReplicaKey, generation: u64) {
        let Some(life) = self.lives.remove(key) else { return };
        if !life.drains() {
            life.end("a new life of the replica took its place");
        } else if life.in_use > 0 {
            self.retired.push(Retired { key: key.clone(), generation, life });
        }
    }

    /// A life that was replaced while it drained is in front again when what replaced it is gone: it
    /// goes on with the slots that are taken.
    fn take_back(&mut self, key: &ReplicaKey, generation: u64) -> Option<Life> {
        let is_it = |retired: &Retired| retired.key == *key && retired.generation == generation;
        let at = self.retired.iter().position(is_it)?;
        Some(self.retired.swap_remove(at).life)
    }

    fn end_retired(&mut self, key: &ReplicaKey, generation: u64, reason: &str) {
        let is_it = |retired: &mut Retired| retired.key == *key && retired.generation == generation;
        for retired in self.retired.extract_if(.., is_it) {
            retired.life.end(reason);
        }
    }

    fn recount(&mut self, key: &ReplicaKey) {
        let in_use = self.lives.get(key).map_or(0, |life| life.in_use);
        self.change(key, |replica| replica.slots_free = replica.slots_total.saturating_sub(in_use));
    }

    fn change(&mut self, key: &ReplicaKey, edit: impl FnOnce(&mut Replica)) {
        if let Some(replica) = Arc::make_mut(&mut self.shown).replicas.get_mut(key) {
            edit(replica);
        }
    }
}
