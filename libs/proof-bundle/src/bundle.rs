//! The directory of one run, and what may be put there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::facts;

/// What kind of run it was; the middle part of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the project's words for its suites")]
pub enum Kind {
    Unit,
    Integration,
    Bdd,
    Determinism,
    Chaos,
    E2e,
}

/// Where bundles go, and what a run is called.
#[derive(Debug, Clone, Default)]
pub struct Root {
    /// Instead of `<crate>/.proof_bundle` (`LLORCH_PROOF_DIR`).
    pub dir: Option<PathBuf>,
    /// Instead of what the caller says (`LLORCH_RUN_ID`).
    pub run_id: Option<String>,
}

/// The evidence of one run.
#[derive(Debug)]
pub struct ProofBundle {
    dir: PathBuf,
    metadata: Value,
    events: File,
}

impl Kind {
    /// The directory's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Integration => "integration",
            Self::Bdd => "bdd",
            Self::Determinism => "determinism",
            Self::Chaos => "chaos",
            Self::E2e => "e2e",
        }
    }
}

impl Root {
    /// As `LLORCH_PROOF_DIR` and `LLORCH_RUN_ID` say.
    #[must_use]
    pub fn from_env() -> Self {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self { dir: set("LLORCH_PROOF_DIR").map(PathBuf::from), run_id: set("LLORCH_RUN_ID") }
    }
}

impl ProofBundle {
    /// Begins a bundle where the environment says, else in the crate. Without a run id it gets a
    /// time-ordered one. Pass `env!("CARGO_MANIFEST_DIR")` as `crate_dir`.
    pub fn create(crate_dir: impl AsRef<Path>, kind: Kind, run_id: Option<&str>) -> io::Result<Self> {
        Self::create_in(&Root::from_env(), crate_dir, kind, run_id)
    }

    /// [`ProofBundle::create`] with the environment as a value.
    pub fn create_in(
        root: &Root,
        crate_dir: impl AsRef<Path>,
        kind: Kind,
        run_id: Option<&str>,
    ) -> io::Result<Self> {
        let crate_dir = crate_dir.as_ref();
        let run_id = root.run_id.as_deref().or(run_id).map(str::to_owned);
        let run_id = run_id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        check_name("run id", &run_id)?;
        let dir = match (&root.dir, crate_dir.file_name()) {
            // Several crates share that directory.
            (Some(dir), Some(name)) => dir.join(name),
            (Some(dir), None) => dir.clone(),
            (None, _) => crate_dir.join(".proof_bundle"),
        };
        let dir = dir.join(kind.as_str()).join(&run_id);
        fs::create_dir_all(&dir)?;
        let events = OpenOptions::new().create(true).append(true).open(dir.join("events.ndjson"))?;
        let bundle = Self { metadata: facts::metadata(crate_dir, kind, &run_id), dir, events };
        bundle.write_metadata()?;
        Ok(bundle)
    }

    /// Where it lies.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Adds a fact to `metadata.json`: the seed, versions of what was tested.
    pub fn fact(&mut self, name: &str, value: impl Serialize) -> io::Result<()> {
        self.metadata[name] = serde_json::to_value(value)?;
        self.write_metadata()
    }

    /// Appends one line to `events.ndjson`. On disk when this returns, as far as a crash of the
    /// test goes.
    pub fn append_event(&mut self, event: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        // One write, so that events of several handles on a run stay whole lines.
        self.events.write_all(&line)
    }

    /// Writes a file beside the events.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        check_name("file name", name)?;
        if matches!(name, "metadata.json" | "events.ndjson" | "report.md") {
            return Err(invalid(format!("{name} is the bundle's own file; choose another name")));
        }
        fs::write(self.dir.join(name), bytes)
    }

    /// Writes the report and says where the bundle lies.
    pub fn finish(self, report_markdown: &str) -> io::Result<PathBuf> {
        self.report(report_markdown)
    }

    /// The same where others still hold the bundle.
    pub fn report(&self, report_markdown: &str) -> io::Result<PathBuf> {
        fs::write(self.dir.join("report.md"), report_markdown)?;
        self.events.sync_all()?;
        Ok(self.dir.clone())
    }

    fn write_metadata(&self) -> io::Result<()> {
        fs::write(self.dir.join("metadata.json"), serde_json::to_vec_pretty(&self.metadata)?)
    }
}

