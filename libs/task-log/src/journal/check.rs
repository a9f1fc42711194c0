//! Reading a journal through and saying everything that is wrong with it. Changes no file of ours;
//! the store, like at any start, finishes what a crash left undone.

use std::fs;
use std::path::Path;

use super::EVENT_KIND;
use super::error::JournalError;
use super::files::{name, numbered};
use super::gaps;
use super::recover::{Events, Layout, io_error, missing};
use super::space::Space;
use super::table::Table;

/// What a check found.
#[derive(Debug, Default)]
pub struct Check {
    /// Tasks that wait or run.
    pub live: usize,
    /// Tasks that have ended.
    pub ended: usize,
    /// Files of events.
    pub files: usize,
    /// What a start would stop at; each names its file.
    pub problems: Vec<String>,
    /// What a start would mend by itself; each names its file, or its task.
    pub notes: Vec<String>,
}

/// Reads the journal of a directory through. Blocks.
pub fn check(dir: &Path) -> Result<Check, JournalError> {
    let layout = Layout::of(dir);
    let mut check = Check::default();
    if !layout.table.exists() {
        return Ok(check);
    }
    let mut table = match Table::open(layout.table.clone(), Space::default()) {
        Err(error @ (JournalError::InUse { .. } | JournalError::Io { .. })) => return Err(error),
        Err(error) => {
            check.problems.push(said(&error));
            return Ok(check);
        }
        Ok(table) => table,
    };
    match table.check() {
        Ok(true) => {}
        Ok(false) => check.notes.push(format!("{} needed a repair and has it", layout.table.display())),
        Err(error) => check.problems.push(said(&error)),
    }
    let rows = match table.rows() {
        Ok(rows) => rows,
        Err(error) => {
            check.problems.push(said(&error));
            return Ok(check);
        }
    };
    check.ended = rows.ended.len();
    check.live = rows.admitted.keys().filter(|seq| !rows.ended.contains_key(seq)).count();
    let mut events = Events::default();
    for number in numbered(&layout.events, EVENT_KIND).map_err(|e| io_error("list", &layout.events, e))? {
        let path = layout.events.join(name(number, EVENT_KIND));
        let bytes = fs::read(&path).map_err(|error| io_error("read", &path, error))?;
        let scan = events.read(number, &bytes, &rows);
        check.files += 1;
        let Some(damage) = scan.damage else { continue };
        let words = format!("{} is damaged at byte {}: {}", path.display(), scan.whole, damage.words());
        if scan.is_torn_tail() {
            let lost = bytes.len() - scan.whole;
            check.notes.push(format!("{words}; a crash left that, and a start cuts {lost} bytes off"));
        } else {
            check.problems.push(words);
        }
    }
    events.let_go_of_the_lost();
    check.problems.extend(missing(&layout.events, &rows, &events.of).map(|error| said(&error)));
    check.notes.extend(gaps::told(&rows, &events));
    Ok(check)
}

fn said(error: &JournalError) -> String {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    let text = error.to_string();
    let text = text.split("; `orchestratord").next().unwrap_or(&text);
    format!("{text}{source}")
}

#[cfg(test)]
mod tests {
    use super::super::table::Changes;
    use super::*;

    /// ORCHD-JOURNAL-008: what a full disk leaves is ends of tasks that were never recorded.
    #[test]
    fn ends_without_a_task_make_no_live_task_fewer() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::of(dir.path());
        fs::create_dir(&layout.events).unwrap();
        let admitted =
            |seq| (seq, br#"{"prompt":{"file":1,"offset":0,"length":1,"crc":0},"record":{}}"#.to_vec());
        let ended = |seq| (seq, br#"{"at_ms":1,"events":0,"summary":null}"#.to_vec());
        let commit = |admitted, ended| {
            let mut table = Table::open(layout.table.clone(), Space::default()).unwrap();
            table.commit(&Changes { admitted, ended, ..Changes::default() }).unwrap();
        };
        commit(vec![], vec![ended(1), ended(2)]);
        let found = check(dir.path()).unwrap();
        assert_eq!((found.live, found.ended), (0, 2));
        commit(vec![admitted(3), admitted(4)], vec![ended(4)]);
        let found = check(dir.path()).unwrap();
        assert_eq!((found.live, found.ended), (1, 3), "{found:?}");
    }
}
