//! Headers that nobody would write by accident, thousands of them from a seed: each costs an error or a
//! description, never a crash, never memory.
#![allow(clippy::unwrap_used, reason = "a failed step of a test should panic")]

use std::time::{Duration, Instant};

use provisioners_model_provisioner::gguf;

/// The same sequence in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit.max(1)
    }
}

/// Counts and lengths where a reader that believes them goes wrong.
const EXTREMES: [u64; 10] =
    [0, 1, 0x7f, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 32, 1 << 40, i64::MAX as u64, u64::MAX];

fn mutate(good: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = good.to_vec();
    // The header is what is parsed; the weights behind it are not looked at.
    let header = bytes.len().min(6000);
    for _ in 0..=random.below(4) {
        let at = random.below(header.saturating_sub(8));
        match random.below(4) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at..at + 8].copy_from_slice(&EXTREMES[random.below(EXTREMES.len())].to_le_bytes()),
            2 => {
                let word = EXTREMES[random.below(EXTREMES.len())] as u32;
                bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
            }
            _ => bytes.truncate(at.max(1)),
        }
        if bytes.len() < header {
            break;
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
fn thousands_of_damaged_headers_cost_errors_and_neither_time_nor_memory() {
    let good = gguf_random::Shape { layers: 1, width: 16, heads: 2, ..Default::default() }.to_bytes();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let mut random = Random(23);
    let before = peak_kib();
    let (mut refused, mut described) = (0, 0);
    for round in 0..4000 {
        let bytes = mutate(&good, &mut random);
        std::fs::write(&path, &bytes).unwrap();
        let began = Instant::now();
        match gguf::read_header(&path) {
            Ok(header) => {
                assert_eq!(header.file_size, bytes.len() as u64);
                described += 1;
            }
            Err(error) => {
                assert!(error.to_string().len() < 2000, "round {round}: an error is for people");
                refused += 1;
            }
        }
        assert!(began.elapsed() < Duration::from_secs(10), "round {round}");
    }
    assert!(refused > 1000 && described > 100, "{refused} refused, {described} described: both happen");
    let grown = peak_kib().saturating_sub(before);
    assert!(grown < 64 * 1024, "the peak grew by {grown} KiB");
}
