//! The format of an event file: a head, then records with their own length and checksum.
//!
//! A `synced` record says up to which byte the file had reached the disk when it was written. What
//! is damaged before such a byte was lost by the disk or changed by somebody; what is damaged
//! behind the last one is what a crash leaves, and is cut off. Does no I/O.

use crate::Entry;
use crate::lives::Life;

/// The version this code writes; it reads 1 to this one.
pub(crate) const VERSION: u32 = 1;
/// Bytes of the head.
pub(crate) const HEAD_BYTES: usize = 16;
/// Bytes of a record around its payload.
pub(crate) const RECORD_BYTES: usize = 4 + 4 + 4 + BODY_HEAD_BYTES;

const MAGIC: [u8; 8] = *b"llorlog\0";
const RECORD: [u8; 4] = *b"\xf1rec";
const BODY_HEAD_BYTES: usize = 1 + 8 + 8;
/// A log holds at most 16 MiB by default; more than this is no record of ours.
const MAX_BODY_BYTES: usize = 1 << 30;
const ENTRY: u8 = 1;
const SYNCED: u8 = 2;
/// Programs that do not know it pass over it, so it needed no new version.
const LIFE: u8 = 3;

/// What is written of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// An entry and its place.
    Entry { at: u64, json: &'a [u8] },
    /// From this place on it is a later process that says.
    Life(Life),
}

/// The head of a new file.
pub(crate) fn head() -> [u8; HEAD_BYTES] {
    head_of(VERSION)
}

fn head_of(version: u32) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&version.to_le_bytes());
    let crc = crc32fast::hash(&head[..12]);
    head[12..].copy_from_slice(&crc.to_le_bytes());
    head
}

/// Appends the record of one entry to a buffer.
pub(crate) fn put_entry(out: &mut Vec<u8>, seq: u64, at: u64, entry: &Entry) -> serde_json::Result<()> {
    let start = out.len();
    begin(out, ENTRY, seq, at);
    let written = entry.put_json(out);
    if written.is_err() {
        out.truncate(start);
    } else {
        finish(out, start);
    }
    written
}

/// Appends the record of an entry that is JSON already.
pub(crate) fn put_json(out: &mut Vec<u8>, seq: u64, at: u64, json: &[u8]) {
    let start = out.len();
    begin(out, ENTRY, seq, at);
    out.extend_from_slice(json);
    finish(out, start);
}

/// Appends the record that says where a process's part of a log begins.
pub(crate) fn put_life(out: &mut Vec<u8>, seq: u64, life: Life) {
    let start = out.len();
    begin(out, LIFE, seq, life.start);
    out.extend_from_slice(&life.number.to_le_bytes());
    finish(out, start);
}

/// Appends the record that says that the file was on disk up to `offset`.
pub(crate) fn put_synced(out: &mut Vec<u8>, offset: u64) {
    let start = out.len();
    begin(out, SYNCED, 0, offset);
    finish(out, start);
}

fn begin(out: &mut Vec<u8>, kind: u8, seq: u64, at: u64) {
    out.extend_from_slice(&RECORD);
    out.extend_from_slice(&[0; 8]);
    out.push(kind);
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(&at.to_le_bytes());
}

fn finish(out: &mut [u8], start: usize) {
    let body = start + 12;
    let length = (out.len() - body) as u32;
    out[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    let crc = crc32fast::hash(&out[body..]);
    out[start + 8..body].copy_from_slice(&crc.to_le_bytes());
}

/// What a file holds.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Bytes from the start that are whole.
    pub(crate) whole: usize,
    /// The last byte that was on disk for certain, going by every record that can be read.
    pub(crate) synced: u64,
    /// What stands at `whole` when that is not the end.
    pub(crate) damage: Option<Damage>,
}

/// A place that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    /// The head is not there or not ours.
    Head,
    /// A later version wrote it.
    Version(u32),
    /// The file ends within a record.
    Short,
    /// A record's bytes are not what they were when it was written.
    Checksum,
    /// No record begins here.
    NoRecord,
}

