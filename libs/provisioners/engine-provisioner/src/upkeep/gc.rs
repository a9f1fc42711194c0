//! What may go of a cache, and why the rest stays. Looks again at each thing under its lock before it removes it.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use provisioners_model_provisioner::{InUse, Unfinished};
use serde::Serialize;

use super::{EngineEntry, EngineStore, UnfinishedBuild, age, materials, size_below};

/// What became of one engine, or of the rest of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removal {
    /// Which: a version, or the directory of an unfinished build.
    pub what: String,
    /// Whether it is gone, or would be.
    pub removed: bool,
    /// Why it is gone or still there.
    pub reason: String,
    /// Room that was made.
    pub bytes: u64,
}

/// What may go.
#[derive(Debug, Clone, Copy)]
pub struct GcRules {
    /// So many of the last used engines stay, and what they were built from.
    pub keep: usize,
    /// What was begun and not finished goes when nobody has continued it for so long.
    pub unfinished: Duration,
    /// Nothing is removed, and it is said what would be.
    pub dry_run: bool,
}

impl GcRules {
    /// Removes what nobody continued for a week.
    #[must_use]
    pub fn keeping(keep: usize) -> Self {
        Self { keep, unfinished: ABANDONED, dry_run: false }
    }

    fn act(&self, remove: impl FnOnce() -> std::io::Result<()>) -> std::io::Result<()> {
        if self.dry_run { Ok(()) } else { remove() }
    }
}

/// An engine that was handed out this recently may be about to start.
const JUST_ISSUED: Duration = Duration::from_secs(600);
/// An unfinished build is continued when somebody tries again; after this nobody will.
const ABANDONED: Duration = Duration::from_secs(7 * 24 * 3600);

impl EngineStore {
    /// Removes all but the last used, and never one that runs, that is being built or that was
    /// handed out in the last ten minutes; also what is known of binaries that are not there any more, which do
    /// not count, what builds left that nobody continued, and the sources and tools that neither an engine that
    /// stays was built with nor an unfinished build goes on with.
    #[must_use]
    pub fn gc(&self, rules: &GcRules) -> Vec<Removal> {
        let (here, gone): (Vec<_>, Vec<_>) = self.list().into_iter().partition(|entry| entry.binary.exists());
        let mut out: Vec<_> = here
            .iter()
            .enumerate()
            .map(|(rank, entry)| self.judge(entry, rank < rules.keep, rules))
            .collect();
        let stay = here.iter().zip(&out).filter(|(_, removal)| !removal.removed);
        let stay: Vec<String> = stay.map(|(entry, _)| entry.digest.clone()).collect();
        out.extend(gone.iter().map(|entry| self.forget(entry, rules)));
        let builds = self.abandoned(rules);
        let finished = |build: &UnfinishedBuild| {
            builds.iter().any(|removal| removal.removed && build.path.ends_with(&removal.what))
        };
        let goes_on = self.unfinished_builds().iter().any(|build| !finished(build));
        out.extend(builds);
        out.extend(self.abandoned_sources(rules));
        out.extend(materials::collect(&self.store, &self.cache(), &stay, goes_on, rules.dry_run));
        out
    }

    fn abandoned_sources(&self, rules: &GcRules) -> Vec<Removal> {
        let reason = format!("a download that nobody continued for {}", days(rules.unfinished));
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let idle = |one: &Unfinished| {
            let at = UNIX_EPOCH + Duration::from_millis(one.last_written_unix_ms);
            !one.in_use && age(at) >= rules.unfinished
        };
        let collected = match rules.dry_run {
            true => Ok(self.unfinished_sources().into_iter().filter(idle).collect()),
            false => Unfinished::collect(&self.sources, rules.unfinished),
        };
        let gone: Vec<Unfinished> = match collected {
            Ok(gone) => gone,
            Err((path, error)) => {
                let reason = format!("it cannot be removed: {error}");
                return vec![Removal { what: name(&path), removed: false, reason, bytes: 0 }];
            }
        };
        let mut out: Vec<Removal> = gone
            .into_iter()
            .map(|one| Removal { what: one.url, removed: true, reason: reason.clone(), bytes: one.bytes })
            .collect();
        out.extend(left_below(&self.sources, &[".new-"], "a source that was not unpacked to its end", rules));
        // Beside the stores, where bundles are unpacked and tried.
        out.extend(left_below(
            &self.cache(),
            &[".import-", ".export-"],
            "a bundle that was not taken in or packed to its end",
            rules,
        ));
        out
    }

