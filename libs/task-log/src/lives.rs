//! Which process said what of a task: a log outlives the process that wrote it, and may come back
//! shorter than its readers saw it.
//!
//! After a power cut, or a kill while the disk refused, the end of a log may be missing, and the next
//! process says something else in its place. The same number is then two events, so what a process
//! says of a task that an earlier one admitted is named with that process's number, which no two
//! processes share.

use crate::Position;

/// A process's part of a log. The one that admitted the task is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) number: u64,
    /// Its first entry.
    pub(crate) start: u64,
}

/// The parts of a log after the first one, in order.
#[derive(Debug, Default)]
pub(crate) struct Lives(Vec<Life>);

impl Lives {
    /// From what was recorded, in whatever order; no part begins behind the one after it, whatever a
    /// repair has left of them.
    pub(crate) fn new(mut lives: Vec<Life>) -> Self {
        lives.sort_by_key(|life| life.number);
        let mut next = u64::MAX;
        for life in lives.iter_mut().rev() {
            life.start = life.start.min(next);
            next = life.start;
        }
        Self(lives)
    }

    /// The process that said the entry at a place.
    pub(crate) fn of(&self, at: u64) -> u64 {
        self.0.iter().rev().find(|life| life.start <= at).map_or(0, |life| life.number)
    }

    /// The parts that begin with the entry at a place.
    pub(crate) fn beginning_at(&self, at: u64) -> impl Iterator<Item = u64> {
        self.0.iter().filter(move |life| life.start == at).map(|life| life.number)
    }

    /// Where a reader goes on behind `position` in a log of `len` entries; `None` if nobody was given that
    /// position. Behind an entry that was lost it goes on with the first one that is in its place.
    pub(crate) fn next_after(&self, position: Position, len: u64) -> Option<u64> {
        let Position { life, at } = position;
        let begun = match life {
            0 => Some(0),
            life => self.0.iter().find(|part| part.number == life).map(|part| part.start),
        };
        match (begun, self.0.iter().find(|part| part.number > life)) {
            (Some(start), None) => (start..len).contains(&at).then(|| at + 1),
            (Some(start), Some(next)) => (at >= start).then(|| at.saturating_add(1).min(next.start)),
            // Nothing is left of that process's part, not even where it began: that was here.
            (None, Some(next)) => (at >= next.start).then_some(next.start),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn position(life: u64, at: u64) -> Position {
        Position { life, at }
    }

    /// STREAM-002
    #[test]
    fn behind_an_entry_that_is_lost_a_reader_goes_on_with_what_is_in_its_place() {
        let lives = Lives::new(vec![Life { number: 5, start: 4 }, Life { number: 2, start: 3 }]);
        let next = |life, at| lives.next_after(position(life, at), 6);
        assert_eq!([next(0, 0), next(0, 2), next(0, 3), next(0, 99)], [Some(1), Some(3), Some(3), Some(3)]);
        assert_eq!([next(2, 2), next(2, 3), next(2, 4)], [None, Some(4), Some(4)]);
        assert_eq!([next(5, 3), next(5, 4), next(5, 5), next(5, 6)], [None, Some(5), Some(6), None]);
        // Of the third process nothing was kept.
        assert_eq!([next(3, 3), next(3, 4), next(3, 9)], [None, Some(4), Some(4)]);
        assert_eq!(next(6, 5), None, "nobody was that yet");
        assert_eq!([2, 3, 4, 9].map(|at| lives.of(at)), [0, 2, 5, 5]);
    }

    proptest! {
        /// STREAM-002: processes append and lose what they like; whoever saw an entry goes on behind it if
        /// it is still there, and with the first that is in the place of what is not.
        #[test]
        fn no_reader_misses_or_mistakes_an_entry(
            steps in proptest::collection::vec((1_u64..4, 0_u64..9, 0_u64..9), 1..8),
        ) {
            // What the log holds and who has said it; what was ever seen; what each process left on disk.
            let (mut log, mut seen) = (Vec::<(u64, u64)>::new(), Vec::new());
            let (mut recorded, mut number, mut serial) = (Vec::<Life>::new(), 0, 0);
            for (skip, says, loses) in steps {
                let start = log.len() as u64;
                let lives = || {
                    let own = (number > 0).then_some(Life { number, start });
                    Lives::new(recorded.iter().copied().chain(own).collect())
                };
                for _ in 0..says {
                    let at = log.len() as u64;
                    seen.push((position(lives().of(at), at), serial));
                    log.push((lives().of(at), serial));
                    serial += 1;
                }
                for (position, serial) in &seen {
                    let next = lives().next_after(*position, log.len() as u64);
                    let there = log.iter().position(|(_, there)| there == serial);
                    match there {
                        Some(at) => prop_assert_eq!(next, Some(at as u64 + 1), "{:?}", position),
                        None => {
                            // As many as were there of what it had seen are still there.
                            let kept = log.iter().take_while(|(life, _)| *life <= position.life).count();
                            prop_assert_eq!(next, Some(kept as u64), "{:?}", position);
                        }
                    }
                }
                // Only what this process has said can be lost: the rest was synced when it began.
                log.truncate(log.len() - usize::try_from(loses.min(log.len() as u64 - start)).unwrap());
                // Where a part begins is written with its first entry, and may be all that is left of it.
                if number > 0 && (log.len() as u64 > start || (says > 0 && loses % 2 == 0)) {
                    recorded.push(Life { number, start });
                }
                number += skip;
            }
        }
    }
}
