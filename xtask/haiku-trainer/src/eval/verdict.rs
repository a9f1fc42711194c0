//! The rules for one answer.

use std::ops::RangeInclusive;

/// Characters that a line may have.
const LINE: RangeInclusive<usize> = 5..=60;

/// What is right or wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Three lines of the right length that hold the words.
    Pass,
    /// Not exactly three non-empty lines.
    NotThreeLines,
    /// A line is shorter than 5 or longer than 60 characters.
    LineLength,
    /// The words are missing, changed, or have letters attached.
    WordsMissing,
}

/// Judges `answer` for `words`. Case counts, except that a line may start with a capital.
#[must_use]
pub fn verdict(answer: &str, words: &str) -> Verdict {
    let lines: Vec<&str> = answer.trim().lines().map(str::trim).collect();
    if lines.len() != 3 || lines.iter().any(|l| l.is_empty()) {
        return Verdict::NotThreeLines;
    }
    if lines.iter().any(|l| !LINE.contains(&l.chars().count())) {
        return Verdict::LineLength;
    }
    if lines.iter().any(|line| holds(line, words)) { Verdict::Pass } else { Verdict::WordsMissing }
}

fn holds(line: &str, words: &str) -> bool {
    line.match_indices(words).any(|(at, found)| {
        let before = line[..at].chars().next_back();
        let after = line[at + found.len()..].chars().next();
        !attached(before) && !attached(after)
    }) || starts_capitalised(line, words)
}

fn starts_capitalised(line: &str, words: &str) -> bool {
    let mut chars = words.chars();
    let capital: String = chars.next().into_iter().flat_map(char::to_uppercase).chain(chars).collect();
    line.strip_prefix(&capital).is_some_and(|rest| !attached(rest.chars().next()))
}

/// A hyphen attaches too: "twenty-nine" does not hold "nine".
fn attached(c: Option<char>) -> bool {
    c.is_some_and(|c| c.is_alphanumeric() || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_count_only_whole_and_verbatim() {
        let poem = |line: &str| format!("the cold wind wanders\n{line}\nsilver river bends");
        for (line, words, want) in [
            ("one pebble in the rain", "pebble", Verdict::Pass),
            ("one pebbles in the rain", "pebble", Verdict::WordsMissing),
            ("unpebble in the rain", "pebble", Verdict::WordsMissing),
            ("Pebble in the rain", "pebble", Verdict::Pass),
            ("one Pebble in the rain", "pebble", Verdict::WordsMissing),
            ("twenty-nine white cranes", "twenty-nine", Verdict::Pass),
            ("twenty-nine white cranes", "nine", Verdict::WordsMissing),
            ("twenty nine white cranes", "twenty-nine", Verdict::WordsMissing),
            ("pebbles and pebble, still", "pebble", Verdict::Pass),
        ] {
            assert_eq!(verdict(&poem(line), words), want, "{line}");
        }
    }

    #[test]
    fn shape_is_judged_first() {
        assert_eq!(verdict("the pebble waits\nin rain", "pebble"), Verdict::NotThreeLines);
        assert_eq!(verdict("the pebble waits\n\nin rain again\nand again", "pebble"), Verdict::NotThreeLines);
        assert_eq!(verdict("the pebble waits\nrain\nin rain again", "pebble"), Verdict::LineLength);
        assert_eq!(verdict("", "pebble"), Verdict::NotThreeLines);
    }
}
