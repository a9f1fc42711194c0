//! A download that is killed at random points: whatever is under a final name is the whole, right file.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use wire::config::EngineSource;

use crate::machine::Machine;

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const PIECE: usize = 16 * 1024;
/// As slow as a line may be.
const SLOWLY: Duration = Duration::from_micros(200);

pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// A hub with one model, which it sends slowly, and how many bytes it has sent.
pub(crate) struct Hub {
    pub(crate) base: String,
    sent: Arc<AtomicUsize>,
    model: Arc<Vec<u8>>,
}

impl Hub {
    pub(crate) fn start(model: Vec<u8>, pause: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let hub = Self { base, sent: Arc::default(), model: Arc::new(model) };
        let (sent, model) = (hub.sent.clone(), hub.model.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (sent, model) = (sent.clone(), model.clone());
                // The client is killed in the middle: a broken pipe is what is wanted.
                std::thread::spawn(move || drop(answer(stream, &model, &sent, pause)));
            }
        });
        hub
    }
}

impl Hub {
    /// Bytes of the model that were sent.
    pub(crate) fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }
}

fn answer(mut stream: TcpStream, model: &[u8], sent: &AtomicUsize, pause: Duration) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let mut head =
        |status: &str, more: &str| write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n{more}\r\n");
    if first.contains("/api/") {
        let list = r#"[{"type":"file","path":"m-q4_k_m.gguf","oid":"x","size":1}]"#;
        head("200 OK", &format!("Content-Length: {}\r\n", list.len()))?;
        return stream.write_all(list.as_bytes());
    }
    if first.starts_with("HEAD") {
        let (sha256, size) = (digest(model), model.len());
        return head(
            "200 OK",
            &format!("X-Repo-Commit: {COMMIT}\r\nX-Linked-Etag: \"{sha256}\"\r\nX-Linked-Size: {size}\r\n"),
        );
    }
    let range = headers
        .iter()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let first = range.as_deref().and_then(|range| range.split('-').next());
    let from: usize = first.and_then(|first| first.parse().ok()).unwrap_or(0);
    let (total, left) = (model.len(), model.len() - from);
    match from {
        0 => head("200 OK", &format!("ETag: \"v1\"\r\nContent-Length: {left}\r\n"))?,
        _ => {
            let part = format!("bytes {from}-{}/{total}", total - 1);
            head("206 x", &format!("ETag: \"v1\"\r\nContent-Range: {part}\r\nContent-Length: {left}\r\n"))?;
        }
    }
    for piece in model[from..].chunks(PIECE) {
        stream.write_all(piece)?;
        sent.fetch_add(piece.len(), Ordering::SeqCst);
        if !pause.is_zero() {
            // How slow this hub is.
            std::thread::sleep(pause);
        }
    }
    Ok(())
}

/// The files under final names.
fn finals(cache: &Path) -> Vec<PathBuf> {
    let dirs = std::fs::read_dir(cache.join("models")).into_iter().flatten().flatten();
    let hex = |name: &str| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    let dirs = dirs.filter(|dir| dir.file_name().to_str().is_some_and(hex));
    let files = dirs.flat_map(|dir| std::fs::read_dir(dir.path()).into_iter().flatten().flatten());
    files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|e| e == "gguf")).collect()
}

/// MPROV-007
#[test]
fn kills_at_random_points_leave_no_unverified_file_under_a_final_name() {
    // 20 in the fast pass; `LLORCH_KILLS=200` is the whole one.
    let kills: u64 = std::env::var("LLORCH_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    gguf_random::Shape { width: 256, layers: 2, ..Default::default() }.write(&path).unwrap();
    let hub = Hub::start(std::fs::read(&path).unwrap(), SLOWLY);
    let wanted = digest(&hub.model);
    let cache = dir.path().join("cache");
    let config = dir.path().join("c.yaml");
    let text = "pools:\n  - id: p\n    model: hf:o/r:Q4_K_M\n    provisioning: { gpu: off, sources: [ path: { binary: /nonexistent } ] }\n";
    std::fs::write(&config, text).unwrap();
    let (mut random, mut finished) = (17u64, 0);
    for _ in 0..kills {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // A third of the way on average, and now and then so late that it is finishing.
        let point = (random >> 33) as usize % (hub.model.len() * 2 / 3);
        hub.sent.store(0, Ordering::SeqCst);
        let mut process = Command::new(env!("CARGO_BIN_EXE_engine-provisioner"))
            .arg("--config")
            .arg(&config)
            .env_clear()
            .env("HF_ENDPOINT", &hub.base)
            .env("LLAMA_ORCH_CACHE", &cache)
            .env("HOME", dir.path())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        while hub.sent.load(Ordering::SeqCst) < point && process.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "the download does not move");
            std::thread::yield_now();
        }
        process.kill().unwrap();
        process.wait().unwrap();
        for file in finals(&cache) {
            assert_eq!(digest(&std::fs::read(&file).unwrap()), wanted, "{}", file.display());
            finished += 1;
            // From the start again.
            std::fs::remove_dir_all(cache.join("models")).unwrap();
        }
    }
    assert!(finished > 0 && finished < kills, "{finished} of {kills}: both ends were met");
}

