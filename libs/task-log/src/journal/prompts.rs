//! Where prompts lie while their tasks wait and run: beside the store, whose free pages would keep
//! them, and overwritten when their task has ended.
//!
//! The prompts of one group commit go into one file behind each other, because a disk that syncs
//! one file in 4 ms syncs a thousand files in a second and a thousand prompts in one file in 4 ms.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files::{name, new_file, numbered, sync_dir};
use super::space::Space;

const KIND: &str = "prompts";
/// A file that is larger than this takes no more.
const FULL_BYTES: u64 = 8 * 1024 * 1024;
const ZEROS: [u8; 4096] = [0; 4096];

/// Where a prompt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    file: u64,
    offset: u64,
    length: u64,
    crc: u32,
}

impl Span {
    pub(crate) fn file(&self) -> u64 {
        self.file
    }
}

/// Places that belong to somebody, and do not overlap each other.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// By file and first byte, the first byte behind it.
    ends: BTreeMap<(u64, u64), u64>,
}

impl Places {
    pub(crate) fn of<'a>(spans: impl IntoIterator<Item = &'a Span>) -> Self {
        let place = |span: &Span| ((span.file, span.offset), span.offset.saturating_add(span.length));
        Self { ends: spans.into_iter().filter(|span| span.length > 0).map(place).collect() }
    }

    /// Whether a byte of `span` belongs to one of them.
    pub(crate) fn overlap(&self, span: &Span) -> bool {
        let end = span.offset.saturating_add(span.length);
        let before = self.ends.range((span.file, 0)..(span.file, end)).next_back();
        before.is_some_and(|(_, taken)| *taken > span.offset)
    }
}

/// The files of prompts.
#[derive(Debug)]
pub(crate) struct Prompts {
    dir: PathBuf,
    space: Space,
    current: Option<Current>,
    next_file: u64,
    spans: HashMap<u64, Span>,
    /// Tasks whose prompts are in a file.
    live: HashMap<u64, u64>,
}

#[derive(Debug)]
struct Current {
    number: u64,
    file: File,
    length: u64,
}

impl Prompts {
    /// The prompts of the tasks in `spans`; files without any are removed. New files are numbered behind
    /// `named`, the last that any task speaks of: a place in a file that is gone is nobody else's.
    pub(crate) fn open(
        dir: PathBuf,
        space: Space,
        spans: HashMap<u64, Span>,
        named: u64,
    ) -> io::Result<Self> {
        let mut live = HashMap::new();
        spans.values().for_each(|span| *live.entry(span.file).or_insert(0) += 1);
        let files = numbered(&dir, KIND)?;
        for number in files.iter().filter(|number| !live.contains_key(number)) {
            fs::remove_file(dir.join(name(*number, KIND)))?;
        }
        let next_file = files.last().copied().unwrap_or(0).max(named) + 1;
        Ok(Self { dir, space, current: None, next_file, spans, live })
    }

    /// Reads a prompt; `None` when it is not what was written.
    pub(crate) fn read(dir: &Path, span: &Span) -> io::Result<Option<Vec<u8>>> {
        let file = File::open(dir.join(name(span.file, KIND)))?;
        if file.metadata()?.len() < span.offset.saturating_add(span.length) {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(span.length).unwrap_or_default()];
        file.read_exact_at(&mut bytes, span.offset)?;
        Ok((crc32fast::hash(&bytes) == span.crc).then_some(bytes))
    }

    /// Writes the prompts of a group; they are on disk when this returns. After an error none is
    /// there.
    pub(crate) fn add(&mut self, group: &[(u64, &[u8])]) -> io::Result<Vec<Span>> {
        self.space.check()?;
        let current = self.current()?;
        let (number, mut offset) = (current.number, current.length);
        let mut bytes = Vec::with_capacity(group.iter().map(|(_, prompt)| prompt.len()).sum());
        let mut spans = Vec::with_capacity(group.len());
        for (_, prompt) in group {
            let (length, crc) = (prompt.len() as u64, crc32fast::hash(prompt));
            spans.push(Span { file: number, offset, length, crc });
            offset += length;
            bytes.extend_from_slice(prompt);
        }
        let written =
            current.file.write_all_at(&bytes, current.length).and_then(|()| current.file.sync_data());
        if let Err(error) = written {
            let _ = current.file.set_len(current.length);
            return Err(error);
        }
        current.length = offset;
        for ((seq, _), span) in group.iter().zip(&spans) {
            self.spans.insert(*seq, *span);
            *self.live.entry(number).or_insert(0) += 1;
        }
        Ok(spans)
    }