    /// Removes an engine without a binary.
    fn forget(&self, entry: &EngineEntry, rules: &GcRules) -> Removal {
        let reason = format!("its binary {} is not there any more", entry.binary.display());
        let bytes = size_below(&self.store.engine_dir(&entry.digest));
        let removal =
            |removed, reason, bytes| Removal { what: entry.version.clone(), removed, reason, bytes };
        let Some(_lock) = self.store.try_lock(&entry.digest) else {
            return removal(false, "it is being built".to_owned(), 0);
        };
        match rules.act(|| self.store.remove(&entry.digest)) {
            Ok(()) => removal(true, reason, bytes),
            Err(error) => removal(false, format!("it cannot be removed: {error}"), 0),
        }
    }

    fn judge(&self, entry: &EngineEntry, among_the_kept: bool, rules: &GcRules) -> Removal {
        let kept = |reason: &str| Removal {
            what: entry.version.clone(),
            removed: false,
            reason: reason.to_owned(),
            bytes: 0,
        };
        let just_issued = self.store.last_used(&entry.digest).is_some_and(|at| age(at) < JUST_ISSUED);
        // Looked at again: an engine may have started since the list was made.
        let dir = self.store.engine_dir(&entry.digest);
        if entry.in_use || InUse::below(&dir).has(&dir) {
            return kept("a process runs it");
        } else if among_the_kept {
            return kept("among the last used");
        } else if just_issued {
            return kept("it was handed out in the last ten minutes");
        }
        let Some(_lock) = self.store.try_lock(&entry.digest) else { return kept("it is being built") };
        let bytes = size_below(&dir);
        match rules.act(|| self.store.remove(&entry.digest)) {
            Ok(()) => Removal { removed: true, bytes, ..kept("not among the last used") },
            Err(error) => kept(&format!("it cannot be removed: {error}")),
        }
    }

    fn abandoned(&self, rules: &GcRules) -> Vec<Removal> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| self.abandoned_build(&entry, rules)).collect()
    }

    fn abandoned_build(&self, entry: &std::fs::DirEntry, rules: &GcRules) -> Option<Removal> {
        let name = entry.file_name().into_string().ok()?;
        let digest = [".build-", ".old-", ".new-"].iter().find_map(|prefix| name.strip_prefix(prefix))?;
        let modified = entry.metadata().and_then(|meta| meta.modified()).ok()?;
        let _lock = self.store.try_lock(digest).filter(|_| age(modified) >= rules.unfinished)?;
        let bytes = size_below(&entry.path());
        let removed = rules.act(|| std::fs::remove_dir_all(entry.path())).is_ok();
        let reason = format!("an unfinished build that nobody continued for {}", days(rules.unfinished));
        Some(Removal { what: name, removed, reason, bytes })
    }
}

/// Removes directories that a program which was killed left in `dir`; one that lives is done within minutes.
fn left_below(dir: &Path, prefixes: &[&str], reason: &str, rules: &GcRules) -> Vec<Removal> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let old = entry.metadata().and_then(|meta| meta.modified()).is_ok_and(|at| age(at) > ABANDONED);
        let what = entry.file_name().to_string_lossy().into_owned();
        if old && prefixes.iter().any(|prefix| what.starts_with(prefix)) {
            let bytes = size_below(&entry.path());
            let removed = rules.act(|| std::fs::remove_dir_all(entry.path())).is_ok();
            out.push(Removal { what, removed, reason: reason.to_owned(), bytes });
        }
    }
    out
}

fn days(length: Duration) -> String {
    match length.as_secs() / (24 * 3600) {
        7 => "a week".to_owned(),
        days => format!("{days} days"),
    }
}
