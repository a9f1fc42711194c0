//! Writing events. A task's log hands an entry over; it is written, with whatever else came meanwhile,
//! and only then may readers see it.
//!
//! Writing is into the page cache, which outlives this process; the committer syncs. When the disk
//! refuses, readers still see everything, and what was not written is written anew once it can be; so is
//! what stands in a file whose sync failed, in another file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Instant;

use rustc_hash::FxHashMap;

use super::committer::RETRY_EVERY;
use super::event_queue::{EventQueue, Item, Turn, Writer};
use super::files::{name, new_file};
use super::health::{Health, Part};
use super::inbox::{Ended, Grown, Inbox};
use super::ledger::Ledger;
use super::segment::{self, HEAD_BYTES, put_entry, put_life, put_synced};
use super::{EVENT_KIND, Options};
use crate::Entry;
use crate::lives::Life;
use crate::log::Store;

/// Room that is kept from one batch to the next.
const KEPT_ROOM: usize = 64 * 1024;
/// About so much is moved in one turn, because streams wait for it.
const MOVED_AT_ONCE: u64 = 256 * 1024;

pub(crate) struct EventWriter {
    /// Taken and being written, and what of it is; kept for their room.
    items: Vec<Item>,
    batch: Batch,
    queue: Arc<EventQueue>,
    inbox: Arc<Inbox>,
    health: Arc<Health>,
    dir: PathBuf,
    options: Options,
    ledger: Ledger,
    current: Current,
    logs: FxHashMap<u64, Weak<Store>>,
    /// Files that say nowhere that any of them was on disk.
    unmarked: BTreeSet<u64>,
    /// Since when writing fails, and what is not written since.
    failing: Option<Failing>,
    /// The journal is closed.
    sealed: bool,
}

struct Current {
    number: u64,
    file: Arc<File>,
    length: u64,
}

struct Failing {
    tried: Instant,
    seqs: Vec<u64>,
    ended: Vec<Ended>,
    /// Files whose sync failed: of these nothing counts any more.
    lost: BTreeSet<u64>,
}

impl Failing {
    fn misses(&mut self, seqs: impl IntoIterator<Item = u64>) {
        self.seqs.extend(seqs);
        self.seqs.sort_unstable();
        self.seqs.dedup();
    }
}

/// What a batch adds to the file: bytes, and whose they are.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    notes: Vec<(u64, u64, u64)>,
}

impl Writer for EventWriter {
    fn turn(&mut self) -> Turn {
        let began = Instant::now();
        self.write_what_came();
        Turn { took: began.elapsed(), failing: self.failing.is_some() }
    }

    fn seal(&mut self) {
        self.sealed = true;
        let (number, grown) = self.grown(true);
        self.inbox.after_sync(|work| drop(work.grown.insert(number, grown)));
    }
}

impl EventWriter {
    /// Begins a new file, `number`.
    pub(crate) fn new(
        queue: Arc<EventQueue>,
        inbox: Arc<Inbox>,
        health: Arc<Health>,
        dir: PathBuf,
        options: Options,
        mut ledger: Ledger,
        number: u64,
    ) -> io::Result<Self> {
        let current = begin(&dir, number, &options)?;
        ledger.open(number, HEAD_BYTES as u64);
        let (items, batch, logs, failing) = (Vec::new(), Batch::default(), FxHashMap::default(), None);
        let (unmarked, sealed) = (BTreeSet::from([number]), false);
        Ok(Self {
            items,
            batch,
            queue,
            inbox,
            health,
            dir,
            options,
            ledger,
            current,
            logs,
            unmarked,
            failing,
            sealed,
        })
    }

    fn write_what_came(&mut self) {
        if self.sealed {
            return;
        }
        let mut items = std::mem::take(&mut self.items);
        self.queue.take(&mut items);
        self.write_batch(&items);
        publish(&items);
        self.pass_on(items.drain(..));
        self.items = items;
        self.try_again();
        self.make_room();
    }