/// A name that stays in its directory on every file system.
fn check_name(what: &str, name: &str) -> io::Result<()> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if (1..=128).contains(&name.len()) && name.bytes().all(inner) && !name.starts_with('.') {
        return Ok(());
    }
    Err(invalid(format!(
        "{what} {name:?} must be 1 to 128 of A-Z, a-z, 0-9, '-', '_' and '.', not starting with '.'"
    )))
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// PROOF-003
    #[test]
    fn a_bundle_holds_metadata_events_files_and_a_report() {
        let tmp = tempfile::tempdir().unwrap();
        let crate_dir = tmp.path().join("some-crate");
        let mut bundle =
            ProofBundle::create_in(&Root::default(), &crate_dir, Kind::Chaos, Some("run-1")).unwrap();
        bundle.append_event(&json!({"n": 1})).unwrap();
        bundle.append_event(&json!({"n": 2, "text": "a\nb"})).unwrap();
        bundle.write("answer.json", "{}").unwrap();
        bundle.fact("seed", 42).unwrap();
        let dir = bundle.finish("# done\n").unwrap();
        assert_eq!(dir, crate_dir.join(".proof_bundle/chaos/run-1"));
        let read = |name| fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!(read("events.ndjson"), "{\"n\":1}\n{\"n\":2,\"text\":\"a\\nb\"}\n");
        assert_eq!((read("answer.json").as_str(), read("report.md").as_str()), ("{}", "# done\n"));
        let metadata: Value = serde_json::from_str(&read("metadata.json")).unwrap();
        assert_eq!((&metadata["seed"], &metadata["kind"]), (&json!(42), &json!("chaos")));
        assert_eq!(metadata["crate"], "some-crate");
        assert_eq!(metadata["git_commit"], Value::Null, "there is no repository");
        assert!(metadata["host"]["kernel"].is_string());
    }

    #[test]
    fn the_environment_decides_where_and_under_which_name() {
        let tmp = tempfile::tempdir().unwrap();
        let root = Root { dir: Some(tmp.path().join("proofs")), run_id: Some("ci-7".to_owned()) };
        let bundle = ProofBundle::create_in(&root, "/work/some-crate", Kind::E2e, Some("mine")).unwrap();
        assert_eq!(bundle.dir(), tmp.path().join("proofs/some-crate/e2e/ci-7"));
    }

    #[test]
    fn two_runs_without_an_id_never_share_a_directory() {
        let tmp = tempfile::tempdir().unwrap();
        let create = || ProofBundle::create_in(&Root::default(), tmp.path(), Kind::Unit, None).unwrap();
        assert_ne!(create().dir(), create().dir());
    }

    #[test]
    fn no_name_leaves_the_bundle_or_replaces_its_own_files() {
        let tmp = tempfile::tempdir().unwrap();
        let create = |id| ProofBundle::create_in(&Root::default(), tmp.path(), Kind::Unit, Some(id));
        let long = "x".repeat(129);
        for bad in ["", "..", ".", "../x", "a/b", "/etc/passwd", ".hidden", "a\0b", "a b", &long] {
            assert!(create(bad).is_err(), "run id {bad:?}");
            let bundle = create("ok").unwrap();
            assert!(bundle.write(bad, "x").is_err(), "file {bad:?}");
        }
        for own in ["metadata.json", "events.ndjson", "report.md"] {
            assert!(create("ok").unwrap().write(own, "x").is_err(), "{own}");
        }
    }

    #[test]
    fn the_commit_is_the_repositorys() {
        let tmp = tempfile::tempdir().unwrap();
        fs::create_dir_all(tmp.path().join(".git/refs/heads")).unwrap();
        fs::write(tmp.path().join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
        let commit = || facts::metadata(&tmp.path().join("libs/x"), Kind::Unit, "r")["git_commit"].clone();
        fs::write(tmp.path().join(".git/packed-refs"), "# pack-refs\nabc refs/heads/main\n").unwrap();
        assert_eq!(commit(), "abc");
        fs::write(tmp.path().join(".git/refs/heads/main"), "def\n").unwrap();
        assert_eq!(commit(), "def");
    }

    /// PROOF-003: a worktree's `.git` is a file that names its own directory, which names the repository's.
    #[test]
    fn the_commit_of_a_worktree_is_its_own() {
        let tmp = tempfile::tempdir().unwrap();
        let (git, tree) = (tmp.path().join("main/.git"), tmp.path().join("tree"));
        fs::create_dir_all(git.join("worktrees/tree")).unwrap();
        fs::create_dir_all(git.join("refs/heads")).unwrap();
        fs::create_dir_all(tree.join("libs/x")).unwrap();
        fs::write(tree.join(".git"), format!("gitdir: {}\n", git.join("worktrees/tree").display())).unwrap();
        fs::write(git.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        fs::write(git.join("refs/heads/main"), "theirs\n").unwrap();
        fs::write(git.join("refs/heads/mine"), "mine\n").unwrap();
        fs::write(git.join("worktrees/tree/HEAD"), "ref: refs/heads/mine\n").unwrap();
        fs::write(git.join("worktrees/tree/commondir"), "../..\n").unwrap();
        assert_eq!(facts::metadata(&tree.join("libs/x"), Kind::Unit, "r")["git_commit"], "mine");
    }
}
