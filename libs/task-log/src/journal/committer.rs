//! The thread that syncs and commits: admissions in groups, each before its 202; ends, and what
//! retention lets go of, after the events before them are on disk, at most every 100 ms.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::error::Unrecorded;
use super::event_queue::{EventQueue, Item};
use super::files::{name, sync_dir};
use super::health::{Health, Part};
use super::inbox::{Admission, AfterSync, Done, Ended, Grown, Inbox, Round};
use super::prompts::Prompts;
use super::segment::put_synced;
use super::table::{AdmittedRow, Changes, EndedRow, Table};
use super::{EVENT_KIND, Options};

/// How often what failed is tried again.
pub(crate) const RETRY_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Committer {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) events: Arc<EventQueue>,
    pub(crate) health: Arc<Health>,
    pub(crate) table: Table,
    pub(crate) prompts: Prompts,
    pub(crate) events_dir: PathBuf,
    pub(crate) options: Options,
    /// Refused tasks whose row may be on disk all the same: a commit that fails says nothing certain.
    pub(crate) doubtful: Vec<u64>,
    /// Event files whose sync has failed, until everything in them stands in others. A kernel may let go of
    /// what it could not write and says so once: a second sync of the same file proves nothing.
    pub(crate) lost: BTreeSet<u64>,
}

impl Committer {
    pub(crate) fn run(mut self) {
        loop {
            match self.inbox.next(self.options.sync_every, RETRY_EVERY) {
                Round::Admit(group) => self.admit(group),
                Round::Sync(work) => {
                    if let Err(left) = self.sync(work) {
                        self.inbox.after_sync(|waiting| waiting.prepend(left));
                        // Not before admissions that wait, and not in a tight loop.
                        std::thread::sleep(self.options.sync_every);
                    }
                }
                Round::Last(group, work) => {
                    self.admit(group);
                    if self.sync(work).is_err() {
                        tracing::warn!(
                            "the journal's last changes were not written; the next start finds what was"
                        );
                    }
                    return;
                }
                Round::Idle => self.try_again(),
            }
        }
    }

    fn admit(&mut self, group: Vec<(Admission, Done)>) {
        if group.is_empty() {
            return;
        }
        let written = self.write(&group);
        let outcome = match written {
            Ok(()) => {
                self.health.works(Part::Store);
                Ok(())
            }
            Err(error) => {
                self.health.fails(Part::Store, &error);
                for (admission, _) in &group {
                    self.doubtful.push(admission.seq);
                    let _ = self.prompts.wipe(admission.seq);
                }
                Err(Unrecorded)
            }
        };
        group.into_iter().for_each(|(_, done)| done(outcome));
    }

    fn write(&mut self, group: &[(Admission, Done)]) -> Result<(), redb::Error> {
        let prompts: Vec<_> = group.iter().map(|(task, _)| (task.seq, task.prompt.as_slice())).collect();
        let spans = self.prompts.add(&prompts).map_err(redb::StorageError::Io)?;
        let row = |((task, _), prompt): (&(Admission, Done), _)| {
            (task.seq, json(&AdmittedRow { prompt, record: task.record.clone() }))
        };
        let admitted = group.iter().zip(spans).map(row).collect();
        self.commit(Changes { admitted, ..Changes::default() })
    }

    /// Commits, and takes back what was refused before.
    fn commit(&mut self, mut changes: Changes) -> Result<(), redb::Error> {
        changes.forgotten.extend(&self.doubtful);
        self.table.commit(&changes)?;
        self.doubtful.clear();
        Ok(())
    }

    /// Events to disk, then the rows that speak of them, then what nothing speaks of any more.
    fn sync(&mut self, mut work: AfterSync) -> Result<(), AfterSync> {
        if let Err(error) = self.sync_events(&mut work) {
            self.health.fails(Part::Sync, &error);
            return Err(work);
        }
        if !self.lost.is_empty() {
            return Err(work);
        }
        self.health.works(Part::Sync);
        let ended = work.ended.iter().map(|ended| (ended.seq, json(&row(ended)))).collect();
        let changes = Changes { admitted: Vec::new(), ended, forgotten: work.forgotten.clone() };
        if changes.ended.is_empty() && changes.forgotten.is_empty() && self.doubtful.is_empty() {
            self.tidy(&work);
            return Ok(());
        }
        if let Err(error) = self.commit(changes) {
            self.health.fails(Part::Store, &error);
            return Err(work);
        }
        self.health.works(Part::Store);
        self.tidy(&work);
        Ok(())
    }

