//! What was accepted and how it ended, in redb: one transaction per group.
//!
//! redb because of what was tried it commits fastest in one file without a log to replay, and its
//! quick repair opens a store that was killed without walking it. Every call blocks.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::JournalError;
use super::files::private_file;
use super::prompts::Span;
use super::space::Space;

/// The version this code writes; it reads 1 to this one.
const VERSION: u64 = 1;
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const ADMITTED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("admitted");
const ENDED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("ended");

/// An accepted task as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AdmittedRow {
    pub(crate) prompt: Span,
    pub(crate) record: Box<RawValue>,
}

/// An ended task as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EndedRow {
    /// Milliseconds since the epoch.
    pub(crate) at_ms: u64,
    /// Events of it there are.
    pub(crate) events: u64,
    pub(crate) summary: Box<RawValue>,
}

/// What one transaction does; in this order.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) admitted: Vec<(u64, Vec<u8>)>,
    pub(crate) ended: Vec<(u64, Vec<u8>)>,
    pub(crate) forgotten: Vec<u64>,
}

/// Every row.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) admitted: BTreeMap<u64, AdmittedRow>,
    pub(crate) ended: BTreeMap<u64, EndedRow>,
}

/// The store.
#[derive(Debug)]
pub(crate) struct Table {
    path: PathBuf,
    space: Space,
    /// Absent after a failed commit: redb refuses a handle that has met an I/O error.
    database: Option<Database>,
}

impl Table {
    /// Opens the store, or makes an empty one.
    pub(crate) fn open(path: PathBuf, space: Space) -> Result<Self, JournalError> {
        let made = |source| JournalError::Io { action: "make", path: path.clone(), source };
        drop(private_file(&path).map_err(made)?);
        let database = match caught(|| Ok(Database::create(&path))) {
            Ok(created) => created.map_err(|error| unusable(&path, error))?,
            Err(error) => return Err(failed(&path, error)),
        };
        let mut table = Self { path, space, database: Some(database) };
        let found = caught(|| table.version()).map_err(|error| table.damaged(error))?;
        match found {
            Some(version) if !(1..=VERSION).contains(&version) => {
                Err(JournalError::Version { path: table.path.clone(), found: version, known: VERSION })
            }
            Some(_) => Ok(table),
            None => {
                table.commit(&Changes::default()).map_err(|error| table.damaged(error))?;
                Ok(table)
            }
        }
    }

    /// Reads everything.
    pub(crate) fn rows(&mut self) -> Result<Rows, JournalError> {
        caught(|| self.read()).map_err(|error| self.damaged(error))
    }

    /// Commits; durable when this returns. After an error nothing of it is certain, and the next
    /// call opens the store anew.
    pub(crate) fn commit(&mut self, changes: &Changes) -> Result<(), redb::Error> {
        self.space.check().map_err(redb::StorageError::Io)?;
        let (before, path) = (self.database.take(), &self.path);
        let committed = caught(|| {
            let database = match before {
                Some(database) => database,
                None => Database::create(path)?,
            };
            write(&database, changes)?;
            Ok(database)
        });
        self.database = Some(committed?);
        Ok(())
    }

    /// Asks redb whether every page is as it was written; repairs what it can.
    pub(crate) fn check(&mut self) -> Result<bool, JournalError> {
        let Some(mut database) = self.database.take() else {
            return Err(self.damaged(redb::Error::DatabaseClosed));
        };
        let checked = caught(|| {
            let sound = database.check_integrity()?;
            Ok((sound, database))
        });
        let (sound, database) = checked.map_err(|error| self.damaged(error))?;
        self.database = Some(database);
        Ok(sound)
    }

    fn version(&self) -> Result<Option<u64>, redb::Error> {
        let Some(database) = &self.database else { return Err(redb::Error::DatabaseClosed) };
        let read = database.begin_read()?;
        match read.open_table(META) {
            Ok(meta) => Ok(meta.get("version")?.map(|version| version.value())),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn read(&self) -> Result<Rows, redb::Error> {
        let Some(database) = &self.database else { return Err(redb::Error::DatabaseClosed) };
        let read = database.begin_read()?;
        let mut rows = Rows::default();
        for row in read.open_table(ADMITTED)?.iter()? {
            let (seq, row) = row?;
            rows.admitted.insert(seq.value(), parse(row.value())?);
        }
        for row in read.open_table(ENDED)?.iter()? {
            let (seq, row) = row?;
            rows.ended.insert(seq.value(), parse(row.value())?);
        }
        Ok(rows)
    }

    fn damaged(&self, source: redb::Error) -> JournalError {
        failed(&self.path, source)
    }
}

/// redb panics over some of what a disk or somebody may have done to its file. That is damage like any
/// other: it is told with the file's name, and must not take the journal's thread with it.
fn caught<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    let panicked = |_| redb::Error::Corrupted("redb gave up on what it found in it".to_owned());
    // What was worked on is not used again after a panic.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(panic)))
}

impl Drop for Table {
    /// Closing writes, too.
    fn drop(&mut self) {
        let database = self.database.take();
        let _ = caught(|| {
            drop(database);
            Ok(())
        });
    }
}

/// A disk that is full or refuses is no damage: nothing may be set aside for it.
fn failed(path: &Path, error: redb::Error) -> JournalError {
    let path = path.to_owned();
    match error {
        redb::Error::Io(source)
            if !matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            JournalError::Io { action: "open the store of tasks", path, source }
        }
        error => JournalError::Store { path, source: Box::new(error) },
    }
}

fn unusable(path: &Path, error: DatabaseError) -> JournalError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => JournalError::InUse { path: path.to_owned() },
        error => failed(path, error.into()),
    }
}

fn parse<'a, T: Deserialize<'a>>(row: &'a [u8]) -> Result<T, redb::Error> {
    serde_json::from_slice(row).map_err(|error| redb::Error::Corrupted(error.to_string()))
}

fn write(database: &Database, changes: &Changes) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    // A store that was killed opens at once.
    transaction.set_quick_repair(true);
    {
        transaction.open_table(META)?.insert("version", VERSION)?;
        let mut admitted = transaction.open_table(ADMITTED)?;
        let mut ended = transaction.open_table(ENDED)?;
        for (seq, row) in &changes.admitted {
            admitted.insert(seq, row.as_slice())?;
        }
        for (seq, row) in &changes.ended {
            ended.insert(seq, row.as_slice())?;
        }
        for seq in &changes.forgotten {
            admitted.remove(seq)?;
            ended.remove(seq)?;
        }
    }
    transaction.commit()?;
    Ok(())
}
