//! Words that do not exist, which teach the model to copy letters instead of recalling words.
//!
//! Random letters alone leave gaps: a word that starts like a function word ("in" + "vast") or
//! repeats itself ("pebeb") tempts the model to go on with what it knows, so both kinds are
//! made on purpose.

use crate::rng::Rng;

const CONSONANTS: &[u8; 20] = b"bcdfghjklmnpqrstvwyz";
const VOWELS: &[u8; 5] = b"aeiou";
const LONGEST_JOINED: usize = 10;
/// Beginnings that are words of their own in the prompts or the haiku.
const LURES: [&str; 36] = [
    "in", "on", "al", "an", "the", "no", "so", "is", "it", "at", "to", "be", "we", "he", "me", "my", "one",
    "un", "re", "of", "or", "under", "over", "and", "by", "wi", "for", "can", "wo", "ha", "with", "ten",
    "six", "some", "wh", "al",
];

/// One invented word; `nouns` lend halves to the compounds, `pieces` are the tokenizer's.
#[must_use]
pub(super) fn word(rng: &mut Rng, nouns: &[&str], pieces: &[String]) -> String {
    match rng.below(100) {
        0..22 => letters(rng),
        22..40 => syllables(rng),
        40..50 => compound(rng, nouns),
        50..69 => joined(rng, pieces),
        69..80 => lured(rng),
        80..88 => repeating(rng),
        88..90 => format!("{}-{}", syllables(rng), syllables(rng)),
        90..95 => capitalised(rng, nouns),
        _ => code(rng),
    }
}

/// Half of all invented words have six letters; the rest spread around.
fn length(rng: &mut Rng) -> usize {
    if rng.chance(0.5) { 6 } else { 3 + rng.below(8) }
}

fn letters(rng: &mut Rng) -> String {
    (0..length(rng)).map(|_| letter(rng)).collect()
}

fn letter(rng: &mut Rng) -> char {
    char::from(b'a' + rng.below(26) as u8)
}

fn syllables(rng: &mut Rng) -> String {
    let wanted = length(rng);
    let mut out = String::new();
    let mut vowel = rng.chance(0.3);
    while out.len() < wanted {
        let from: &[u8] = if vowel { VOWELS } else { CONSONANTS };
        out.push(rng.choose(from).map_or('a', |b| char::from(*b)));
        // Now and then two of a kind, as in "vobnik" or "poem".
        vowel = if rng.chance(0.2) { vowel } else { !vowel };
    }
    out
}

/// The head of one noun and the tail of another.
fn compound(rng: &mut Rng, nouns: &[&str]) -> String {
    let (Some(head), Some(tail)) = (rng.choose(nouns), rng.choose(nouns)) else {
        return syllables(rng);
    };
    let cut = 1 + rng.below(head.len().saturating_sub(1));
    let from = rng.below(tail.len().saturating_sub(1));
    format!("{}{}", head.get(..cut).unwrap_or(head), tail.get(from..).unwrap_or(tail))
}

/// Pieces of the tokenizer side by side. Without them some pieces are met in a word or two only,
/// and the model takes one such piece for another: "quilt" came back as "winlt".
fn joined(rng: &mut Rng, pieces: &[String]) -> String {
    let mut out = String::new();
    for _ in 0..2 + rng.below(3) {
        let piece = rng.choose(pieces).map_or("ba", String::as_str);
        if out.len() + piece.len() <= LONGEST_JOINED {
            out.push_str(piece);
        }
        if rng.chance(0.25) {
            out.push(letter(rng));
        }
    }
    out
}

fn lured(rng: &mut Rng) -> String {
    let tail = if rng.chance(0.7) { syllables(rng) } else { letters(rng) };
    let keep = 1 + rng.below(5.min(tail.len()));
    format!("{}{}", rng.pick(&LURES), &tail[..keep])
}

/// Doubled letters and echoed syllables.
fn repeating(rng: &mut Rng) -> String {
    let mut out = syllables(rng);
    out.truncate(2 + rng.below(3));
    let from = rng.below(out.len());
    let echo = out[from..].to_owned();
    out.push_str(&echo);
    if rng.chance(0.5) {
        let doubled = out.pop().unwrap_or('b');
        out.push(doubled);
        out.push(doubled);
    }
    if rng.chance(0.6) {
        out.push_str(rng.pick(&["le", "er", "y", "a", "et", "on", "s", "ing"]));
    }
    out
}

fn capitalised(rng: &mut Rng, nouns: &[&str]) -> String {
    let word = rng.choose(nouns).map_or_else(|| syllables(rng), |n| (*n).to_owned());
    if rng.chance(0.3) {
        return word.to_uppercase();
    }
    let mut chars = word.chars();
    chars.next().map_or(word.clone(), |c| c.to_uppercase().chain(chars).collect())
}

/// Something like a request id: letters of both cases and digits.
fn code(rng: &mut Rng) -> String {
    let len = 2 + rng.below(7);
    let lower_only = rng.chance(0.4);
    (0..len)
        .map(|_| match rng.below(3) {
            0 => char::from(b'0' + rng.below(10) as u8),
            1 if !lower_only => letter(rng).to_ascii_uppercase(),
            _ => letter(rng),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn words_are_plain_varied_and_often_six_letters_long() {
        let mut rng = Rng::from_parts(&[2]);
        let words: Vec<String> = (0..5000)
            .map(|_| word(&mut rng, &["lantern", "grove", "ox"], &["qui".into(), "l".into(), "est".into()]))
            .collect();
        assert!(words.iter().all(|w| !w.is_empty() && w.len() <= 24), "no word may fill a whole line");
        assert!(words.iter().all(|w| w.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')));
        assert!(words.iter().collect::<HashSet<_>>().len() > 3500);
        assert!(words.iter().filter(|w| w.len() == 6).count() > 1200);
    }
}
