//! Events that are missing in the middle of a task's: what a damaged part of the journal, or a part of it
//! that never reached the disk, has taken. Judged by what stands behind them; does no I/O.

use std::collections::BTreeMap;

use super::recover::Events;
use super::table::Rows;
use crate::Entry;
use crate::lives::Life;

/// Events of a task are missing, and something behind them is not. Nothing behind them is handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// Its end stands behind them: it had ended.
    BeforeItsEnd,
    /// Its end does not: it was running, or its end is missing, too.
    WhileItRan,
}

/// What the stream of a task that has lost events says at its end, behind so many token events.
#[must_use]
pub fn lost_behind(tokens: u64) -> String {
    let from = match tokens.checked_sub(1) {
        Some(last) => format!("events of this task behind its token {last} (the first is 0)"),
        None => "events of this task from its first token on".to_owned(),
    };
    format!("{from} were lost in the journal; submit it again")
}

/// How many events there are from the first on without a gap, and whether the last of them is its end.
pub(crate) fn in_front(events: &BTreeMap<u64, Entry>) -> (u64, bool) {
    let mut len = 0;
    for (at, entry) in events {
        if *at != len {
            break;
        }
        len += 1;
        if entry.is_terminal() {
            return (len, true);
        }
    }
    (len, false)
}

/// What is missing of a task, of which so much was found. `lives` says where later processes began: all
/// before that was on disk then.
pub(crate) fn gap(events: &BTreeMap<u64, Entry>, lives: Option<&BTreeMap<u64, Life>>) -> Option<Gap> {
    let (len, ended) = in_front(events);
    if ended {
        return None;
    }
    let mut behind = events.range(len..).peekable();
    // Earlier ones count from where the last one began.
    let begun = lives.and_then(|lives| lives.values().next_back()).map_or(0, |life| life.start);
    if behind.peek().is_none() && begun <= len {
        return None;
    }
    let ended = behind.any(|(_, entry)| entry.is_terminal());
    Some(if ended { Gap::BeforeItsEnd } else { Gap::WhileItRan })
}

/// The gaps of all tasks that are not recorded as ended, one sentence each.
pub(crate) fn told(rows: &Rows, events: &Events) -> Vec<String> {
    let none = BTreeMap::new();
    let live = rows.admitted.keys().filter(|seq| !rows.ended.contains_key(seq));
    let said = |seq: &u64| {
        let of = events.of.get(seq).unwrap_or(&none);
        let becomes = match gap(of, events.lives.get(seq))? {
            Gap::BeforeItsEnd => "it had ended, and the next start ends it there with INTERRUPTED",
            Gap::WhileItRan => "the next start lets it go on there, or ends it with INTERRUPTED",
        };
        let (kept, _) = in_front(of);
        Some(format!("task number {seq} has lost events behind its first {kept}: {becomes}"))
    };
    live.filter_map(said).collect()
}