    fn write_batch(&mut self, items: &[Item]) {
        let mut batch = std::mem::take(&mut self.batch);
        for item in items {
            match item {
                Item::Entry { seq, log, at, entry } => {
                    // A log that was read back was told of before its first entry here.
                    if *at == 0 {
                        self.logs.entry(*seq).or_insert_with(|| Arc::downgrade(log));
                    }
                    batch.add(*seq, *at, log, entry);
                }
                Item::Restored { seq, log } => drop(self.logs.insert(*seq, Weak::clone(log))),
                Item::Synced { file, length } if *file == self.current.number => {
                    put_synced(&mut batch.bytes, *length);
                    self.unmarked.remove(file);
                }
                Item::Lost { file } => self.lose(*file),
                _ => {}
            }
        }
        if let Some(failing) = &mut self.failing {
            failing.misses(batch.notes.iter().map(|(seq, ..)| *seq));
        } else if let Err(error) = self.append(&batch) {
            self.fail(&error, batch.notes.iter().map(|(seq, ..)| *seq).collect());
        }
        self.batch = batch.emptied();
    }

    /// Writes a batch behind what is there. After an error the file is as before.
    fn append(&mut self, batch: &Batch) -> io::Result<()> {
        if batch.bytes.is_empty() {
            return Ok(());
        }
        self.options.space.check()?;
        let written = self.current.file.write_all_at(&batch.bytes, self.current.length);
        if let Err(error) = written {
            let _ = self.current.file.set_len(self.current.length);
            return Err(error);
        }
        self.current.length += batch.bytes.len() as u64;
        for (seq, at, bytes) in &batch.notes {
            self.ledger.note(self.current.number, *seq, *at, *bytes);
        }
        if !batch.notes.is_empty() {
            let (number, grown) = self.grown(false);
            self.inbox.after_sync(|work| drop(work.grown.insert(number, grown)));
        }
        if self.current.length >= self.options.file_bytes { self.rotate() } else { Ok(()) }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let next = begin(&self.dir, self.current.number + 1, &self.options)?;
        let (number, grown) = self.grown(true);
        self.inbox.after_sync(|work| drop(work.grown.insert(number, grown)));
        self.go_on_in(next);
        Ok(())
    }

    fn go_on_in(&mut self, next: Current) {
        self.ledger.open(next.number, HEAD_BYTES as u64);
        self.unmarked.insert(next.number);
        self.current = next;
    }

    fn grown(&self, sealed: bool) -> (u64, Grown) {
        let Current { number, file, length } = &self.current;
        (*number, Grown { file: Arc::clone(file), length: *length, sealed })
    }

