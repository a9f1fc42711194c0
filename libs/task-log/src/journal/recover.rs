//! Opening a journal: everything is read and judged before anything is changed.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::value::RawValue;

use super::committer::Committer;
use super::error::JournalError;
use super::event_queue::{self, EventQueue, WriterLock};
use super::events::EventWriter;
use super::files::{name, numbered, private_dir, sync_dir};
use super::gaps::{self, Gap};
use super::health::Health;
use super::inbox::{Ended, Inbox};
use super::ledger::Ledger;
use super::prompts::{Places, Prompts};
use super::segment::{self, Damage, Found, HEAD_BYTES, RECORD_BYTES, Scan, put_synced};
use super::table::{Rows, Table};
use super::{EVENT_KIND, Inner, Journal, Opened, Options, now_ms};
use crate::Entry;
use crate::lives::Life;

/// A task that was read back.
#[derive(Debug)]
pub struct Recovered {
    /// Its number.
    pub seq: u64,
    /// As it was admitted.
    pub record: Box<RawValue>,
    /// Its prompt, unless it has ended; absent when it could not be read.
    pub prompt: Option<Vec<u8>>,
    /// Its events, from the first on.
    pub entries: Vec<Entry>,
    /// What is missing between those and others that are there, and are not among them; absent for one whose
    /// end is known.
    pub gap: Option<Gap>,
    /// How it ended; absent for one that waited or ran.
    pub end: Option<RecoveredEnd>,
}

/// How a task that was read back ended.
#[derive(Debug)]
pub struct RecoveredEnd {
    /// When.
    pub at: SystemTime,
    /// As it was recorded; absent when there was no time for it.
    pub summary: Option<Box<RawValue>>,
}

/// The files of a journal.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) table: PathBuf,
    pub(crate) events: PathBuf,
    pub(crate) prompts: PathBuf,
}

impl Layout {
    pub(crate) fn of(dir: &Path) -> Self {
        Self { table: dir.join("tasks.redb"), events: dir.join("events"), prompts: dir.join("prompts") }
    }
}

/// What the event files hold of the tasks that are known.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// By task, then by place. What was written last counts: a place is written again when what was
    /// there before was lost to other places' loss.
    pub(crate) of: BTreeMap<u64, BTreeMap<u64, Entry>>,
    /// By task, where the parts of later processes begin.
    pub(crate) lives: HashMap<u64, BTreeMap<u64, Life>>,
    /// By task, then by place, the file of what counts there.
    files: HashMap<u64, BTreeMap<u64, u64>>,
    pub(crate) ledger: Ledger,
    pub(crate) last_file: u64,
    pub(crate) last_seq: u64,
    /// Files that end with what a crash left, or without a mark that they are whole.
    unfinished: Vec<(u64, Scan)>,
}

pub(super) fn open(dir: &Path, options: Options) -> Result<Opened, JournalError> {
    let layout = Layout::of(dir);
    for path in [dir, &layout.events, &layout.prompts] {
        private_dir(path).map_err(|source| io_error("make", path, source))?;
    }
    let mut table = Table::open(layout.table.clone(), options.space.clone())?;
    let rows = table.rows()?;
    let events = read_events(&layout.events, &rows)?;
    missing(&layout.events, &rows, &events.of).next().map_or(Ok(()), Err)?;
    for (number, scan) in &events.unfinished {
        let path = layout.events.join(name(*number, EVENT_KIND));
        finish(&path, scan).map_err(|source| io_error("mend", &path, source))?;
    }
    let next_seq = rows.admitted.keys().next_back().copied().unwrap_or(0).max(events.last_seq) + 1;
    let prompts = prompts(&layout.prompts, &options, &rows, &events.of)
        .map_err(|source| io_error("read the prompts in", &layout.prompts, source))?;
    // Ends of tasks whose admission failed at the last moment.
    let orphans: Vec<u64> =
        rows.ended.keys().filter(|seq| !rows.admitted.contains_key(seq)).copied().collect();
    let tasks = tasks(&layout, rows, events.of, &events.lives);
    let lives = events.lives.into_iter().map(|(seq, of)| (seq, of.into_values().collect())).collect();
    let journal = start(&layout, options, table, prompts, events.ledger, events.last_file + 1, lives)
        .map_err(|source| io_error("write in", &layout.events, source))?;
    journal.inner.inbox.after_sync(|work| work.forgotten.extend(orphans));
    for task in tasks.iter().filter(|task| task.end.as_ref().is_some_and(|end| end.summary.is_none())) {
        let ended = Ended {
            seq: task.seq,
            events: task.entries.len() as u64,
            at_ms: now_ms(),
            summary: RawValue::NULL.to_owned(),
        };
        journal.inner.inbox.after_sync(|work| work.ended.push(ended));
    }
    Ok(Opened { journal, tasks, next_seq })
}