/// The most memory that a process has had so far, in KiB; none once it has ended.
fn peak_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// MPROV-023
#[test]
fn a_large_download_takes_no_more_memory_than_a_small_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    gguf_random::Shape::default().write(&path).unwrap();
    let mut model = std::fs::read(&path).unwrap();
    // Bytes behind the last tensor belong to nobody.
    model.resize(192 << 20, 7);
    let hub = Hub::start(model, Duration::ZERO);
    let config = dir.path().join("c.yaml");
    let text = "pools:\n  - id: p\n    model: hf:o/r:Q4_K_M\n    provisioning: { gpu: off, sources: [ path: { binary: /nonexistent } ] }\n";
    std::fs::write(&config, text).unwrap();
    let cache = dir.path().join("cache");
    let mut process = Command::new(env!("CARGO_BIN_EXE_engine-provisioner"))
        .arg("--config")
        .arg(&config)
        .env_clear()
        .env("HF_ENDPOINT", &hub.base)
        .env("LLAMA_ORCH_CACHE", &cache)
        .env("HOME", dir.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (until, mut peak) = (Instant::now() + Duration::from_secs(120), 0);
    while process.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "the download does not end");
        peak = peak_kib(process.id()).unwrap_or(peak);
        std::thread::yield_now();
    }
    assert_eq!(finals(&cache).len(), 1, "it is there");
    assert!(peak > 1024 && peak < 96 * 1024, "192 MiB were fetched with {peak} KiB of memory");
}

/// What builds in four steps, notes each, and waits in the third while it is told to.
const FOUR_STEPS: &str = r#"
case "$1" in
--version) echo "cmake version 3.30.1" ;;
--build)
    for i in 1 2 3 4; do
        [ -e "$2/object-$i" ] && continue
        echo "$i" >> "$d/compiled"
        while [ $i = 3 ] && [ -e "$d/hold" ]; do sleep 0.01; done
        mkdir -p "$2"; touch "$2/object-$i"; echo "[$i/4] Building"
    done
    mkdir -p "$2/bin"; cp "$d/engine" "$2/bin/llama-server" ;;
esac"#;

/// EPROV-010
#[test]
fn a_build_whose_provisioner_was_killed_goes_on_and_compiles_nothing_twice() {
    let machine = Machine::new();
    machine.tool("cmake", FOUR_STEPS);
    machine.flag("hold");
    let EngineSource::Archive(source) = machine.archive("a.tar.gz") else { unreachable!() };
    let config = machine.path("c.yaml");
    let text = format!(
        "pools:\n  - id: p\n    model: builtin:haiku\n    provisioning: {{ gpu: off, sources: [ archive: {{ url: \"{}\", \
         sha256: {}, subdir: {} }} ] }}\n",
        source.url,
        source.sha256,
        source.subdir.display()
    );
    std::fs::write(&config, text).unwrap();
    let start = || {
        Command::new(env!("CARGO_BIN_EXE_engine-provisioner"))
            .arg("--config")
            .arg(&config)
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", machine.bin().display()))
            .env("LLAMA_ORCH_CACHE", machine.cache())
            .env("HOME", machine.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let compiled = || std::fs::read_to_string(machine.bin().join("compiled")).unwrap_or_default();
    let mut first = start();
    let until = Instant::now() + Duration::from_secs(60);
    while !compiled().ends_with("3\n") {
        assert!(
            Instant::now() < until && first.try_wait().unwrap().is_none(),
            "it does not come to the third step"
        );
        std::thread::yield_now();
    }
    first.kill().unwrap();
    first.wait().unwrap();
    // The builder of the killed one is still there, in its third step; the next one ends it.
    let mut second = start();
    let until = Instant::now() + Duration::from_secs(60);
    while compiled() == "1\n2\n3\n" {
        assert!(
            Instant::now() < until && second.try_wait().unwrap().is_none(),
            "the second one does not go on"
        );
        std::thread::yield_now();
    }
    std::fs::remove_file(machine.bin().join("hold")).unwrap();
    assert!(second.wait().unwrap().success());
    assert_eq!(compiled(), "1\n2\n3\n3\n4\n", "the step that was broken off again, the finished ones not");
}
