//! What engines were seen to use of cards: the most that each kind of engine ever had, for the next of
//! its kind. An engine grows while it works, so one look is never the last word.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use wire::{Device, PreparedEngine};

/// So many kinds are remembered; far more than a machine has pools.
const KINDS: usize = 256;

/// Engines of one kind need the same memory: program, model, flags and environment are the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind([u8; 32]);

impl Kind {
    pub(super) fn of(prepared: &PreparedEngine) -> Self {
        let of = (
            (&prepared.binary_path, &prepared.engine_digest, &prepared.model_path, &prepared.model_digest),
            (&prepared.flags, prepared.ctx, prepared.slots, &prepared.env),
        );
        Self(Sha256::digest(serde_json::to_vec(&of).unwrap_or_default()).into())
    }
}

/// What an engine had in all, and on how many cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(super) bytes: u64,
    pub(super) cards: u64,
}

/// By kind, the most that one was seen to have.
#[derive(Debug, Default)]
pub(super) struct Measured(BTreeMap<Kind, Seen>);

impl Measured {
    /// What one engine has now, card by card. Nothing says nothing: the driver may not tell.
    pub(super) fn add(&mut self, kind: &Kind, on: &[u64]) {
        let cards = u64::try_from(on.len()).unwrap_or(u64::MAX);
        let seen = Seen { bytes: on.iter().copied().fold(0, u64::saturating_add), cards };
        if seen.bytes == 0 {
            return;
        }
        if self.0.len() >= KINDS && !self.0.contains_key(kind) {
            self.0.pop_first();
        }
        let most = self.0.entry(kind.clone()).or_insert(seen);
        if most.cards != seen.cards || most.bytes < seen.bytes {
            *most = seen;
        }
    }

    pub(super) fn of(&self, kind: &Kind) -> Option<Seen> {
        self.0.get(kind).copied()
    }
}

/// What a process has of a card; `None` where the driver does not say, or it has nothing.
pub(super) fn on_card(card: &Device, pid: u32) -> Option<u64> {
    let user = card.users.iter().find(|user| user.pid == Some(pid))?;
    user.used_bytes.filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// POOLD-MEMORY-005
    #[test]
    fn the_most_that_was_seen_counts_and_silence_says_nothing() {
        let (a, b) = (Kind([0; 32]), Kind([1; 32]));
        let mut measured = Measured::default();
        measured.add(&a, &[]);
        assert_eq!(measured.of(&a), None);
        measured.add(&a, &[5]);
        measured.add(&a, &[7]);
        measured.add(&a, &[6]);
        measured.add(&a, &[]);
        assert_eq!(measured.of(&a), Some(Seen { bytes: 7, cards: 1 }));
        // Split otherwise than before: what it had then says nothing about now.
        measured.add(&a, &[2, 3]);
        assert_eq!((measured.of(&a), measured.of(&b)), (Some(Seen { bytes: 5, cards: 2 }), None));
    }

    #[test]
    fn kinds_are_bounded() {
        let mut measured = Measured::default();
        for number in 0..=255_u8 {
            measured.add(&Kind([number; 32]), &[1]);
        }
        let mut one_more = [0; 32];
        one_more[0] = 1;
        measured.add(&Kind(one_more), &[1]);
        assert_eq!((measured.0.len(), measured.of(&Kind([0; 32]))), (KINDS, None));
    }
}