/// Reads all event files; damage that a crash cannot have left is an error.
pub(crate) fn read_events(dir: &Path, rows: &Rows) -> Result<Events, JournalError> {
    let files = numbered(dir, EVENT_KIND).map_err(|source| io_error("list", dir, source))?;
    let mut events = Events { last_file: files.last().copied().unwrap_or(0), ..Events::default() };
    for number in files {
        let path = dir.join(name(number, EVENT_KIND));
        let bytes = fs::read(&path).map_err(|source| io_error("read", &path, source))?;
        let scan = events.read(number, &bytes, rows);
        judge(&path, &scan)?;
        if scan.damage.is_some() || scan.synced as usize + RECORD_BYTES < scan.whole {
            events.unfinished.push((number, scan));
        }
    }
    events.let_go_of_the_lost();
    Ok(events)
}

impl Events {
    pub(crate) fn read(&mut self, number: u64, bytes: &[u8], rows: &Rows) -> Scan {
        let mut noted = HEAD_BYTES as u64;
        let scan = segment::scan(bytes, |seq, found| {
            self.last_seq = self.last_seq.max(seq);
            if !rows.admitted.contains_key(&seq) {
                return;
            }
            let (at, json) = match found {
                Found::Entry { at, json } => (at, json),
                Found::Life(life) => {
                    self.lives.entry(seq).or_default().insert(life.number, life);
                    return;
                }
            };
            self.files.entry(seq).or_default().insert(at, number);
            match serde_json::from_slice(json) {
                Ok(entry) => drop(self.of.entry(seq).or_default().insert(at, entry)),
                Err(error) => {
                    tracing::warn!(%error, task = seq, at, "an event in the journal cannot be read")
                }
            }
            let length = (json.len() + RECORD_BYTES) as u64;
            self.ledger.note(number, seq, at, length);
            noted += length;
        });
        self.ledger.open(number, (scan.whole as u64).saturating_sub(noted - HEAD_BYTES as u64));
        scan
    }

    /// To be called when all files are read. What an earlier process had written behind what a later one
    /// found is nobody's: the later one has put other events there, or will.
    pub(crate) fn let_go_of_the_lost(&mut self) {
        let files = std::mem::take(&mut self.files);
        for (seq, lives) in &self.lives {
            let (Some(events), Some(files)) = (self.of.get_mut(seq), files.get(seq)) else { continue };
            for life in lives.values() {
                // A process writes into no file from before its first one.
                let earlier = |at: &u64| files.get(at).is_some_and(|file| *file < life.number);
                events.retain(|at, _| *at < life.start || !earlier(at));
            }
        }
    }
}

/// The events of a task from the first to the first that is missing, or to its end.
pub(crate) fn in_a_row(events: BTreeMap<u64, Entry>) -> Vec<Entry> {
    let mut row: Vec<Entry> = Vec::with_capacity(events.len());
    for (at, entry) in events {
        if at != row.len() as u64 || row.last().is_some_and(Entry::is_terminal) {
            break;
        }
        row.push(entry);
    }
    row
}

fn judge(path: &Path, scan: &Scan) -> Result<(), JournalError> {
    match scan.damage {
        None => Ok(()),
        Some(Damage::Version(found)) => Err(JournalError::Version {
            path: path.to_owned(),
            found: found.into(),
            known: segment::VERSION.into(),
        }),
        Some(_) if scan.is_torn_tail() => Ok(()),
        Some(damage) => Err(JournalError::Damaged {
            path: path.to_owned(),
            offset: scan.whole as u64,
            what: damage.words(),
        }),
    }
}

/// The tasks that had ended and whose events are not all there.
pub(crate) fn missing<'a>(
    dir: &'a Path,
    rows: &'a Rows,
    events: &'a BTreeMap<u64, BTreeMap<u64, Entry>>,
) -> impl Iterator<Item = JournalError> + 'a {
    let found =
        move |seq: &u64| events.get(seq).map_or(0, |of| (0..).take_while(|at| of.contains_key(at)).count());
    let short = move |(seq, end): (&u64, &super::table::EndedRow)| {
        if !rows.admitted.contains_key(seq) {
            return None;
        }
        let found = found(seq) as u64;
        let (path, seq, expected) = (dir.to_owned(), *seq, end.events);
        (found < expected).then_some(JournalError::Missing { path, seq, expected, found })
    };
    rows.ended.iter().filter_map(short)
}

/// Cuts off what a crash left, and marks the rest as whole.
fn finish(path: &Path, scan: &Scan) -> io::Result<()> {
    if scan.whole < HEAD_BYTES {
        return fs::remove_file(path);
    }
    let file = OpenOptions::new().write(true).open(path)?;
    if let Some(damage) = scan.damage {
        let lost = file.metadata()?.len() - scan.whole as u64;
        tracing::warn!(
            file = %path.display(),
            offset = scan.whole,
            bytes = lost,
            what = damage.words(),
            "the end of an event file was torn by a crash and is cut off"
        );
        file.set_len(scan.whole as u64)?;
    }
    file.sync_all()?;
    let mut mark = Vec::new();
    put_synced(&mut mark, scan.whole as u64);
    file.write_all_at(&mark, scan.whole as u64)?;
    file.sync_all()
}