impl Damage {
    pub(crate) fn words(self) -> String {
        match self {
            Self::Head => "it does not begin as an event file".to_owned(),
            Self::Version(found) => {
                format!("it has version {found} and this program reads 1 to {VERSION}")
            }
            Self::Short => "it ends in the middle of a record".to_owned(),
            Self::Checksum => "a record does not match its checksum".to_owned(),
            Self::NoRecord => "no record begins there".to_owned(),
        }
    }
}

impl Scan {
    /// Damage, and what stands behind it: only its marks count.
    fn stops(&mut self, damage: Damage, beyond: &[u8]) {
        self.damage = Some(damage);
        salvage(beyond, |record| {
            if record.kind == SYNCED {
                self.synced = self.synced.max(record.at);
            }
        });
    }

    /// Whether the damage is only what a crash leaves behind.
    pub(crate) fn is_torn_tail(&self) -> bool {
        match self.damage {
            None | Some(Damage::Version(_)) => false,
            Some(_) => self.synced <= self.whole as u64,
        }
    }
}

/// Reads a file; every whole record of a task before the damage goes to `found`, with the task.
pub(crate) fn scan(bytes: &[u8], mut found: impl FnMut(u64, Found<'_>)) -> Scan {
    let mut scan = Scan::default();
    if let Err(damage) = check_head(bytes) {
        scan.stops(damage, bytes);
        return scan;
    }
    scan.whole = HEAD_BYTES;
    loop {
        match record(&bytes[scan.whole..]) {
            Ok(None) => return scan,
            Ok(Some((record, length))) => {
                match record.kind {
                    SYNCED => scan.synced = scan.synced.max(record.at),
                    // What is none is of a later version that needed no new version number.
                    _ => record.of_a_task().into_iter().for_each(|it| found(record.seq, it)),
                }
                scan.whole += length;
            }
            Err(damage) => {
                let beyond = &bytes[scan.whole..];
                scan.stops(damage, beyond);
                return scan;
            }
        }
    }
}

/// Every whole record of a task wherever it stands: for repairs.
pub(crate) fn salvage_tasks(bytes: &[u8], mut found: impl FnMut(u64, Found<'_>)) {
    salvage(bytes, |record| record.of_a_task().into_iter().for_each(|it| found(record.seq, it)));
}

fn salvage(bytes: &[u8], mut found: impl FnMut(&Record<'_>)) {
    let mut at = 0;
    while let Some(next) = bytes[at..].windows(RECORD.len()).position(|window| window == RECORD) {
        at += next;
        match record(&bytes[at..]) {
            Ok(Some((record, length))) => {
                found(&record);
                at += length;
            }
            _ => at += 1,
        }
    }
}

struct Record<'a> {
    kind: u8,
    seq: u64,
    at: u64,
    payload: &'a [u8],
}

impl<'a> Record<'a> {
    fn of_a_task(&self) -> Option<Found<'a>> {
        match self.kind {
            ENTRY => Some(Found::Entry { at: self.at, json: self.payload }),
            LIFE => {
                let number = u64::from_le_bytes(*self.payload.first_chunk()?);
                Some(Found::Life(Life { number, start: self.at }))
            }
            _ => None,
        }
    }
}

fn check_head(bytes: &[u8]) -> Result<(), Damage> {
    let Some(head) = bytes.first_chunk::<HEAD_BYTES>() else { return Err(Damage::Short) };
    let version = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    if *head != head_of(version) {
        return Err(Damage::Head);
    }
    if (1..=VERSION).contains(&version) { Ok(()) } else { Err(Damage::Version(version)) }
}

/// The record at the start of `bytes` and its length; `None` at the end.
fn record(bytes: &[u8]) -> Result<Option<(Record<'_>, usize)>, Damage> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let known = bytes.len().min(RECORD.len());
    if bytes[..known] != RECORD[..known] {
        return Err(Damage::NoRecord);
    }
    let Some(head) = bytes.first_chunk::<12>() else { return Err(Damage::Short) };
    let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    let crc = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    if !(BODY_HEAD_BYTES..=MAX_BODY_BYTES).contains(&length) {
        return Err(Damage::NoRecord);
    }
    let Some(body) = bytes.get(12..12 + length) else { return Err(Damage::Short) };
    if crc32fast::hash(body) != crc {
        return Err(Damage::Checksum);
    }
    let number = |from: usize| body[from..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let record = Record { kind: body[0], seq: number(1), at: number(9), payload: &body[BODY_HEAD_BYTES..] };
    Ok(Some((record, 12 + length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use wire::{EngineChunk, RawJson};

    fn entry(text: &str) -> Entry {
        let raw = Some(RawJson::parse("{\"a\": 1}").unwrap());
        let chunk = EngineChunk { text: text.to_owned(), tokens: vec![7], raw, ..EngineChunk::default() };
        Entry::Chunk { chunk, index: Some(3), decode_ms: None }
    }

    /// Two entries, synced, one more.
    fn file() -> (Vec<u8>, u64) {
        let mut bytes = head().to_vec();
        put_entry(&mut bytes, 5, 0, &entry("a")).unwrap();
        put_entry(&mut bytes, 6, 0, &entry("\u{1F980}\r\n")).unwrap();
        let synced = bytes.len() as u64;
        put_synced(&mut bytes, synced);
        put_life(&mut bytes, 5, Life { number: 9, start: 1 });
        put_entry(&mut bytes, 5, 1, &entry("c")).unwrap();
        (bytes, synced)
    }

    fn read(bytes: &[u8]) -> (Vec<(u64, u64)>, Scan) {
        let mut seen = Vec::new();
        let scan = scan(bytes, |seq, found| match found {
            Found::Entry { at, json } => {
                serde_json::from_slice::<Entry>(json).unwrap();
                seen.push((seq, at));
            }
            Found::Life(life) => assert_eq!((seq, life), (5, Life { number: 9, start: 1 })),
        });
        (seen, scan)
    }

    #[test]
    fn what_was_written_is_read() {
        let (bytes, synced) = file();
        let (seen, scan) = read(&bytes);
        assert_eq!(seen, [(5, 0), (6, 0), (5, 1)]);
        assert_eq!((scan.damage, scan.whole, scan.synced), (None, bytes.len(), synced));
    }

    /// ORCHD-JOURNAL-006
    #[test]
    fn a_file_cut_at_any_byte_is_read_up_to_there() {
        let (bytes, _) = file();
        for cut in 0..bytes.len() {
            let (seen, scan) = read(&bytes[..cut]);
            assert!(scan.whole <= cut && seen.len() <= 3, "{cut}");
            // Cut between two records there is nothing to see.
            assert!(scan.damage.is_none() || scan.is_torn_tail(), "{cut}: {scan:?}");
            assert_eq!(scan.damage.is_none(), scan.whole == cut && cut >= HEAD_BYTES, "{cut}");
        }
    }

    /// ORCHD-JOURNAL-007
    #[test]
    fn a_byte_changed_before_the_synced_mark_is_corruption_and_behind_it_a_torn_tail() {
        let (bytes, synced) = file();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            let (_, scan) = read(&changed);
            assert!(scan.damage.is_some() && scan.whole <= at, "{at}: {scan:?}");
            let before = (at as u64) < synced;
            assert_eq!(!scan.is_torn_tail(), before, "{at}: {scan:?}");
        }
    }

    #[test]
    fn a_later_version_is_named_and_never_cut() {
        let mut bytes = head_of(9).to_vec();
        bytes.extend_from_slice(b"what a later version writes");
        let (_, scan) = read(&bytes);
        assert_eq!((scan.damage, scan.is_torn_tail()), (Some(Damage::Version(9)), false));
    }

    proptest! {
        /// Whatever the bytes are, reading ends, stays within them and finds only whole records.
        #[test]
        fn arbitrary_bytes_are_read_without_harm(
            noise in proptest::collection::vec(any::<u8>(), 0..300),
            at in 0..400_usize,
            replace in any::<bool>(),
        ) {
            let (mut bytes, _) = file();
            let at = at.min(bytes.len());
            if replace { bytes.truncate(at); }
            bytes.splice(at..at, noise);
            let mut seen = 0;
            let found = scan(&bytes, |_, _| seen += 1);
            prop_assert!(found.whole <= bytes.len() && seen <= 4);
            let mut salvaged = 0;
            salvage_tasks(&bytes, |_, _| salvaged += 1);
            prop_assert!(salvaged >= seen && salvaged <= 4);
        }
    }
}
