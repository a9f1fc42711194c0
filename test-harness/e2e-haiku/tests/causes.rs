//! How the real engine ends when something is wrong, provoked again: pool-managerd must name the cause
//! that its recorded log stands for, and the engine must still say what was recorded. A newer engine
//! that words its errors otherwise is found here, before a user is told `unknown`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step of a test should panic")]

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use child::Exit;
use gguf_random::Shape;
use pool_managerd::{Cause, Ending, classify};

/// As many lines as pool-managerd looks at.
const LINES: usize = 40;
/// An engine that has found nothing wrong by then found nothing wrong.
const HANGS: Duration = Duration::from_secs(120);

/// A machine with a model on which things go wrong.
struct Bench {
    binary: PathBuf,
    dir: tempfile::TempDir,
    model: Vec<u8>,
}

/// What an engine wrote, and how it ended.
struct Ended {
    exit: Exit,
    lines: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        let binary = test_harness_e2e_haiku::provisioned().unwrap().binary_path;
        let dir = tempfile::tempdir().unwrap();
        let model = Shape { layers: 4, width: 128, tied_output: true, ..Shape::default() }.to_bytes();
        std::fs::write(dir.path().join("m.gguf"), &model).unwrap();
        Self { binary, dir, model }
    }

    /// A model file with other bytes.
    fn spoilt(&self, name: &str, spoil: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
        let mut bytes = self.model.clone();
        spoil(&mut bytes);
        let path = self.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// A model of which one text is another of the same length, where it first stands.
    fn renamed(&self, from: &str, to: &str) -> PathBuf {
        assert_eq!(from.len(), to.len());
        self.spoilt("renamed.gguf", |bytes| {
            let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
            bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        })
    }

    /// A model with another count of tensors in its header.
    fn counting(&self, count: impl FnOnce(u64) -> u64) -> PathBuf {
        self.spoilt("count.gguf", |bytes| {
            let is = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
            bytes[8..16].copy_from_slice(&count(is).to_le_bytes());
        })
    }

    /// Runs the engine with a model until it ends. `limit`: of its address space, in KiB.
    fn run(&self, model: &Path, flags: &[&str], limit: Option<u32>) -> Ended {
        let log = self.dir.path().join("log");
        let file = std::fs::File::create(&log).unwrap();
        let limit = limit.map_or_else(String::new, |kib| format!("ulimit -v {kib} && "));
        let mut engine = Command::new("sh")
            .args(["-c", &format!("{limit}exec \"$@\""), "sh"])
            .arg(&self.binary)
            .arg("--model")
            .arg(model)
            .args(["--parallel", "1", "--no-webui", "--metrics", "--offline", "--fit", "off"])
            .args(["--threads", "1", "--threads-batch", "1", "--threads-http", "2", "--host", "127.0.0.1"])
            .args(flags)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        let end = Instant::now() + HANGS;
        let status = loop {
            if let Some(status) = engine.try_wait().unwrap() {
                break status;
            }
            if Instant::now() >= end {
                engine.kill().unwrap();
                engine.wait().unwrap();
                panic!("it runs with {flags:?}: {}", std::fs::read_to_string(&log).unwrap());
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let exit = match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Unknown,
        };
        let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap()).into_owned();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let last = lines.len().saturating_sub(LINES);
        Ended { exit, lines: lines[last..].to_vec() }
    }
}

/// The recorded log and how it ended.
fn recorded(fixture: &str) -> (String, Vec<String>) {
    let dir =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../libs/pool-managerd/tests/fixtures/engine-logs");
    let text = std::fs::read_to_string(dir.join(fixture)).unwrap();
    let mut lines = text.lines().map(str::to_owned);
    assert!(lines.next().unwrap().starts_with("# recorded"), "{fixture} was not recorded");
    (lines.next().unwrap().strip_prefix("# exit: ").unwrap().to_owned(), lines.collect())
}