    /// Overwrites a prompt whose task is over, and gives up its file with the last one.
    pub(crate) fn wipe(&mut self, seq: u64) -> io::Result<()> {
        let Some(span) = self.spans.remove(&seq) else { return Ok(()) };
        let path = self.dir.join(name(span.file, KIND));
        let left = self.live.get_mut(&span.file).map_or(0, |live| {
            *live -= 1;
            *live
        });
        if left > 0 {
            return overwrite(&fs::OpenOptions::new().write(true).open(path)?, &span);
        }
        self.live.remove(&span.file);
        match &mut self.current {
            Some(current) if current.number == span.file => {
                overwrite(&current.file, &span)?;
                current.file.set_len(0)?;
                current.length = 0;
                Ok(())
            }
            _ => {
                overwrite(&fs::OpenOptions::new().write(true).open(&path)?, &span)?;
                fs::remove_file(path)
            }
        }
    }

    fn current(&mut self) -> io::Result<&mut Current> {
        if self.current.as_ref().is_some_and(|current| current.length >= FULL_BYTES) {
            self.current = None;
        }
        if self.current.is_none() {
            let number = self.next_file;
            let file = new_file(&self.dir.join(name(number, KIND)))?;
            self.next_file += 1;
            sync_dir(&self.dir)?;
            self.current = Some(Current { number, file, length: 0 });
        }
        self.current.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn overwrite(file: &File, span: &Span) -> io::Result<()> {
    let (mut at, end) = (span.offset, span.offset + span.length);
    while at < end {
        let step = (end - at).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..step as usize], at)?;
        at += step;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_bytes(dir: &Path) -> Vec<u8> {
        let files = fs::read_dir(dir).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
        files.flatten().collect()
    }

    /// ORCHD-JOURNAL-004
    #[test]
    fn a_prompt_is_read_back_and_leaves_no_byte_when_its_task_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut prompts = Prompts::open(dir.path().to_owned(), Space::default(), HashMap::new(), 0).unwrap();
        let long = vec![b'l'; 10_000];
        let spans = prompts.add(&[(1, b"first"), (2, &long), (3, b"third")]).unwrap();
        assert_eq!(Prompts::read(dir.path(), &spans[1]).unwrap().unwrap(), long);
        prompts.wipe(2).unwrap();
        assert!(!all_bytes(dir.path()).contains(&b'l'));
        assert_eq!(Prompts::read(dir.path(), &spans[1]).unwrap(), None, "what was overwritten is no prompt");
        assert_eq!(Prompts::read(dir.path(), &spans[2]).unwrap().unwrap(), b"third");
        prompts.wipe(1).unwrap();
        prompts.wipe(3).unwrap();
        prompts.wipe(3).unwrap();
        assert!(all_bytes(dir.path()).is_empty());
        let again = prompts.add(&[(4, b"fourth")]).unwrap();
        assert_eq!(Prompts::read(dir.path(), &again[0]).unwrap().unwrap(), b"fourth");
    }

    #[test]
    fn a_restart_keeps_the_files_of_live_tasks_only() {
        let dir = tempfile::tempdir().unwrap();
        let open = |spans| Prompts::open(dir.path().to_owned(), Space::default(), spans, 0).unwrap();
        let span = open(HashMap::new()).add(&[(1, b"one")]).unwrap()[0];
        let mut prompts = open(HashMap::from([(1, span)]));
        prompts.add(&[(2, b"two")]).unwrap();
        assert_eq!(numbered(dir.path(), KIND).unwrap(), [1, 2]);
        prompts.wipe(1).unwrap();
        assert_eq!(numbered(dir.path(), KIND).unwrap(), [2]);
        open(HashMap::new());
        assert!(numbered(dir.path(), KIND).unwrap().is_empty());
    }

    #[test]
    fn a_number_that_a_task_speaks_of_is_not_given_to_a_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut prompts = Prompts::open(dir.path().to_owned(), Space::default(), HashMap::new(), 7).unwrap();
        assert_eq!(prompts.add(&[(1, b"one")]).unwrap()[0].file(), 8);
    }

    #[test]
    fn places_overlap_where_they_share_a_byte() {
        let span = |file, offset, length| Span { file, offset, length, crc: 0 };
        let places = Places::of(&[span(1, 10, 10), span(1, 10, 0), span(1, 30, 5), span(2, 0, 5)]);
        let yes = [span(1, 10, 10), span(1, 0, 11), span(1, 19, 1), span(1, 0, 100), span(1, 34, 9)];
        let no = [span(1, 0, 10), span(1, 20, 10), span(1, 35, 5), span(2, 5, 5), span(3, 10, 10)];
        yes.iter().for_each(|span| assert!(places.overlap(span), "{span:?}"));
        no.iter().for_each(|span| assert!(!places.overlap(span), "{span:?}"));
    }
}
