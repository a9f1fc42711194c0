//! The grammar: three lines of five, seven and five syllables around the asked words.
//!
//! A pattern is a string whose upper-case names are replaced: `T` by the asked words, `A1` by an
//! adjective of one syllable, and so on. Which pattern and which words are taken follows from
//! the target for most samples, so that the model's most likely answer differs from word to
//! word, and from chance for the rest, so that it does not depend on it.

use super::moods::{MOODS, Mood};
use super::syllables;
use crate::rng::{Rng, mix};

/// What an asked phrase is, which decides the patterns it may stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Counts a plural: zero, two, twenty-nine.
    Plural,
    /// Counts a singular: one.
    Singular,
    /// Stands where a noun does.
    Noun,
}

/// Words that must appear together and verbatim.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The words as they were asked for.
    pub(super) text: String,
    /// Their part in a sentence.
    pub(super) kind: Kind,
}

const FIVE: [&str; 12] = [
    "A2 N2 V1",
    "the A1 N1 V2",
    "N2 in the L1",
    "under the A1 N1",
    "A1 N1, A2 N1",
    "A1 N2, A1 N1",
    "the N2 V2",
    "the N1 V1 again",
    "beyond the N2",
    "one A1 N2 V1",
    "and the N2 V1",
    "A2 N1, A1 N1",
];
const SEVEN: [&str; 11] = [
    "the A2 N2 V2",
    "the N2 V2 slowly",
    "A1 N1 and A2 N2",
    "the N2 V1 in the L1",
    "where the A1 N1 meets the N1",
    "the N1 V2 through A1 N1",
    "slow N2 along the N1",
    "somewhere the A1 N2 V1",
    "only the A1 N1 V2",
    "after the N1 the N1 V1",
    "the N1 remembers the N1",
];

/// Patterns around a noun, by the syllables they add to it.
const NOUN: [&[&str]; 7] = [
    &["T"],
    &["the T", "one T"],
    &["the T V1", "one A1 T", "the A1 T"],
    &["the A1 T V1", "the T V2", "beside the T", "T in the L1", "only one T"],
    &["the A1 T V2", "one T in the L1", "T and A2 N1", "the A2 T V1", "under the A1 T"],
    &["the N2 and the T", "the A2 T V2", "one A1 T in the L1", "the T V1 in the L1"],
    &["the T V2 in the L1", "the A1 N1 and the A1 T", "the T V1 and the N1 V1", "somewhere the A1 T V2"],
];
/// Patterns around a number, likewise.
const PLURAL: [&[&str]; 7] = [
    &["T"],
    &["T P1"],
    &["T A1 P1", "T P2", "count T P1"],
    &["T A2 P1", "T A1 P2", "we count T P1", "N1 and T P1"],
    &["T P1 in the L1", "T A2 P2", "T P2 at rest", "only T A1 P1"],
    &["T A1 P1 in the L1", "T P2 by the N1", "A1 N1 and T A1 P1"],
    &["T A2 P1 by the N1", "the N1 V1 for T A1 P1", "A2 N1 and T P2"],
];
const SINGULAR: [&[&str]; 7] = [
    &["T"],
    &["T N1"],
    &["T A1 N1", "T N2"],
    &["T A2 N1", "T A1 N2", "T A1 N1 V1"],
    &["T N1 in the L1", "T A2 N2", "T A1 N2 V1"],
    &["T A1 N1 in the L1", "T A2 N2 V1"],
    &["T A2 N1 by the N1", "the N1 V1 for T A1 N1"],
];

/// Three lines that hold every target once; at most three targets.
#[must_use]
pub(super) fn compose(targets: &[Target], key: Option<u64>, rng: &mut Rng) -> String {
    let mut choice = Choice::new(key, rng);
    let mood = &MOODS[choice.below(MOODS.len())];
    let first = first_line(targets);
    let mut lines = Vec::with_capacity(3);
    for (line, length) in [5, 7, 5].into_iter().enumerate() {
        let target = targets.get((line + 3 - first) % 3);
        let pattern = match target {
            Some(target) => around(target, length, &mut choice),
            None if length == 5 => FIVE[choice.below(FIVE.len())],
            None => SEVEN[choice.below(SEVEN.len())],
        };
        lines.push(fill(pattern, target, mood, &mut choice));
    }
    lines.join("\n")
}

/// The line of the first target; the others follow it.
///
/// A noun stands in the first line. When it could stand in any, the model put it off until the
/// poem was over for one word in thirty. Numbers are few enough to know each one's place.
fn first_line(targets: &[Target]) -> usize {
    match targets {
        [number] if number.kind != Kind::Noun => {
            let bytes = number.text.bytes().map(|b| if b == b'-' { b' ' } else { b });
            (bytes.fold(5, |hash, b| mix(hash ^ u64::from(b))) % 3) as usize
        }
        _ => 0,
    }
}