    /// Leaves in `work` only the files that are to be tried again as they are. A sync that fails says nothing
    /// certain about its file: whoever writes is told to write all of it anew.
    fn sync_events(&mut self, work: &mut AfterSync) -> io::Result<()> {
        work.grown.retain(|number, _| !self.lost.contains(number));
        // A file that is new needs its name on disk; it is a rare one of many.
        let sealed = work.grown.values().any(|grown| grown.sealed);
        if work.grown.len() > 1 || sealed || !work.rewritten.is_empty() {
            let named = self.options.space.check_sync().and_then(|()| sync_dir(&self.events_dir));
            if let Err(error) = named {
                std::mem::take(&mut work.grown).into_keys().for_each(|number| self.lose(number));
                return Err(error);
            }
        }
        let synced = self.sync_files(&mut work.grown);
        // What was written in the place of a lost file was synced just now or before, or is lost itself.
        for file in work.rewritten.drain(..) {
            self.lost.remove(&file);
        }
        synced
    }

    fn sync_files(&mut self, files: &mut BTreeMap<u64, Grown>) -> io::Result<()> {
        while let Some((number, grown)) = files.pop_first() {
            if let Err(error) = self.sync_file(number, &grown) {
                self.lose(number);
                return Err(error);
            }
            if !grown.sealed {
                self.events.push(Item::Synced { file: number, length: grown.length });
                continue;
            }
            let mut mark = Vec::new();
            put_synced(&mut mark, grown.length);
            if let Err(error) = grown.file.write_all_at(&mark, grown.length) {
                // What it marks is on disk.
                files.insert(number, grown);
                return Err(error);
            }
            if let Err(error) = self.sync_file(number, &grown) {
                self.lose(number);
                return Err(error);
            }
        }
        Ok(())
    }

    fn sync_file(&self, number: u64, grown: &Grown) -> io::Result<()> {
        self.options.space.check_sync().and_then(|()| grown.file.sync_data()).inspect_err(|error| {
            let file = name(number, EVENT_KIND);
            tracing::warn!(%error, file, "an event file was not synced; what is in it is written to another one");
        })
    }

    fn lose(&mut self, file: u64) {
        self.lost.insert(file);
        self.events.push(Item::Lost { file });
    }

    /// Nothing on disk needs these any more. What stays behind is found by the next start.
    fn tidy(&mut self, work: &AfterSync) {
        let over = work.ended.iter().map(|ended| ended.seq).chain(work.forgotten.iter().copied());
        for seq in over {
            if let Err(error) = self.prompts.wipe(seq) {
                tracing::warn!(%error, "a prompt of a task that has ended could not be removed from the journal");
            }
        }
        for number in &work.idle {
            let path = self.events_dir.join(name(*number, EVENT_KIND));
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "an event file that is not needed could not be removed");
            }
        }
    }

    /// Nothing came for a while: if the store failed, whether it still does.
    fn try_again(&mut self) {
        if self.health.is_good() && self.doubtful.is_empty() {
            return;
        }
        match self.commit(Changes::default()) {
            Ok(()) => self.health.works(Part::Store),
            Err(error) => self.health.fails(Part::Store, &error),
        }
    }
}

fn row(ended: &Ended) -> EndedRow {
    EndedRow { at_ms: ended.at_ms, events: ended.events, summary: ended.summary.clone() }
}

/// Rows are structs of numbers, texts and JSON: there is nothing in them that cannot be written.
fn json<T: serde::Serialize>(row: &T) -> Vec<u8> {
    serde_json::to_vec(row).unwrap_or_default()
}
