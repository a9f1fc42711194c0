//! Mending a journal that does not open: what can be read is kept, what cannot is set aside beside
//! it, and a task that had ended and lost events says so at its end.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::value::RawValue;
use wire::ErrorCode;
use wire::event::StreamError;

use super::error::JournalError;
use super::files::{name, new_file, numbered, private_dir, sync_dir};
use super::gaps::{self, lost_behind};
use super::recover::{Events, Layout, in_a_row, io_error};
use super::segment::{self, Damage, Found, put_entry, put_json, put_life, put_synced};
use super::space::Space;
use super::table::{Changes, EndedRow, Rows, Table};
use super::{EVENT_KIND, now_ms};
use crate::Entry;
use crate::lives::Life;

/// Mends the journal of a directory; says what was done, one sentence each. Blocks.
pub fn repair(dir: &Path) -> Result<Vec<String>, JournalError> {
    let layout = Layout::of(dir);
    if !layout.table.exists() {
        return Ok(Vec::new());
    }
    let mut repair = Repair { aside: aside(dir), done: Vec::new(), layout };
    let (mut table, rows) = repair.store()?;
    repair.event_files()?;
    repair.ends(&mut table, &rows)?;
    Ok(repair.done)
}

struct Repair {
    layout: Layout,
    /// Where originals go.
    aside: PathBuf,
    done: Vec<String>,
}

fn aside(dir: &Path) -> PathBuf {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    dir.join(format!("set-aside-{now}"))
}

impl Repair {
    /// The store, or an empty one instead of one that cannot be read.
    fn store(&mut self) -> Result<(Table, Rows), JournalError> {
        let path = self.layout.table.clone();
        let opened = Table::open(path.clone(), Space::default()).and_then(|mut table| {
            table.check()?;
            let rows = table.rows()?;
            Ok((table, rows))
        });
        match opened {
            Err(JournalError::Store { .. }) => {}
            other => return other,
        }
        self.set_aside(&path, |from, to| fs::rename(from, to))?;
        self.done.push(format!(
            "the store of tasks could not be read: every task is lost to this journal; the store is kept as {}",
            self.aside.join("tasks.redb").display()
        ));
        let mut table = Table::open(path, Space::default())?;
        let rows = table.rows()?;
        Ok((table, rows))
    }

    /// Every damaged file anew with the records of it that are whole.
    fn event_files(&mut self) -> Result<(), JournalError> {
        let dir = self.layout.events.clone();
        for number in numbered(&dir, EVENT_KIND).map_err(|error| io_error("list", &dir, error))? {
            let path = dir.join(name(number, EVENT_KIND));
            let bytes = fs::read(&path).map_err(|error| io_error("read", &path, error))?;
            let scan = segment::scan(&bytes, |_, _| {});
            match scan.damage {
                Some(Damage::Version(_)) | None => continue,
                Some(_) if scan.is_torn_tail() => continue,
                Some(_) => {}
            }
            self.set_aside(&path, |from, to| fs::copy(from, to).map(drop))?;
            let mut whole = segment::head().to_vec();
            let mut kept = 0;
            segment::salvage_tasks(&bytes, |seq, found| match found {
                Found::Entry { at, json } => {
                    put_json(&mut whole, seq, at, json);
                    kept += 1;
                }
                Found::Life(life) => put_life(&mut whole, seq, life),
            });
            let length = whole.len() as u64;
            put_synced(&mut whole, length);
            replace(&path, &whole).map_err(|error| io_error("write", &path, error))?;
            self.done.push(format!(
                "{} was damaged at byte {}; {kept} events of it are kept, the file as it was is in {}",
                path.display(),
                scan.whole,
                self.aside.display()
            ));
        }
        Ok(())
    }

    /// Tasks that had ended and lack events end where they break off, with an error that says so.
    fn ends(&mut self, table: &mut Table, rows: &Rows) -> Result<(), JournalError> {
        let dir = self.layout.events.clone();
        let mut events = Events::default();
        let files = numbered(&dir, EVENT_KIND).map_err(|error| io_error("list", &dir, error))?;
        for number in &files {
            let path = dir.join(name(*number, EVENT_KIND));
            let bytes = fs::read(&path).map_err(|error| io_error("read", &path, error))?;
            events.read(*number, &bytes, rows);
        }
        events.let_go_of_the_lost();
        let number = files.last().map_or(1, |last| last + 1);
        let mut file = segment::head().to_vec();
        let mut changes = Changes::default();
        for (seq, end) in &rows.ended {
            let there = in_a_row(events.of.remove(seq).unwrap_or_default());
            if there.len() as u64 >= end.events {
                continue;
            }
            let (seq, at) = (*seq, there.len() as u64);
            // Its readers may have seen what is lost.
            put_life(&mut file, seq, Life { number, start: at });
            let written = put_entry(&mut file, seq, at, &lost(&there));
            written.map_err(|error| io_error("write", &dir, io::Error::other(error)))?;
            let row = EndedRow { at_ms: now_ms(), events: at + 1, summary: RawValue::NULL.to_owned() };
            changes.ended.push((seq, serde_json::to_vec(&row).unwrap_or_default()));
            self.done.push(format!("task number {seq} keeps {at} of its {} events", end.events));
        }
        // Whether these go on is for those to say who run them.
        self.done.extend(gaps::told(rows, &events));
        if changes.ended.is_empty() {
            return Ok(());
        }
        let length = file.len() as u64;
        put_synced(&mut file, length);
        let path = dir.join(name(number, EVENT_KIND));
        replace(&path, &file).map_err(|error| io_error("write", &path, error))?;
        table.commit(&changes).map_err(|source| JournalError::Store {
            path: self.layout.table.clone(),
            source: Box::new(source),
        })
    }

    fn set_aside(
        &self,
        path: &Path,
        keep: impl FnOnce(&Path, &Path) -> io::Result<()>,
    ) -> Result<(), JournalError> {
        let kept = private_dir(&self.aside)
            .and_then(|()| keep(path, &self.aside.join(path.file_name().unwrap_or_default())));
        kept.map_err(|error| io_error("set aside", path, error))
    }
}

fn lost(there: &[Entry]) -> Entry {
    let said = |entry: &&Entry| matches!(entry, Entry::Chunk { index: Some(_), .. });
    let tokens_sent = there.iter().filter(said).count() as u64;
    Entry::Error(StreamError {
        code: ErrorCode::Interrupted,
        message: lost_behind(tokens_sent),
        retriable: true,
        retry_after_ms: None,
        hint: None,
        tokens_sent,
    })
}

/// A whole file under a name that was taken, atomically.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = new_file(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}
