//! Downloads that broke off: kept so that they can go on, until nobody has continued them for so long that
//! nobody will.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use wire::SplitName;

use super::partial::{Whole, bytes_at};
use super::store::{Lock, Store, key};

/// A download that is not finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unfinished {
    /// What is fetched; empty where nothing says so any more.
    pub url: String,
    /// Where its bytes are.
    pub path: PathBuf,
    /// How many there are.
    pub bytes: u64,
    /// How many there will be, where that is known.
    pub bytes_total: Option<u64>,
    /// When the last of them came, milliseconds since 1970.
    pub last_written_unix_ms: u64,
    /// Somebody fetches it at the moment.
    pub in_use: bool,
}

impl Unfinished {
    /// Those below `dir` (`<cache>/models` or `<cache>/sources`), the oldest first.
    #[must_use]
    pub fn below(dir: &Path) -> Vec<Self> {
        let entries = std::fs::read_dir(dir.join(".partial")).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        let parts = paths.filter(|path| path.extension().is_some_and(|extension| extension == "part"));
        let mut all: Vec<Self> = parts.filter_map(|path| Self::at(dir, path)).collect();
        all.sort_by(|a, b| (a.last_written_unix_ms, &a.path).cmp(&(b.last_written_unix_ms, &b.path)));
        all
    }

    fn at(dir: &Path, path: PathBuf) -> Option<Self> {
        let meta = path.metadata().ok()?;
        let whole = Whole::read(&path.with_extension("json"));
        let bytes = bytes_at(&path);
        let written = meta.modified().ok()?;
        let (url, bytes_total) = whole.map_or((String::new(), None), |whole| (whole.url, whole.total));
        let in_use = locks(dir, &path, &url).is_none();
        let last_written_unix_ms = crate::provenance::unix_ms(written);
        Some(Self { url, path, bytes, bytes_total, last_written_unix_ms, in_use })
    }

    /// Removes those below `dir` that nobody has continued for `age`, and never one that is being fetched.
    /// Returns what went.
    ///
    /// # Errors
    /// The path that cannot be removed, and why.
    pub fn collect(dir: &Path, age: Duration) -> Result<Vec<Self>, (PathBuf, std::io::Error)> {
        let mut gone = Vec::new();
        for one in Self::below(dir) {
            // Under its locks nobody begins to continue it; whether it is old is looked at again there.
            let Some(_locks) = locks(dir, &one.path, &one.url) else { continue };
            let written = one.path.metadata().and_then(|meta| meta.modified());
            let idle = written.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
            if idle.is_none_or(|idle| idle < age) {
                continue;
            }
            std::fs::remove_file(&one.path).map_err(|error| (one.path.clone(), error))?;
            // Alone they say nothing; the next download replaces them.
            let _ = std::fs::remove_file(one.path.with_extension("json"));
            let _ = std::fs::remove_file(one.path.with_extension("pieces"));
            gone.push(one);
        }
        Ok(gone)
    }
}

/// The locks under which the file is fetched, if nobody holds one: its own, and of a split set that of the
/// first file.
fn locks(dir: &Path, path: &Path, url: &str) -> Option<Vec<Lock>> {
    let own = path.file_stem()?.to_str()?.to_owned();
    let first = url.rsplit_once('/').and_then(|(base, name)| {
        let first = SplitName::parse(name)?.all().next()?;
        Some(key(&format!("{base}/{first}")))
    });
    let store = Store::new(dir);
    let mut keys: Vec<String> = first.into_iter().chain([own]).collect();
    keys.dedup();
    keys.iter().map(|key| store.try_lock(key)).collect()
}
