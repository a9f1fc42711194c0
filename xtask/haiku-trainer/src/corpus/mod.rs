//! The corpus: requests for a haiku and answers, made on the fly from a grammar.
//!
//! Nothing is read from outside. A sample is a pure function of its random stream, so any part
//! of the corpus can be made again, by any thread, in any order.

mod lists;
mod moods;
mod nonsense;
mod prompt;
mod prompt_parts;
mod syllables;
mod verse;

use std::collections::HashSet;

pub use lists::Lists;
use prompt::Asked;
use verse::{Kind, Target};

use crate::rng::Rng;

/// One exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// What the user says.
    pub prompt: String,
    /// The three lines that answer it.
    pub answer: String,
    /// The phrases that the answer holds verbatim.
    pub targets: Vec<String>,
}

/// The generator and the words it may and may not ask for.
#[derive(Clone, Debug)]
pub struct Corpus {
    numbers: Vec<&'static str>,
    nouns: Vec<&'static str>,
    kept_back: HashSet<&'static str>,
    pieces: Vec<String>,
}

impl Corpus {
    /// A generator that never asks for the words that `lists` keeps back.
    #[must_use]
    pub fn new(lists: &Lists) -> Self {
        Self {
            numbers: lists.numbers.clone(),
            nouns: lists.training_nouns(),
            kept_back: lists.kept_back(),
            pieces: Vec::new(),
        }
    }

    /// The same generator, which also invents words from these pieces.
    #[must_use]
    pub fn with_pieces(self, pieces: Vec<String>) -> Self {
        Self { pieces, ..self }
    }

    /// One exchange: 26 % numbers, 58 % one word, the rest several words.
    #[must_use]
    pub fn sample(&self, rng: &mut Rng) -> Sample {
        let (targets, asked) = self.targets(rng);
        // Most answers follow from the target, so that they differ at temperature 0.
        let key = rng.chance(0.65).then(|| self.key(&targets));
        let answer = verse::compose(&targets, key, rng);
        let targets: Vec<String> = targets.into_iter().map(|t| t.text).collect();
        let prompt = prompt::ask(&targets, asked, &self.nouns, rng);
        Sample { prompt, answer, targets }
    }

    /// Text from which the tokenizer learns its pieces: words as they are met in training.
    #[must_use]
    pub fn tokenizer_text(&self, rng: &mut Rng, samples: usize) -> String {
        let mut text = String::new();
        for _ in 0..samples {
            let sample = self.sample(rng);
            text.push_str(&format!("{}\n{}\n", sample.prompt, sample.answer));
        }
        text
    }

    fn targets(&self, rng: &mut Rng) -> (Vec<Target>, Asked) {
        match rng.below(100) {
            0..26 => {
                let number = self.number(rng);
                let asked = if number.text.contains(' ') { Asked::Words } else { Asked::Number };
                (vec![number], asked)
            }
            26..84 => (vec![self.word(rng)], Asked::Word),
            84..89 => {
                let text = format!("{} {}", self.word(rng).text, self.word(rng).text);
                (vec![Target { text, kind: Kind::Noun }], Asked::Words)
            }
            89..95 => (self.distinct(2, false, rng), Asked::Words),
            95..98 => (self.distinct(2, true, rng), Asked::Words),
            _ => (self.distinct(3, false, rng), Asked::Words),
        }
    }

    fn distinct(&self, n: usize, with_number: bool, rng: &mut Rng) -> Vec<Target> {
        let mut targets = Vec::with_capacity(n);
        if with_number {
            targets.push(self.number(rng));
        }
        while targets.len() < n {
            let word = self.word(rng);
            if targets.iter().all(|t| t.text != word.text) {
                targets.push(word);
            }
        }
        targets
    }

    fn number(&self, rng: &mut Rng) -> Target {
        let mut text = rng.choose(&self.numbers).copied().unwrap_or("one").to_owned();
        if rng.chance(0.5) {
            text = text.replace('-', " ");
        }
        let kind = if text == "one" { Kind::Singular } else { Kind::Plural };
        Target { text, kind }
    }

    /// A noun or an invented word, never one that is kept back.
    fn word(&self, rng: &mut Rng) -> Target {
        loop {
            let text = match self.nouns.get(rng.below(self.nouns.len())) {
                Some(noun) if rng.chance(0.42) => (*noun).to_owned(),
                _ => nonsense::word(rng, &self.nouns, &self.pieces),
            };
            if !self.kept_back.contains(text.to_lowercase().as_str()) {
                return Target { text, kind: Kind::Noun };
            }
        }
    }

    /// What the choices of a poem follow from.
    ///
    /// For words the model can know by heart, the whole word, the same for "two two" and
    /// "two-two"; for others only the first and last letter, which is a rule it can learn.
    fn key(&self, targets: &[Target]) -> u64 {
        let Some(first) = targets.first() else { return 0 };
        let text = first.text.replace(' ', "-");
        let known = first.kind != Kind::Noun || self.nouns.contains(&text.as_str());
        let bytes = text.as_bytes();
        let ends = [bytes.first().copied().unwrap_or(0), bytes.last().copied().unwrap_or(0)];
        let seen: &[u8] = if known { bytes } else { &ends };
        seen.iter().fold(17, |key, b| crate::rng::mix(key ^ u64::from(*b)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(n: u64) -> Vec<Sample> {
        let pieces = ["qui", "l", "est", "in", "sect", "ka"].map(String::from);
        let corpus = Corpus::new(&Lists::load()).with_pieces(pieces.to_vec());
        (0..n).map(|i| corpus.sample(&mut Rng::from_parts(&[99, i]))).collect()
    }

    #[test]
    fn every_answer_passes_the_rules_that_the_model_is_measured_by() {
        for sample in samples(20_000) {
            for target in &sample.targets {
                let verdict = crate::eval::verdict(&sample.answer, target);
                assert_eq!(verdict, crate::eval::Verdict::Pass, "{sample:?}");
                assert!(sample.prompt.contains(target.as_str()), "{sample:?}");
            }
        }
    }

    #[test]
    fn kept_back_words_are_never_a_target_nor_anywhere_else() {
        let lists = Lists::load();
        let kept = lists.kept_back();
        for sample in samples(40_000) {
            for target in &sample.targets {
                assert!(target.to_lowercase().split([' ', '-']).all(|w| !kept.contains(w)), "{sample:?}");
            }
            let text = format!("{} {}", sample.prompt, sample.answer).to_lowercase();
            assert!(
                text.split(|c: char| !c.is_ascii_alphanumeric()).all(|w| !kept.contains(w)),
                "{sample:?}"
            );
        }
    }

    #[test]
    fn held_out_phrasings_never_occur() {
        let lists = Lists::load();
        for sample in samples(20_000) {
            for phrasing in &lists.phrasings_held_out {
                assert_ne!(sample.prompt, phrasing.replace("{W}", &sample.targets[0]));
            }
        }
    }

    #[test]
    fn all_sixty_numbers_occur_in_both_forms() {
        let lists = Lists::load();
        let targets: HashSet<String> = samples(20_000).into_iter().flat_map(|s| s.targets).collect();
        for number in lists.numbers {
            assert!(targets.contains(number), "{number}");
            assert!(targets.contains(&number.replace('-', " ")), "{number}");
        }
    }

    #[test]
    fn answers_vary() {
        let answers: HashSet<String> = samples(2000).into_iter().map(|s| s.answer).collect();
        assert!(answers.len() > 1500, "{}", answers.len());
    }
}