/// The prompts of tasks that go on; those of tasks that ended in a crash's last moment go now.
fn prompts(
    dir: &Path,
    options: &Options,
    rows: &Rows,
    events: &BTreeMap<u64, BTreeMap<u64, Entry>>,
) -> io::Result<Prompts> {
    // An end behind a gap has yet to be told, and is recorded then.
    let told = |seq: &u64| events.get(seq).is_some_and(|of| gaps::in_front(of).1);
    let ended = |seq: &u64| rows.ended.contains_key(seq) || told(seq);
    let files = numbered(dir, "prompts")?;
    let (over, live): (Vec<_>, Vec<_>) = rows.admitted.iter().partition(|(seq, _)| ended(seq));
    let mut spans: HashMap<_, _> = live.into_iter().map(|(seq, row)| (*seq, row.prompt)).collect();
    let taken = Places::of(spans.values());
    let mut gone = Vec::new();
    for (seq, row) in over {
        // Only what is still that prompt: its place may have been given to another one, and to one of
        // the same bytes.
        let own = !taken.overlap(&row.prompt) && files.contains(&row.prompt.file());
        if own && Prompts::read(dir, &row.prompt)?.is_some() {
            spans.insert(*seq, row.prompt);
            gone.push(*seq);
        }
    }
    let named = rows.admitted.values().map(|row| row.prompt.file()).max().unwrap_or(0);
    let mut prompts = Prompts::open(dir.to_owned(), options.space.clone(), spans, named)?;
    gone.into_iter().try_for_each(|seq| prompts.wipe(seq))?;
    Ok(prompts)
}

fn tasks(
    layout: &Layout,
    mut rows: Rows,
    mut events: BTreeMap<u64, BTreeMap<u64, Entry>>,
    lives: &HashMap<u64, BTreeMap<u64, Life>>,
) -> Vec<Recovered> {
    let admitted = std::mem::take(&mut rows.admitted);
    let task = |(seq, row): (u64, super::table::AdmittedRow)| {
        let found = events.remove(&seq).unwrap_or_default();
        let gap = gaps::gap(&found, lives.get(&seq));
        let entries = in_a_row(found);
        let recorded = rows.ended.remove(&seq).map(|row| RecoveredEnd {
            at: UNIX_EPOCH + Duration::from_millis(row.at_ms),
            summary: Some(row.summary),
        });
        let told = entries.last().is_some_and(Entry::is_terminal);
        let end = recorded.or_else(|| told.then(|| RecoveredEnd { at: SystemTime::now(), summary: None }));
        let prompt = match end {
            Some(_) => None,
            None => Prompts::read(&layout.prompts, &row.prompt).ok().flatten(),
        };
        let gap = gap.filter(|_| end.is_none());
        Recovered { seq, record: row.record, prompt, entries, gap, end }
    };
    admitted.into_iter().map(task).collect()
}

fn start(
    layout: &Layout,
    options: Options,
    table: Table,
    prompts: Prompts,
    ledger: Ledger,
    file: u64,
    lives: HashMap<u64, Vec<Life>>,
) -> io::Result<Journal> {
    let queue = Arc::<EventQueue>::default();
    let inbox = Arc::<Inbox>::default();
    let health = Arc::<Health>::default();
    let events = EventWriter::new(
        Arc::clone(&queue),
        Arc::clone(&inbox),
        Arc::clone(&health),
        layout.events.clone(),
        options.clone(),
        ledger,
        file,
    )?;
    sync_dir(&layout.events)?;
    let committer = Committer {
        inbox: Arc::clone(&inbox),
        events: Arc::clone(&queue),
        health: Arc::clone(&health),
        table,
        prompts,
        events_dir: layout.events.clone(),
        options,
        doubtful: Vec::new(),
        lost: Default::default(),
    };
    let writer = Arc::new(WriterLock::new(events));
    let (to_write, waiting) = (Arc::clone(&writer), Arc::clone(&queue));
    let threads = [
        spawn("journal-events", move || event_queue::run(&waiting, &to_write))?,
        spawn("journal-commit", || committer.run())?,
    ];
    Ok(Journal {
        inner: Arc::new(Inner {
            queue,
            writer,
            inbox,
            health,
            threads: Mutex::new(Some(threads)),
            life: file,
            lives: Mutex::new(lives),
        }),
    })
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

pub(crate) fn io_error(action: &'static str, path: &Path, source: io::Error) -> JournalError {
    JournalError::Io { action, path: path.to_owned(), source }
}
