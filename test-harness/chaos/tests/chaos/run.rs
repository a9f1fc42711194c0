//! One run of one bar: its chances, its machines, and what it found.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use test_harness_bdd::{Rig, until_within};

use crate::measure::{Found, Measure};

/// The last lines of a log that a failure shows.
const TAIL_LINES: usize = 40;

/// Longer than anything that is waited for without a promise.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often it is looked at: some of what is waited for is measured in tens of milliseconds.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What a bar is given.
pub(crate) struct Run {
    /// Full lengths.
    pub(crate) full: bool,
    chance: Mutex<u64>,
    measures: Mutex<Vec<Measure>>,
    machines: Mutex<Vec<Arc<Rig>>>,
}

impl Run {
    pub(crate) fn new(full: bool, seed: u64) -> Self {
        Self { full, chance: Mutex::new(seed), measures: Mutex::default(), machines: Mutex::default() }
    }

    /// A machine of its own: directories, a model, the built binaries. Its logs are kept for a failure.
    pub(crate) fn machine(&self) -> Result<Arc<Rig>> {
        let rig = Arc::new(Rig::new()?);
        locked(&self.machines).push(Arc::clone(&rig));
        Ok(rig)
    }

    /// One of the two, by how the bar is run.
    pub(crate) fn pick<T>(&self, fast: T, full: T) -> T {
        if self.full { full } else { fast }
    }

    /// A number below `end`, by the seed.
    pub(crate) fn chance(&self, end: u64) -> u64 {
        let mut state = locked(&self.chance);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = *state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % end.max(1)
    }

    pub(crate) fn time(&self, what: impl Into<String>, took: Duration, limit: Duration) {
        self.found(what, Found::Time { took, limit });
    }

    pub(crate) fn count(
        &self,
        what: impl Into<String>,
        found: usize,
        allowed: std::ops::RangeInclusive<usize>,
    ) {
        let (from, to) = (*allowed.start() as u64, *allowed.end() as u64);
        self.found(what, Found::Count { found: found as u64, from, to });
    }

    pub(crate) fn amount(&self, what: impl Into<String>, found: f64, most: f64, unit: &'static str) {
        self.found(what, Found::Amount { found, most, unit });
    }

    /// `seen` is shown either way.
    pub(crate) fn fact(&self, what: impl Into<String>, held: bool, seen: impl Into<String>) {
        self.found(what, Found::Fact { held, seen: seen.into() });
    }

    pub(crate) fn told(&self, what: impl Into<String>, seen: impl Into<String>) {
        self.found(what, Found::Told(seen.into()));
    }

    fn found(&self, what: impl Into<String>, found: Found) {
        locked(&self.measures).push(Measure { what: what.into(), found });
    }

    pub(crate) fn measures(&self) -> Vec<Measure> {
        locked(&self.measures).clone()
    }

    /// The ends of all logs of its machines.
    pub(crate) fn logs(&self) -> String {
        let mut text = String::new();
        for rig in locked(&self.machines).iter() {
            for log in logs_of(rig) {
                let said = String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned();
                // One line for each request of the bar itself says little.
                let told = |line: &&str| !line.contains("orchestratord::access");
                let lines: Vec<&str> = said.lines().filter(told).collect();
                let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
                text.push_str(&format!("--- {}\n{}\n", log.display(), tail.join("\n")));
            }
        }
        text
    }

    /// Ends what engines are left on its machines.
    pub(crate) fn clean_up(&self) {
        for rig in locked(&self.machines).iter() {
            rig.kill_engines();
        }
    }
}

fn logs_of(rig: &Rig) -> Vec<PathBuf> {
    let listed =
        |dir: PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = listed(rig.path("")).chain(listed(rig.path("runtime/run")));
    let mut logs: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
    logs.sort();
    logs
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks every two milliseconds until something is so, and says when that was.
pub(crate) async fn reached<F, Fut>(what: &str, holds: F) -> Result<Instant>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<bool>>,
{
    reached_within(what, PATIENCE, holds).await
}

/// The same with patience of its own. An error counts as not yet, and is told at the end.
pub(crate) async fn reached_within<F, Fut>(what: &str, patience: Duration, holds: F) -> Result<Instant>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<bool>>,
{
    until_within(what, patience, LOOK_EVERY, holds).await?;
    Ok(Instant::now())
}
