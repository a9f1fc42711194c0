//! A reader against what nobody meant to write: inputs of a committed corpus, changed at random but from a
//! seed, for as long as a test may take.
//!
//! `MUTATE_SECONDS` (2) says for how long, `MUTATE_SEED` from where. An input that makes the test fail is
//! printed and left in the temporary directory: it belongs into the corpus. No coverage is measured:
//! this runs on a stable compiler, within `cargo test`.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What breaks readers more often than noise does.
const TOKENS: &[&[u8]] = &[
    b"",
    b"\n",
    b"\n\n",
    b"\r",
    b"\r\n\r\n",
    b"data: ",
    b"data:",
    b"error: ",
    b":",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1e999",
    b"18446744073709551616",
    b"4294967296",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\xf0\x9f",
    b"\0",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0\0\0\0\0",
    b"[DONE]",
    b"\"error\"",
    b"http://",
    b"..",
    b"/",
];

/// Numbers from a seed.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The same seed gives the same numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (SplitMix64).
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 where that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.number() % bound as u64) as usize }
    }
}

/// An input with one to eight changes.
#[must_use]
pub fn mutated(corpus: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let pick = |dice: &mut Dice| corpus.get(dice.below(corpus.len())).cloned().unwrap_or_default();
    let mut input = pick(dice);
    for _ in 0..=dice.below(8) {
        let at = dice.below(input.len() + 1);
        let end = at + dice.below((input.len() - at).min(64) + 1);
        match dice.below(8) {
            0 if at < input.len() => input[at] ^= 1 << dice.below(8),
            1 if at < input.len() => input[at] = dice.number() as u8,
            2 => input.truncate(at),
            3 => drop(input.drain(at..end)),
            4 => {
                let again = input[at..end].to_vec();
                drop(input.splice(at..at, again));
            }
            5 => {
                let token = TOKENS[dice.below(TOKENS.len())];
                drop(input.splice(at..end, token.iter().copied()));
            }
            6 => {
                let other = pick(dice);
                let from = dice.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                let token = TOKENS[dice.below(TOKENS.len())];
                drop(input.splice(at..at, token.iter().copied()));
            }
        }
    }
    input
}

/// How long it goes on.
enum Until {
    Time(Duration),
    Rounds(u64),
}

/// Gives `test` every input of the corpus as it is, and then changed ones until the time is over; says how
/// many. `test` fails by panicking.
pub fn campaign(name: &str, corpus: &[Vec<u8>], test: impl FnMut(&[u8], &mut Dice)) -> u64 {
    run(name, corpus, Until::Time(Duration::from_secs(number("MUTATE_SECONDS").unwrap_or(2))), test)
}

/// As [`campaign`], with so many changed inputs, the same on every machine; `MUTATE_SECONDS` goes on for
/// so long instead.
pub fn rounds(name: &str, corpus: &[Vec<u8>], rounds: u64, test: impl FnMut(&[u8], &mut Dice)) -> u64 {
    let time = number("MUTATE_SECONDS").map(|seconds| Until::Time(Duration::from_secs(seconds)));
    run(name, corpus, time.unwrap_or(Until::Rounds(rounds)), test)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|value| value.parse().ok())
}

fn run(name: &str, corpus: &[Vec<u8>], until: Until, mut test: impl FnMut(&[u8], &mut Dice)) -> u64 {
    let seed = number("MUTATE_SEED").unwrap_or(0);
    let mut one = |input: &[u8], dice: &mut Dice| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(input, dice))) {
            tell(name, input);
            resume_unwind(panic);
        }
    };
    let mut dice = Dice::new(seed);
    corpus.iter().for_each(|input| one(input, &mut dice));
    let (began, as_it_is) = (Instant::now(), corpus.len() as u64);
    let mut count = as_it_is;
    while match until {
        Until::Time(time) => began.elapsed() < time,
        Until::Rounds(rounds) => count - as_it_is < rounds,
    } {
        let input = mutated(corpus, &mut dice);
        one(&input, &mut dice);
        count += 1;
    }
    count
}

/// The files of a directory of the corpus, in the order of their names.
///
/// # Errors
/// That the directory or a file in it cannot be read.
pub fn corpus(dir: &Path) -> std::io::Result<Vec<Vec<u8>>> {
    let mut paths: Vec<_> =
        std::fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    paths.iter().map(std::fs::read).collect()
}

/// Where the input is left that made the test of this name fail.
fn left_at(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("mutate-{name}-{}", std::process::id()))
}

#[expect(clippy::print_stderr, reason = "it is for whoever reads the failed test")]
fn tell(name: &str, input: &[u8]) {
    let mut shown = String::new();
    for byte in input.iter().take(4096) {
        // Writing to memory does not fail.
        let _ = write!(shown, "{}", std::ascii::escape_default(*byte));
    }
    let file = left_at(name);
    let kept =
        std::fs::write(&file, input).map_or_else(|error| error.to_string(), |()| file.display().to_string());
    eprintln!("{name} fails with these {} bytes ({kept}):\n{shown}", input.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PROOF-012
    #[test]
    fn the_same_seed_gives_the_same_inputs_and_they_are_not_the_corpus() {
        let corpus = vec![b"data: {\"a\": 1}\n\n".to_vec(), b"x".to_vec(), Vec::new()];
        let inputs = |seed| {
            let mut dice = Dice::new(seed);
            (0..100).map(|_| mutated(&corpus, &mut dice)).collect::<Vec<_>>()
        };
        assert_eq!(inputs(7), inputs(7));
        assert_ne!(inputs(7), inputs(8));
        assert!(inputs(7).iter().filter(|input| !corpus.contains(input)).count() > 80);
    }

    #[test]
    fn rounds_are_the_same_inputs_each_time() {
        let inputs = || {
            let mut seen = Vec::new();
            let count = rounds("own-test", &[b"abcdef".to_vec()], 50, |input, _| seen.push(input.to_vec()));
            (count, seen)
        };
        let (count, seen) = inputs();
        // Whoever asks for a time gets another number.
        assert!(number("MUTATE_SECONDS").is_some() || (count, seen) == inputs() && count == 51);
    }

    #[test]
    fn an_input_that_breaks_a_reader_is_found_and_left_for_the_corpus() {
        let broken = catch_unwind(|| {
            campaign("own-broken", &[b"abcdef".to_vec()], |input, _| assert!(!input.contains(&b'{')))
        });
        assert!(broken.is_err());
        let left = std::fs::read(left_at("own-broken")).unwrap();
        assert!(left.contains(&b'{'), "{left:?}");
        // This one is no find.
        std::fs::remove_file(left_at("own-broken")).unwrap();
    }
}