    fn pass_on(&mut self, items: impl Iterator<Item = Item>) {
        let (mut ended, mut forgotten, mut let_go) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            match item {
                Item::Ended(task) => ended.push(task),
                Item::Forget { seq } => forgotten.push(seq),
                Item::LetGo { log } => let_go.push(log),
                Item::Entry { .. } | Item::Restored { .. } | Item::Synced { .. } | Item::Lost { .. } => {}
            }
        }
        for seq in &forgotten {
            self.logs.remove(seq);
            self.ledger.forget(*seq);
        }
        // Nothing here reads them any more.
        let_go.iter().for_each(|log| log.let_go());
        if let Some(failing) = &mut self.failing {
            // An end is recorded only when all its events are.
            failing.ended.append(&mut ended);
        }
        let idle = self.ledger.take_idle(self.current.number);
        for file in &idle {
            self.unmarked.remove(file);
        }
        if !(ended.is_empty() && forgotten.is_empty() && idle.is_empty()) {
            self.inbox.after_sync(|work| {
                work.ended.extend(ended);
                work.forgotten.extend(forgotten);
                work.idle.extend(idle);
            });
        }
    }

    fn fail(&mut self, error: &io::Error, seqs: Vec<u64>) {
        self.health.fails(Part::Events, error);
        let _failing = self.fails(seqs);
    }

    fn fails(&mut self, seqs: Vec<u64>) -> &mut Failing {
        let failing = self.failing.get_or_insert_with(|| Failing {
            tried: Instant::now(),
            seqs: Vec::new(),
            ended: Vec::new(),
            lost: BTreeSet::new(),
        });
        failing.tried = Instant::now();
        failing.misses(seqs);
        failing
    }

    /// Everything in a file is to be written to another one; the committer says that it cannot be written.
    fn lose(&mut self, file: u64) {
        let seqs = self.ledger.tasks_in(file);
        self.fails(seqs).lost.insert(file);
    }

    /// Once the disk takes writes again: every task that misses something, written anew as a whole.
    fn try_again(&mut self) {
        let due = |failing: &mut Failing| failing.tried.elapsed() >= RETRY_EVERY;
        let Some(failing) = self.failing.take_if(due) else { return };
        match self.write_anew(&failing) {
            Ok(()) => {
                self.health.works(Part::Events);
                failing.lost.iter().for_each(|file| self.is_elsewhere(*file));
                self.inbox.after_sync(|work| {
                    work.ended.extend(failing.ended);
                    work.rewritten.extend(failing.lost);
                });
            }
            Err(error) => {
                self.health.fails(Part::Events, &error);
                self.failing = Some(Failing { tried: Instant::now(), ..failing });
            }
        }
    }

    /// Of a lost file everything stands in others now. One of which nothing was ever on disk is worth nothing:
    /// while the disk refuses, such files must not pile up.
    fn is_elsewhere(&mut self, file: u64) {
        self.ledger.tasks_in(file).into_iter().for_each(|seq| self.ledger.moved(file, seq));
        if self.unmarked.contains(&file) {
            let path = self.dir.join(name(file, EVENT_KIND));
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "an event file that is not needed could not be removed");
            }
        }
    }

    fn write_anew(&mut self, failing: &Failing) -> io::Result<()> {
        if failing.lost.contains(&self.current.number) {
            let next = begin(&self.dir, self.current.number + 1, &self.options)?;
            self.go_on_in(next);
        }
        for seq in &failing.seqs {
            let Some(log) = self.logs.get(seq).and_then(Weak::upgrade) else { continue };
            let mut batch = Batch::default();
            (0..log.published.len()).for_each(|at| batch.add_of(*seq, at, &log));
            self.append(&batch)?;
        }
        // Nothing to write says nothing about the disk: a mark does.
        let mut mark = Batch::default();
        put_synced(&mut mark.bytes, 0);
        self.append(&mark)
    }

    /// Moves the little that keeps a file, so that it can be deleted.
    fn make_room(&mut self) {
        if self.failing.is_some() {
            return;
        }
        let slack = 4 * self.options.file_bytes;
        let Some((from, parts)) = self.ledger.worth_moving(self.current.number, slack, MOVED_AT_ONCE) else {
            return;
        };
        for (seq, part) in parts {
            let mut batch = Batch::default();
            if let Some(log) = self.logs.get(&seq).and_then(Weak::upgrade) {
                (part.first..=part.last).for_each(|at| batch.add_of(seq, at, &log));
                if let Err(error) = self.append(&batch) {
                    self.fail(&error, vec![seq]);
                    return;
                }
            }
            self.ledger.moved(from, seq);
        }
    }
}

impl Batch {
    /// The same room for the next one, unless this one was unusually large.
    fn emptied(mut self) -> Self {
        if self.bytes.capacity() > KEPT_ROOM {
            return Self::default();
        }
        self.bytes.clear();
        self.notes.clear();
        self
    }

    fn add_of(&mut self, seq: u64, at: u64, log: &Store) {
        if let Some(entry) = log.entry(at) {
            self.add(seq, at, log, &entry);
        }
    }

    fn add(&mut self, seq: u64, at: u64, log: &Store, entry: &Entry) {
        let before = self.bytes.len();
        for number in log.lives.beginning_at(at) {
            put_life(&mut self.bytes, seq, Life { number, start: at });
        }
        match put_entry(&mut self.bytes, seq, at, entry) {
            Ok(()) => self.notes.push((seq, at, (self.bytes.len() - before) as u64)),
            Err(error) => tracing::error!(%error, "an event cannot be written as JSON"),
        }
    }
}

/// Readers may see what was written; a log with several new entries wakes them once.
fn publish(items: &[Item]) {
    let mut last: Option<(&Arc<Store>, u64)> = None;
    for item in items {
        let Item::Entry { log, at, .. } = item else { continue };
        if let Some((before, len)) = last.filter(|(before, _)| !Arc::ptr_eq(before, log)) {
            before.publish(len);
        }
        last = Some((log, at + 1));
    }
    if let Some((log, len)) = last {
        log.publish(len);
    }
}

fn begin(dir: &std::path::Path, number: u64, options: &Options) -> io::Result<Current> {
    options.space.check()?;
    let path = dir.join(name(number, EVENT_KIND));
    let file = match new_file(&path) {
        // Left from an attempt that found no room for the head.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(&path)?;
            new_file(&path)
        }
        file => file,
    }?;
    file.write_all_at(&segment::head(), 0)?;
    Ok(Current { number, file: Arc::new(file), length: HEAD_BYTES as u64 })
}
