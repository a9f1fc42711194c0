//! Runs every committed list through every phrasing and counts.

use anyhow::Result;

use super::verdict::{Verdict, verdict};
use crate::corpus::Lists;

/// The result of one list.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Which list, and with which phrasings.
    pub name: String,
    /// Requests that passed.
    pub passed: usize,
    /// Requests made.
    pub asked: usize,
    /// Up to a handful of failures, to look at.
    pub failures: Vec<String>,
}

impl Row {
    /// Passed requests in percent; 0 when nothing was asked.
    #[must_use]
    pub fn percent(&self) -> f64 {
        100.0 * self.passed as f64 / self.asked.max(1) as f64
    }
}

const SHOWN_FAILURES: usize = 12;

/// Asks for every word of every list in the first `phrasings` phrasings.
///
/// With `held_out`, the phrasings that training cannot produce are used instead.
///
/// # Errors
/// Whatever `chat` fails with.
pub fn measure(
    lists: &Lists,
    phrasings: usize,
    held_out: bool,
    mut chat: impl FnMut(&str) -> Result<String>,
) -> Result<Vec<Row>> {
    let spaced: Vec<String> = lists.numbers.iter().map(|n| n.replace('-', " ")).collect();
    let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let sets = [
        ("numbers, hyphen", owned(&lists.numbers)),
        ("numbers, space", spaced),
        ("nouns seen in training", owned(&lists.nouns_seen)),
        ("nouns never a target", owned(&lists.nouns_unseen)),
        ("six letters, no word", owned(&lists.nonsense)),
    ];
    let ways = if held_out { &lists.phrasings_held_out } else { &lists.phrasings };
    let mut rows = Vec::new();
    for (name, words) in sets {
        let mut row = Row { name: name.to_owned(), ..Row::default() };
        for way in ways.iter().take(phrasings) {
            for word in &words {
                let prompt = request(way, word);
                let answer = chat(&prompt)?;
                row.asked += 1;
                match verdict(&answer, word) {
                    Verdict::Pass => row.passed += 1,
                    wrong if row.failures.len() < SHOWN_FAILURES => {
                        row.failures.push(format!("{wrong:?}: {prompt:?} -> {answer:?}"));
                    }
                    _ => {}
                }
            }
        }
        rows.push(row);
    }
    Ok(rows)
}

/// A phrasing with the words put in.
fn request(phrasing: &str, words: &str) -> String {
    let noun = if words.contains(' ') { "words" } else { "word" };
    phrasing.replace("{words}", noun).replace("{W}", words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_asked_for_in_every_phrasing_and_failures_count() -> Result<()> {
        let lists = Lists::load();
        let mut asked = Vec::new();
        let rows = measure(&lists, 5, false, |prompt| {
            asked.push(prompt.to_owned());
            let word = if prompt.contains("twenty nine") { "twenty nine" } else { "pebble" };
            Ok(format!("my {word} in the rain\nthe cold wind wanders\nsilver river bends"))
        })?;
        assert_eq!(asked.len(), (60 + 60 + 140 + 60 + 200) * 5);
        assert!(asked.contains(&"Write a haiku that includes the words twenty nine".to_owned()));
        assert!(asked.contains(&"Write a haiku that includes the word twenty-nine".to_owned()));
        let passed: Vec<usize> = rows.iter().map(|r| r.passed).collect();
        // "pebble" is one of the nouns that are never a target.
        assert_eq!(passed, [0, 5, 0, 5, 0]);
        Ok(())
    }
}