/// The complaints in a log, without what differs from run to run: times, numbers, names in quotes, files.
fn complaints(lines: &[String]) -> BTreeSet<String> {
    let is_time = |word: &str| word.len() > 8 && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let plain = |line: &String| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (severity, words) = match words.as_slice() {
            [time, severity, rest @ ..] if is_time(time) => (Some(*severity), rest),
            all => (None, all),
        };
        let complains = match severity {
            Some(severity) => severity == "E",
            None => ["error", "terminate", "what()"].iter().any(|word| line.contains(word)),
        };
        let word = |word: &&str| {
            let name = word.contains(".gguf") || word.starts_with('\'');
            if name { "NAME".to_owned() } else { word.replace(|c: char| c.is_ascii_digit(), "") }
        };
        complains.then(|| words.iter().map(word).collect::<Vec<_>>().join(" "))
    };
    lines.iter().filter_map(plain).collect()
}

/// It ends as recorded, says what was recorded, and is called what it is.
fn holds(fixture: &str, cause: Cause, ended: &Ended) {
    let (exit, lines) = recorded(fixture);
    let text = ended.lines.join("\n");
    let found = match ended.exit {
        Exit::Code(code) => format!("code {code}"),
        Exit::Signal(signal) => format!("signal {signal}"),
        Exit::Unknown => "unknown".to_owned(),
    };
    assert_eq!(found, exit, "{fixture}: {text}");
    let (was, is) = (complaints(&lines), complaints(&ended.lines));
    let unsaid: Vec<_> = was.difference(&is).collect();
    assert!(unsaid.is_empty(), "{fixture}: it does not say {unsaid:?} any more, but: {text}");
    let ending = Ending { exit: ended.exit, served: false, memory_killer: false };
    assert_eq!(classify(ending, &ended.lines), cause, "{fixture}: {text}");
}

/// POOLD-CAUSE-001
#[test]
fn flags_that_the_engine_does_not_take() {
    let bench = Bench::new();
    let model = bench.dir.path().join("m.gguf");
    let run = |flags: &[&str]| bench.run(&model, flags, None);
    holds("bad_flag-unknown.log", Cause::BadFlag, &run(&["--bogus"]));
    holds("bad_flag-value.log", Cause::BadFlag, &run(&["--batch-size", "many"]));
}

/// POOLD-CAUSE-001
#[test]
fn models_that_are_missing_cut_or_corrupt() {
    let bench = Bench::new();
    let run = |model: &Path| bench.run(model, &["--port", "0"], None);
    holds("model_not_found.log", Cause::ModelNotFound, &run(Path::new("/nope/m.gguf")));
    let cut = |at: usize| bench.spoilt("cut.gguf", |bytes| bytes.truncate(at));
    let truncated = run(&cut(bench.model.len() * 3 / 4));
    holds("model_corrupt-truncated.log", Cause::ModelCorrupt, &truncated);
    holds("model_corrupt-header.log", Cause::ModelCorrupt, &run(&cut(3_000)));
    holds("model_corrupt-more_tensors.log", Cause::ModelCorrupt, &run(&bench.counting(|count| count + 1)));
    holds("model_corrupt-less_tensors.log", Cause::ModelCorrupt, &run(&bench.counting(|count| count - 1)));
    holds("model_corrupt-absurd_count.log", Cause::ModelCorrupt, &run(&bench.counting(|_| 1 << 60)));
    let renamed = |from, to| run(&bench.renamed(from, to));
    let missing = renamed("blk.0.attn_q.weight", "blk.0.attn_x.weight");
    holds("model_corrupt-missing_tensor.log", Cause::ModelCorrupt, &missing);
    holds("model_corrupt-architecture.log", Cause::ModelCorrupt, &renamed("llama", "lxama"));
    holds("model_corrupt-magic.log", Cause::ModelCorrupt, &renamed("GGUF", "GGUX"));
    let version = bench.spoilt("version.gguf", |bytes| bytes[4..8].copy_from_slice(&9_u32.to_le_bytes()));
    holds("model_corrupt-version.log", Cause::ModelCorrupt, &run(&version));
}

/// POOLD-CAUSE-001
#[test]
fn a_port_that_is_taken_and_memory_that_is_not_there() {
    let bench = Bench::new();
    let model = bench.dir.path().join("m.gguf");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    holds("port_taken.log", Cause::PortTaken, &bench.run(&model, &["--port", &port], None));
    let large = bench.run(&model, &["--port", "0", "--ctx-size", "4000000"], Some(400_000));
    holds("out_of_memory-rlimit.log", Cause::OutOfMemory, &large);
    let none = bench.run(&model, &["--port", "0"], Some(60_000));
    holds("out_of_memory-threads.log", Cause::OutOfMemory, &none);
}
