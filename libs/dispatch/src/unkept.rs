//! Logs of tasks that are not kept any more and that somebody still reads: bounded by bytes, because one slow
//! reader is enough to hold a log.

use std::collections::VecDeque;

use task_log::HeldLog;

use crate::core::TaskCore;

/// They are looked over again when there are more than twice as many as were held the last time, and so many
/// more: then that costs each of them little.
const LOOK_AFTER: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Unkept {
    /// In the order in which they were let out of the store.
    logs: VecDeque<Unread>,
    bytes: usize,
    /// So many were held when they were looked over last.
    held: usize,
}

/// A log that only others hold.
#[derive(Debug)]
pub(crate) struct Unread {
    pub(crate) log: HeldLog,
    /// The journal records it, and has to be done with it first.
    pub(crate) recorded: bool,
    bytes: usize,
}

impl Unread {
    pub(crate) fn of(core: &TaskCore, bytes: usize) -> Self {
        Self { log: core.log.held(), recorded: core.is_durable(), bytes }
    }
}

impl Unkept {
    /// Counts a log for as long as somebody holds it.
    pub(crate) fn add(&mut self, unread: Unread) {
        if !unread.log.is_held() {
            return;
        }
        self.bytes += unread.bytes;
        self.logs.push_back(unread);
        if self.logs.len() > 2 * self.held + LOOK_AFTER {
            self.look_over();
        }
    }

    /// What is too much, the longest unread first.
    pub(crate) fn beyond(&mut self, limit_bytes: usize) -> Vec<Unread> {
        if self.bytes > limit_bytes {
            self.look_over();
        }
        let mut beyond = Vec::new();
        while self.bytes > limit_bytes
            && let Some(oldest) = self.logs.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(oldest.bytes);
            beyond.push(oldest);
        }
        beyond
    }

    fn look_over(&mut self) {
        self.logs.retain(|unread| unread.log.is_held());
        self.held = self.logs.len();
        self.bytes = self.logs.iter().map(|unread| unread.bytes).sum();
    }
}

#[cfg(test)]
mod tests {
    use task_log::TaskLog;

    use super::*;

    fn unread(log: &TaskLog, bytes: usize) -> Unread {
        Unread { log: log.held(), recorded: false, bytes }
    }

    /// STREAM-015
    #[test]
    fn the_longest_unread_goes_first_and_what_nobody_holds_counts_for_nothing() {
        let logs: Vec<TaskLog> = (0..4).map(|_| TaskLog::new(100).0).collect();
        let mut unkept = Unkept::default();
        logs.iter().for_each(|log| unkept.add(unread(log, 10)));
        assert!(unkept.beyond(40).is_empty());
        let [_first, second, _third, fourth] = <[TaskLog; 4]>::try_from(logs).unwrap();
        let held = |beyond: Vec<Unread>| beyond.iter().map(|unread| unread.log.is_held()).collect::<Vec<_>>();
        drop(second);
        assert!(unkept.beyond(30).is_empty(), "its reader is gone");
        assert_eq!(held(unkept.beyond(15)), [true, true]);
        drop(fourth);
        assert!(unkept.beyond(0).is_empty());
        assert_eq!((unkept.bytes, unkept.logs.len()), (0, 0));
    }

    #[test]
    fn logs_whose_readers_are_done_do_not_pile_up() {
        let mut unkept = Unkept::default();
        let slow = TaskLog::new(100).0;
        unkept.add(unread(&slow, 1));
        for _ in 0..10_000 {
            let log = TaskLog::new(100).0;
            unkept.add(unread(&log, 1));
            assert!(unkept.logs.len() <= LOOK_AFTER + 4, "{}", unkept.logs.len());
        }
        drop(unread(&slow, 1));
        unkept.look_over();
        assert_eq!((unkept.logs.len(), unkept.bytes), (1, 1));
    }
}
