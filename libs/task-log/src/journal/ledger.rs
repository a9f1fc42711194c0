//! Which task has how much in which event file: what may be deleted, and what is worth moving so
//! that a file can be deleted. Does no I/O.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

/// One task's part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) first: u64,
    pub(crate) last: u64,
    bytes: u64,
}

#[derive(Debug, Default)]
struct File {
    bytes: u64,
    // Its keys are counted by us, so nobody can choose them to collide.
    parts: FxHashMap<u64, Part>,
}

/// The books. What is asked after every batch of events is kept as a sum, so that many running tasks
/// make no batch dearer.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    files: BTreeMap<u64, File>,
    /// Bytes of all files.
    all: u64,
    /// The part of them that is some task's.
    held: u64,
    /// A file may hold nothing since they were looked through.
    emptied: bool,
}

impl Ledger {
    /// A file of so many bytes that are no task's.
    pub(crate) fn open(&mut self, file: u64, bytes: u64) {
        self.files.entry(file).or_default().bytes += bytes;
        self.all += bytes;
        // Whichever was the current one before is one of the others now.
        self.emptied = true;
    }

    /// A task's entry at place `at` was written to a file.
    pub(crate) fn note(&mut self, file: u64, seq: u64, at: u64, bytes: u64) {
        let file = self.files.entry(file).or_default();
        file.bytes += bytes;
        let part = file.parts.entry(seq).or_insert(Part { first: at, last: at, bytes: 0 });
        part.first = part.first.min(at);
        part.last = part.last.max(at);
        part.bytes += bytes;
        self.all += bytes;
        self.held += bytes;
    }

    /// A task's entries are not needed any more.
    pub(crate) fn forget(&mut self, seq: u64) {
        let files: Vec<u64> = self.files.keys().copied().collect();
        files.into_iter().for_each(|file| self.moved(file, seq));
    }

    /// The tasks that have something in a file.
    pub(crate) fn tasks_in(&self, file: u64) -> Vec<u64> {
        self.files.get(&file).map(|file| file.parts.keys().copied().collect()).unwrap_or_default()
    }

    /// Takes out the files but `current` that hold nothing of any task.
    pub(crate) fn take_idle(&mut self, current: u64) -> Vec<u64> {
        if !std::mem::take(&mut self.emptied) {
            return Vec::new();
        }
        let idle =
            |(number, file): (&u64, &File)| (*number != current && file.parts.is_empty()).then_some(*number);
        let idle: Vec<u64> = self.files.iter().filter_map(idle).collect();
        for file in idle.iter().filter_map(|number| self.files.remove(number)) {
            self.all -= file.bytes;
        }
        idle
    }

    /// Parts of the file that costs most for what it holds, once all files together are more than twice
    /// what they hold and `slack` bytes: about `enough` bytes of them, and at least one.
    pub(crate) fn worth_moving(
        &self,
        current: u64,
        slack: u64,
        enough: u64,
    ) -> Option<(u64, Vec<(u64, Part)>)> {
        if self.all <= 2 * self.held + slack {
            return None;
        }
        let live = |file: &File| file.parts.values().map(|part| part.bytes).sum::<u64>();
        let others = self.files.iter().filter(|(number, _)| **number != current);
        let (number, file) = others.min_by_key(|(_, file)| live(file))?;
        let mut before = 0;
        let in_time = file.parts.iter().take_while(|(_, part)| {
            let takes = before < enough;
            before += part.bytes;
            takes
        });
        Some((*number, in_time.map(|(seq, part)| (*seq, *part)).collect()))
    }

    /// A task's part of a file was written to another one.
    pub(crate) fn moved(&mut self, file: u64, seq: u64) {
        let Some(file) = self.files.get_mut(&file) else { return };
        if let Some(part) = file.parts.remove(&seq) {
            self.held -= part.bytes;
            self.emptied |= file.parts.is_empty();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_idle_when_its_last_task_is_forgotten() {
        let mut ledger = Ledger::default();
        ledger.note(1, 10, 0, 100);
        ledger.note(1, 11, 0, 100);
        ledger.note(2, 11, 1, 100);
        ledger.forget(10);
        assert!(ledger.take_idle(2).is_empty());
        ledger.forget(11);
        assert_eq!(ledger.take_idle(2), [1], "the current file stays");
        ledger.forget(11);
        assert!(ledger.take_idle(2).is_empty());
        ledger.open(3, 16);
        assert_eq!(ledger.take_idle(3), [2], "until it is another one's turn");
        assert_eq!((ledger.all, ledger.held), (16, 0), "and the sums are those of what is left");
    }

    /// ORCHD-JOURNAL-010
    #[test]
    fn a_file_held_by_little_is_worth_moving_and_a_full_one_is_not() {
        let mut ledger = Ledger::default();
        ledger.open(1, 1_000);
        ledger.note(1, 10, 4, 50);
        ledger.note(1, 10, 5, 50);
        ledger.note(2, 11, 0, 500);
        ledger.open(3, 16);
        assert_eq!(ledger.worth_moving(3, 1_000, 1_000), None, "1616 bytes for 600 and 1000");
        let (file, moved) = ledger.worth_moving(3, 100, 1_000).unwrap();
        assert_eq!(file, 1);
        assert_eq!(moved, [(10, Part { first: 4, last: 5, bytes: 100 })]);
        ledger.note(3, 10, 4, 50);
        ledger.moved(1, 10);
        assert_eq!(ledger.take_idle(3), [1]);
        assert_eq!(ledger.worth_moving(3, 100, 1_000), None);
    }

    /// ORCHD-JOURNAL-010: a file of many tasks is moved in several turns, because streams wait for each.
    #[test]
    fn no_more_is_moved_at_once_than_is_enough() {
        let mut ledger = Ledger::default();
        ledger.open(1, 10_000);
        (10..15).for_each(|seq| ledger.note(1, seq, 0, 100));
        ledger.open(2, 16);
        let mut turns = Vec::new();
        while let Some((file, parts)) = ledger.worth_moving(2, 100, 150) {
            assert_eq!(file, 1);
            for (seq, _) in &parts {
                ledger.note(2, *seq, 0, 100);
                ledger.moved(1, *seq);
            }
            turns.push(parts.len());
            ledger.take_idle(2);
        }
        assert_eq!(turns, [2, 2, 1], "and never none");
        let mut ledger = Ledger::default();
        ledger.open(1, 10_000);
        ledger.note(1, 10, 0, 1_000);
        ledger.open(2, 16);
        assert_eq!(ledger.worth_moving(2, 100, 150).unwrap().1.len(), 1, "a large part goes alone");
    }
}