/// A pattern that brings the target's line to `length` syllables, or as close as there is.
fn around(target: &Target, length: usize, choice: &mut Choice<'_>) -> &'static str {
    let table = match target.kind {
        Kind::Plural => &PLURAL,
        Kind::Singular => &SINGULAR,
        Kind::Noun => &NOUN,
    };
    let mut room = length.saturating_sub(syllables::count(&target.text)).min(table.len() - 1);
    if target.text.len() < 5 {
        // A bare short word would be a line of fewer than five characters.
        room = room.max(2);
    }
    table[room][choice.below(table[room].len())]
}

fn fill(pattern: &'static str, target: Option<&Target>, mood: &Mood, choice: &mut Choice<'_>) -> String {
    let words: Vec<String> = pattern
        .split(' ')
        .map(|slot| {
            let (name, comma) = slot.strip_suffix(',').map_or((slot, ""), |n| (n, ","));
            let word = match name {
                "A1" => choice.word(mood.a1),
                "A2" => choice.word(mood.a2),
                "N1" => choice.word(mood.n1),
                "N2" => choice.word(mood.n2),
                "L1" => choice.word(mood.l1),
                "V1" => choice.word(mood.v1),
                "V2" => choice.word(mood.v2),
                "P1" => choice.word(mood.p1),
                "P2" => choice.word(mood.p2),
                "T" => target.map_or("", |t| t.text.as_str()),
                literal => literal,
            };
            format!("{word}{comma}")
        })
        .collect();
    words.join(" ")
}

/// Makes choices, from a key or from chance, and takes no word twice in one haiku.
struct Choice<'a> {
    key: Option<u64>,
    made: u64,
    used: Vec<&'static str>,
    rng: &'a mut Rng,
}

impl<'a> Choice<'a> {
    fn new(key: Option<u64>, rng: &'a mut Rng) -> Self {
        Self { key, made: 0, used: Vec::new(), rng }
    }

    fn below(&mut self, n: usize) -> usize {
        self.made += 1;
        match self.key {
            Some(key) => (mix(key.wrapping_mul(1009).wrapping_add(self.made)) % n.max(1) as u64) as usize,
            None => self.rng.below(n),
        }
    }

    fn word(&mut self, words: &'static [&'static str]) -> &'static str {
        let start = self.below(words.len());
        let fresh =
            (0..words.len()).map(|i| words[(start + i) % words.len()]).find(|w| !self.used.contains(w));
        let word = fresh.or_else(|| words.first().copied()).unwrap_or("moon");
        self.used.push(word);
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_add_the_syllables_they_are_filed_under() {
        let size = |pattern: &str| -> usize {
            pattern
                .replace(',', "")
                .split(' ')
                .map(|w| match w {
                    "T" => 0,
                    "A1" | "N1" | "L1" | "V1" | "P1" => 1,
                    "A2" | "N2" | "V2" | "P2" => 2,
                    "remembers" => 3,
                    "beside" | "beyond" | "only" | "again" | "slowly" | "along" | "somewhere" | "under"
                    | "after" => 2,
                    literal => syllables::count(literal),
                })
                .sum()
        };
        assert!(FIVE.iter().all(|p| size(p) == 5), "{:?}", FIVE.iter().find(|p| size(p) != 5));
        assert!(SEVEN.iter().all(|p| size(p) == 7), "{:?}", SEVEN.iter().find(|p| size(p) != 7));
        for table in [&NOUN, &PLURAL, &SINGULAR] {
            for (room, patterns) in table.iter().enumerate() {
                assert!(patterns.iter().all(|p| size(p) == room), "{room}: {patterns:?}");
                assert!(patterns.iter().all(|p| p.split(' ').filter(|w| *w == "T").count() == 1));
            }
        }
    }

    #[test]
    fn every_mood_has_words_for_every_slot_and_none_starts_an_article_problem() {
        for mood in &MOODS {
            let lists = [mood.a1, mood.a2, mood.n1, mood.n2, mood.l1, mood.v1, mood.v2, mood.p1, mood.p2];
            assert!(lists.iter().all(|l| l.len() >= 4));
            assert!(mood.a1.iter().chain(mood.a2).all(|a| !a.starts_with(['a', 'e', 'i', 'o', 'u'])));
            assert!(mood.v1.iter().chain(mood.v2).all(|v| v.ends_with('s')));
        }
    }

    #[test]
    fn two_targets_stand_in_two_lines() {
        let mut rng = Rng::from_parts(&[4]);
        let targets = ["moon", "xqzvbn"].map(|t| Target { text: t.into(), kind: Kind::Noun });
        for _ in 0..50 {
            let haiku = compose(&targets, None, &mut rng);
            let with = |w: &str| haiku.lines().position(|l| l.split([' ', ',']).any(|x| x == w));
            assert!(
                with("xqzvbn").is_some() && with("xqzvbn") != with("moon")
                    || haiku.matches("moon").count() > 1
            );
        }
    }
}
