//! The thread that syncs and commits: admissions in groups, each before its 202; ends, and what
//! retention lets go of, after the events before them are on disk, at most every 100 ms.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::error::Unrecorded;
use super::event_queue::{EventQueue, Item};
use super::files::{name, sync_dir};
use super::health::{Health, Part};
use super::inbox::{Admission, AfterSync, Done, Ended, Inbox, Round};
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
    fn sync(&mut self, work: AfterSync) -> Result<(), AfterSync> {
        if let Err(error) = self.sync_events(&work) {
            self.health.fails(Part::Sync, &error);
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
            // What is synced stays so.
            return Err(AfterSync { grown: Default::default(), ..work });
        }
        self.health.works(Part::Store);
        self.tidy(&work);
        Ok(())
    }

    fn sync_events(&self, work: &AfterSync) -> std::io::Result<()> {
        for (number, grown) in &work.grown {
            grown.file.sync_data()?;
            if grown.sealed {
                let mut mark = Vec::new();
                put_synced(&mut mark, grown.length);
                grown.file.write_all_at(&mark, grown.length)?;
                grown.file.sync_data()?;
            } else {
                self.events.push(Item::Synced { file: *number, length: grown.length });
            }
        }
        // A file that is new needs its name on disk; it is a rare one of many.
        if work.grown.len() > 1 || work.grown.values().any(|grown| grown.sealed) {
            sync_dir(&self.events_dir)?;
        }
        Ok(())
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
            if let Err(error) = fs::remove_file(&path) {
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
