//! Ways of asking for a haiku.
//!
//! A request is put together from an opening, a verb, a name for the poem, maybe a subject that
//! is not asked for verbatim, a connector, an introduction, the words in some kind of quotes,
//! and a tail. The more ways there are, the less the model leans on any of them.

use super::prompt_parts::{
    ABOUTS, CONNECTORS, EVERYDAY, FILLERS, OPENINGS, POEMS, QUOTES, SUBJECTS, TAILS, VERBS, WHOLE,
};
use crate::rng::Rng;

/// How many words are asked for, which decides between "word" and "words".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// One written word, hyphens included.
    Word,
    /// A number in one written word.
    Number,
    /// Several written words.
    Words,
}

/// Stands for the asked phrases until the rest of the request has its final case.
const MARKER: char = '\u{1}';

/// A request for `phrases`, each of which must come back verbatim.
#[must_use]
pub(super) fn ask(phrases: &[String], asked: Asked, nouns: &[&str], rng: &mut Rng) -> String {
    let quoted = enumerated(phrases, rng);
    let mut text = if rng.chance(0.28) { whole(asked, rng) } else { built(phrases, asked, nouns, rng) };
    if rng.chance(0.3) {
        text = sprinkled(&text, rng);
    }
    if rng.chance(0.22) {
        text = with_fillers(&text, nouns, rng);
    }
    let text = cased(text, rng);
    if quoted.starts_with(": ") {
        // A colon follows the word before it, not the space after that.
        return text.replace(&format!(" {MARKER}"), &quoted).replace(MARKER, &quoted);
    }
    text.replace(MARKER, &quoted)
}

/// The phrases in one kind of quotes, or none, with something like "and" between them.
fn enumerated(phrases: &[String], rng: &mut Rng) -> String {
    let (open, close) = if rng.chance(0.5) { rng.pick(&QUOTES) } else { ("", "") };
    let mut out = String::new();
    for (i, phrase) in phrases.iter().enumerate() {
        if i == 0 {
            out.push_str(open);
        } else {
            let last = i + 1 == phrases.len();
            let separator =
                if last { rng.pick(&[" and ", " and ", " and ", ", ", " & ", ", and "]) } else { ", " };
            out.push_str(separator);
            out.push_str(rng.pick(&["", "", "", "the word ", "also ", "the nonce ", "the number "]));
            // A colon introduces the list; it is not repeated.
            out.push_str(open.trim_start_matches(": "));
        }
        out.push_str(phrase);
        out.push_str(close);
    }
    out
}

fn introduction(asked: Asked, rng: &mut Rng) -> &'static str {
    match asked {
        Asked::Word => rng.pick(&[
            "the word",
            "the word",
            "the word",
            "the word(s)",
            "the words",
            "the exact word",
            "the term",
            "the single word",
            "this word",
        ]),
        Asked::Number => rng.pick(&[
            "the word",
            "the word",
            "the words",
            "the word(s)",
            "the number",
            "the exact word",
            "the term",
        ]),
        Asked::Words => rng.pick(&[
            "the words",
            "the words",
            "the words",
            "the word(s)",
            "the word",
            "the exact words",
            "the phrase",
            "these words",
        ]),
    }
}

fn whole(asked: Asked, rng: &mut Rng) -> String {
    let tail = if rng.chance(0.4) { rng.pick(&TAILS) } else { "" };
    let text = rng.pick(&WHOLE).replace("{N}", introduction(asked, rng)).replace("{W}", &MARKER.to_string());
    format!("{text}{tail}")
}

fn built(phrases: &[String], asked: Asked, nouns: &[&str], rng: &mut Rng) -> String {
    let opening = if rng.chance(0.35) { rng.pick(&OPENINGS) } else { "" };
    let (verb, poem) = (rng.pick(&VERBS), rng.pick(&POEMS));
    let tail = if rng.chance(0.6) { rng.pick(&TAILS) } else { "" };
    if phrases.len() == 1 && rng.chance(0.22) {
        let article = rng.pick(&["", "", "", "the ", "a "]);
        return format!("{opening}{verb} {poem} {} {article}{MARKER}{tail}", rng.pick(&ABOUTS));
    }
    let subject = if rng.chance(0.22) { subject(nouns, rng) } else { String::new() };
    let connector = rng.pick(&CONNECTORS);
    let introduction =
        if rng.chance(0.72) { format!("{} ", introduction(asked, rng)) } else { String::new() };
    format!("{opening}{verb} {poem}{subject} {connector} {introduction}{MARKER}{tail}")
}

/// What the poem should be about, next to the words that it must hold.
fn subject(nouns: &[&str], rng: &mut Rng) -> String {
    let about = rng.pick(&ABOUTS);
    if rng.chance(0.5) {
        return format!(" {about} {}", rng.pick(&SUBJECTS));
    }
    let noun = rng.choose(nouns).copied().unwrap_or("rain");
    format!(" {about} {}{noun}", rng.pick(&["the ", "a ", "my ", ""]))
}

fn with_fillers(text: &str, nouns: &[&str], rng: &mut Rng) -> String {
    let mut filler = || {
        let mut out = rng.pick(&FILLERS).to_owned();
        while let Some(at) = out.find("{F}") {
            out.replace_range(at..at + 3, rng.choose(nouns).copied().unwrap_or("rain"));
        }
        out
    };
    let (one, two) = (filler(), filler());
    match rng.below(4) {
        0 => format!("{one} {text}"),
        1 => format!("{one} {two} {text}"),
        2 => format!("{one} {text}. {two}"),
        _ => format!("{}. {one}", text.trim_end_matches(['.', '!', '?'])),
    }
}

/// Puts a few everyday words anywhere, so that the model learns to tell the asked word from
/// them, and not to count on the words around it.
fn sprinkled(text: &str, rng: &mut Rng) -> String {
    let mut words: Vec<&str> = text.split(' ').collect();
    for _ in 0..=rng.below(4) {
        words.insert(rng.below(words.len() + 1), rng.pick(&EVERYDAY));
    }
    words.join(" ")
}

/// Sentences start with capitals for most writers, but not for all.
fn cased(text: String, rng: &mut Rng) -> String {
    match rng.below(100) {
        0..74 => capitalised(&text),
        74..95 => text,
        _ => text.to_uppercase(),
    }
}

fn capitalised(text: &str) -> String {
    let mut start = true;
    text.replace(" i ", " I ")
        .chars()
        .map(|c| {
            let out = if start { c.to_ascii_uppercase() } else { c };
            if !c.is_whitespace() {
                start = matches!(c, '.' | '!' | '?');
            }
            out
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_request_names_each_phrase_verbatim_and_requests_vary() {
        let mut rng = Rng::from_parts(&[8]);
        let phrases = ["xqzvbn".to_owned(), "Twenty two".to_owned()];
        let mut seen = HashSet::new();
        for i in 0..4000 {
            let (phrases, asked) =
                if i % 2 == 0 { (&phrases[..1], Asked::Word) } else { (&phrases[..], Asked::Words) };
            let text = ask(phrases, asked, &["oak", "sea"], &mut rng);
            assert!(phrases.iter().all(|p| text.contains(p)), "{text}");
            assert!(!text.contains(['\u{1}', '{', '}']), "{text}");
            assert!(text.len() < 260, "{text}");
            seen.insert(text);
        }
        assert!(seen.len() > 3500);
    }
}
