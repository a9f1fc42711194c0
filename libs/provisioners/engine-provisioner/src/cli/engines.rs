//! `list`, `verify` and `gc`: the engines of the cache, as a table or as JSON lines.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use provisioners_engine_provisioner::{Cancel, EngineStore, EnsureError, GcRules};

use super::models::show_unfinished;
use super::{VERIFICATION, print, print_json};

pub(super) fn list(cache: &Path, json: bool) -> u8 {
    let store = EngineStore::new(cache);
    let (engines, unfinished, builds) = (store.list(), store.unfinished_sources(), store.unfinished_builds());
    if json {
        engines.iter().for_each(print_json);
        unfinished.iter().for_each(|download| print_json(&serde_json::json!({ "unfinished": download })));
        builds.iter().for_each(|build| print_json(&serde_json::json!({ "unfinished_build": build })));
        return 0;
    }
    for download in &unfinished {
        show_unfinished(download, "unfinished", json);
    }
    for build in &builds {
        let now = if build.in_use { ", being built" } else { "" };
        print(&format!(
            "unfinished build {}  {}  last built {}{now}  {}\n",
            build.digest.get(..12).unwrap_or(&build.digest),
            size(build.bytes),
            ago(build.last_written_unix_ms),
            build.path.display()
        ));
    }
    if engines.is_empty() {
        print(&format!("no engine in {}\n", cache.join("engines").display()));
    }
    for engine in engines {
        let used = engine.last_used_unix_ms.map_or("never".to_owned(), ago);
        let running = match (engine.in_use, engine.binary.exists()) {
            (true, _) => ", running",
            (false, true) => "",
            (false, false) => ", not there any more",
        };
        print(&format!(
            "{}  {}  last used {used}{running}  from {}  {}\n",
            engine.version,
            size(engine.bytes),
            engine.source,
            engine.binary.display()
        ));
    }
    0
}

pub(super) fn verify(cache: &Path, json: bool, cancel: &Cancel) -> Result<u8, EnsureError> {
    let verdicts = EngineStore::new(cache).verify(cancel)?;
    if verdicts.is_empty() && !json {
        print(&format!("no engine in {}\n", cache.join("engines").display()));
    }
    let bad = verdicts.iter().any(|verdict| verdict.problem.is_some());
    for verdict in verdicts {
        match (&verdict.problem, json) {
            (_, true) => print_json(&verdict),
            (None, false) => print(&format!("{}  is what was built\n", verdict.version)),
            (Some(problem), false) => print(&format!("{}  {problem}\n", verdict.version)),
        }
    }
    Ok(if bad { VERIFICATION } else { 0 })
}

pub(super) fn gc(cache: &Path, rules: &GcRules, json: bool) -> u8 {
    let removals = EngineStore::new(cache).gc(rules);
    if removals.is_empty() && !json {
        print(&format!("nothing to remove in {}\n", cache.join("engines").display()));
    }
    let done = if rules.dry_run { "would be removed" } else { "removed" };
    for removal in &removals {
        if json {
            print_json(removal);
            continue;
        }
        let done =
            if removal.removed { format!("{done}, {}", size(removal.bytes)) } else { "kept".to_owned() };
        print(&format!("{}  {done}: {}\n", removal.what, removal.reason));
    }
    if rules.dry_run && !json {
        let bytes = removals.iter().map(|removal| removal.bytes).sum();
        print(&format!("nothing was removed; without --dry-run it would be {}\n", size(bytes)));
    }
    0
}

/// As `14.5 MiB`.
pub(super) fn size(bytes: u64) -> String {
    let tenths = |unit: u64| format!("{}.{}", bytes / unit, bytes % unit * 10 / unit);
    match bytes {
        0..1_048_576 => format!("{} KiB", tenths(1 << 10)),
        1_048_576..1_073_741_824 => format!("{} MiB", tenths(1 << 20)),
        _ => format!("{} GiB", tenths(1 << 30)),
    }
}

/// As `3 h ago`.
pub(super) fn ago(unix_ms: u64) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(unix_ms);
    let seconds = SystemTime::now().duration_since(at).map_or(0, |age| age.as_secs());
    match seconds {
        0..60 => "just now".to_owned(),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}
