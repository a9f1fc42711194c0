//! Headers that nobody would write by accident: a committed corpus, changed at random from a seed. Each costs
//! an error or a description, never a crash, never memory. `MUTATE_SECONDS=60` goes on for a minute.
#![allow(clippy::unwrap_used, reason = "a failed step of a test should panic")]

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use mutate::Dice;
use provisioners_model_provisioner::{Load, estimate, gguf};

/// Changed inputs of a run in `cargo test`: always the same ones.
const ROUNDS: u64 = 100_000;

/// Counts and lengths where a reader that believes them goes wrong.
const EXTREMES: [u64; 12] = [
    0,
    1,
    0x7f,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 32,
    1 << 40,
    1 << 60,
    i64::MAX as u64,
    u64::MAX - 7,
    u64::MAX,
];

/// Numbers in the places of numbers, which changed bytes alone seldom make.
fn with_numbers(input: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..dice.below(3) {
        let number = EXTREMES[dice.below(EXTREMES.len())].to_le_bytes();
        let width = if dice.below(2) == 0 { 4 } else { 8 };
        let at = dice.below(bytes.len());
        if let Some(place) = bytes.get_mut(at..at + width) {
            place.copy_from_slice(&number[..width]);
        }
    }
    bytes
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// MPROV-003
#[test]
fn hostile_headers_cost_errors_and_neither_time_nor_memory() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/gguf");
    let corpus = mutate::corpus(&dir).unwrap();
    assert!(corpus.len() >= 12, "the corpus is there");
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("m.gguf");
    let file = std::fs::File::create(&path).unwrap();
    let before = peak_kib();
    let (mut refused, mut described, mut estimated) = (0, 0, 0);
    let count = mutate::rounds("gguf", &corpus, ROUNDS, |input, dice| {
        let bytes = with_numbers(input, dice);
        // Not emptied first: some file systems put a file that was onto the disk at once.
        file.write_all_at(&bytes, 0).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        let began = Instant::now();
        match gguf::read_header(&path) {
            Ok(header) => {
                assert_eq!(header.file_size, bytes.len() as u64);
                let (ctx, slots) = (EXTREMES[dice.below(7)] as u32, EXTREMES[dice.below(4)] as u32);
                estimated += u64::from(estimate(&header, &Load::new(ctx, slots)).is_some());
                described += 1;
            }
            Err(error) => {
                assert!(error.to_string().len() < 2000, "an error is for people");
                refused += 1;
            }
        }
        // A reader that believes a length hangs for minutes.
        assert!(began.elapsed() < Duration::from_secs(30), "it takes {:?}", began.elapsed());
    });
    assert_eq!(count, refused + described);
    let all = format!("{refused} refused, {described} described, {estimated} estimated");
    assert!(refused > 1000 && described > 100 && estimated > 50, "{all}: all of it happens");
    let grown = peak_kib().saturating_sub(before);
    assert!(grown < 64 * 1024, "the peak grew by {grown} KiB");
}

/// MPROV-002
#[test]
fn what_the_corpus_holds_is_read_as_it_was_meant() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/gguf");
    let read = |name: &str| gguf::read_header(&dir.join(name));
    for name in [
        "plain.gguf",
        "version-2.gguf",
        "half.gguf",
        "aligned-64.gguf",
        "every-type.gguf",
        "heads-per-layer.gguf",
        "quantised.gguf",
        "longer-than-its-tensors.gguf",
    ] {
        let header = read(name).unwrap();
        assert_eq!((header.architecture.as_str(), header.ctx_max), ("llama", Some(2048)), "{name}");
    }
    assert_eq!(read("sliding-window.gguf").unwrap().architecture, "gemma2");
    for name in ["nested-arrays.gguf", "huge-counts.gguf", "huge-length.gguf", "huge-array.gguf"] {
        read(name).unwrap_err();
    }
}
