//! What `/proc` tells about a process that lives: whether it is stopped, and whether it does
//! something. Numbers for whoever watches it; nothing is decided here.

use std::fs;

use crate::procfs;

/// Whether a signal or a debugger has stopped the process (state `T` or `t`).
#[must_use]
pub fn is_stopped(pid: u32) -> bool {
    procfs::stat(pid).is_ok_and(|stat| matches!(stat.state, 'T' | 't'))
}

/// How much the process has read and holds, in bytes: what it has read so far plus what is resident.
/// It grows while a model is loaded, whether by reading or by mapping. `None` when it cannot be seen.
#[must_use]
pub fn loaded_bytes(pid: u32) -> Option<u64> {
    let read = fs::read_to_string(format!("/proc/{pid}/io")).ok();
    let read = read.and_then(|text| number_after(&text, "rchar:")).unwrap_or(0);
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let resident_pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(read + resident_pages * rustix::param::page_size() as u64)
}

/// The number behind a word, in a file of lines of a word and a number.
pub(crate) fn number_after(text: &str, word: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some(word)).then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs_and_has_read_something() {
        assert!(!is_stopped(std::process::id()));
        let before = loaded_bytes(std::process::id()).unwrap();
        let kept = fs::read("/proc/self/exe").unwrap();
        let after = loaded_bytes(std::process::id()).unwrap();
        assert!(after >= before + kept.len() as u64, "{before} {after}");
    }

    #[test]
    fn a_process_that_is_not_there_shows_nothing() {
        assert!(!is_stopped(u32::MAX));
        assert_eq!(loaded_bytes(u32::MAX), None);
    }
}
