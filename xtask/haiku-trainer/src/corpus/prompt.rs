//! Ways of asking for a haiku.
//!
//! A request is put together from an opening, a verb, a name for the poem, maybe a subject that
//! is not asked for verbatim, a connector, an introduction, the words in some kind of quotes,
//! and a tail. The more ways there are, the less the model leans on any of them.

use crate::rng::Rng;

const OPENINGS: [&str; 14] = [
    "please ",
    "can you ",
    "could you ",
    "could you please ",
    "can you please ",
    "would you ",
    "kindly ",
    "hi, ",
    "hello! please ",
    "now ",
    "i want you to ",
    "i would like you to ",
    "you are a poet. ",
    "your task is to ",
];
const VERBS: [&str; 28] = [
    "write",
    "write me",
    "compose",
    "create",
    "make",
    "make me",
    "give me",
    "generate",
    "produce",
    "craft",
    "draft",
    "share",
    "tell me",
    "show me",
    "send me",
    "invent",
    "think of",
    "come up with",
    "i need",
    "i want",
    "i'd like",
    "i would like",
    "let me have",
    "write",
    "write",
    "compose",
    "write up",
    "provide",
];
const POEMS: [&str; 22] = [
    "a haiku",
    "a haiku",
    "a haiku",
    "a short haiku",
    "one haiku",
    "haiku",
    "a haiku poem",
    "a three-line haiku",
    "a 5-7-5 haiku",
    "a simple haiku",
    "a nice haiku",
    "a poem",
    "a short poem",
    "a little haiku",
    "a japanese haiku",
    "an english haiku",
    "a tiny poem",
    "a poem of three lines",
    "three lines",
    "a three line poem",
    "a quick haiku",
    "a beautiful haiku",
];
const CONNECTORS: [&str; 26] = [
    "that includes",
    "that includes",
    "which includes",
    "including",
    "that contains",
    "which contains",
    "containing",
    "with",
    "using",
    "that uses",
    "featuring",
    "that features",
    "that mentions",
    "mentioning",
    "that has",
    "having",
    "that must include",
    "and include",
    "and use",
    "that must contain",
    "and mention",
    "that must use",
    "where one line has",
    "with a line that has",
    "built around",
    "which uses",
];
const ABOUTS: [&str; 8] =
    ["about", "about", "about", "on", "on the subject of", "for", "on the theme of", "inspired by"];
const SUBJECTS: [&str; 18] = [
    "GPU computing",
    "computers",
    "the weather",
    "nature",
    "love",
    "time",
    "a quiet day",
    "an old friend",
    "coming home",
    "machines",
    "the changing seasons",
    "work",
    "learning to wait",
    "my dog",
    "being alive",
    "a long road",
    "open source software",
    "nothing at all",
];
const QUOTES: [(&str, &str); 13] = [
    ("\"", "\""),
    ("\"", "\""),
    ("\"", "\""),
    ("'", "'"),
    ("'", "'"),
    ("\u{201c}", "\u{201d}"),
    ("`", "`"),
    ("*", "*"),
    ("**", "**"),
    ("(", ")"),
    (": ", ""),
    (": \"", "\""),
    ("<", ">"),
];
const TAILS: [&str; 28] = [
    ".",
    ".",
    ".",
    ".",
    "!",
    "?",
    " please",
    " please.",
    ", please",
    ", please.",
    " in it",
    " in it.",
    " somewhere in it.",
    " in three lines.",
    " in one of its lines.",
    ". keep it short.",
    ". thanks!",
    ", thanks",
    " exactly as written.",
    " verbatim.",
    ". thank you.",
    " for me",
    " for me.",
    " today",
    ". return only the haiku.",
    ". three lines only.",
    ". answer with the haiku only.",
    " and nothing else.",
];
/// Requests that are not built from the parts above; `{W}` is the asked phrase.
const WHOLE: [&str; 16] = [
    "use {N} {W} in a haiku",
    "{N} is {W}. write a haiku with it",
    "haiku: {W}",
    "haiku {W}",
    "{W}",
    "{W} haiku",
    "{W}: a haiku please",
    "haiku about {W}",
    "a haiku about {W}",
    "a haiku with {N} {W}",
    "haiku with {W}",
    "the haiku must contain {N} {W}",
    "include {N} {W} in your haiku",
    "turn {W} into a haiku",
    "i want to read a haiku with {W} in it",
    "include {W} in a haiku",
];
/// Sentences around the request that ask for nothing; `{F}` is some noun.
const FILLERS: [&str; 16] = [
    "it is late.",
    "i saw a {F} today.",
    "the {F} is old.",
    "we talked about the {F}.",
    "my {F} is here.",
    "i like the {F}.",
    "good morning.",
    "be brief.",
    "no title.",
    "use simple english.",
    "do not explain.",
    "there is a {F} near the {F}.",
    "this is a test.",
    "today i am tired.",
    "follow the 5-7-5 form.",
    "it should be calm.",
];

/// How many words are asked for, which decides between "word" and "words".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// One written word, hyphens included.
    Word,
    /// A number in one written word.
    Number,
    /// Several written words.
    Words,
}

/// A request for `phrases`, each of which must come back verbatim.
#[must_use]
pub fn ask(phrases: &[String], asked: Asked, nouns: &[&str], rng: &mut Rng) -> String {
    let mut quoted = String::new();
    let quote = rng.chance(0.5).then(|| rng.pick(&QUOTES));
    for (i, phrase) in phrases.iter().enumerate() {
        if i > 0 {
            quoted.push_str(if i + 1 < phrases.len() {
                ", "
            } else {
                rng.pick(&[" and ", " and ", " and ", ", ", " & ", ", and "])
            });
            quoted.push_str(rng.pick(&["", "", "", "the word ", "also ", "the nonce ", "the number "]));
        }
        match quote {
            // A colon introduces the list; it is not repeated.
            Some((open, close)) => quoted.push_str(&format!(
                "{}{phrase}{close}",
                if i > 0 { open.trim_start_matches(": ") } else { open }
            )),
            None => quoted.push_str(phrase),
        }
    }
    let marker = '\u{1}';
    let mut text =
        if rng.chance(0.14) { whole(asked, rng, marker) } else { built(phrases, asked, nouns, rng, marker) };
    if rng.chance(0.24) {
        text = with_fillers(&text, nouns, rng);
    }
    // The asked words keep their case whatever happens to the rest.
    let text = cased(text, rng);
    let text = text.replace(&format!(" {marker}: "), &format!("{marker}: "));
    if quoted.starts_with(": ") {
        text.replace(&format!(" {marker}"), &marker.to_string()).replace(marker, &quoted)
    } else {
        text.replace(marker, &quoted)
    }
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

fn whole(asked: Asked, rng: &mut Rng, marker: char) -> String {
    let tail = if rng.chance(0.4) { rng.pick(&TAILS) } else { "" };
    let text = rng.pick(&WHOLE).replace("{N}", introduction(asked, rng)).replace("{W}", &marker.to_string());
    format!("{text}{tail}")
}

fn built(phrases: &[String], asked: Asked, nouns: &[&str], rng: &mut Rng, marker: char) -> String {
    let opening = if rng.chance(0.35) { rng.pick(&OPENINGS) } else { "" };
    let (verb, poem) = (rng.pick(&VERBS), rng.pick(&POEMS));
    let tail = if rng.chance(0.6) { rng.pick(&TAILS) } else { "" };
    if phrases.len() == 1 && rng.chance(0.22) {
        let article = rng.pick(&["", "", "", "the ", "a "]);
        return format!("{opening}{verb} {poem} {} {article}{marker}{tail}", rng.pick(&ABOUTS));
    }
    let subject = if rng.chance(0.22) { subject(nouns, rng) } else { String::new() };
    let connector = rng.pick(&CONNECTORS);
    let introduction =
        if rng.chance(0.72) { format!("{} ", introduction(asked, rng)) } else { String::new() };
    format!("{opening}{verb} {poem}{subject} {connector} {introduction}{marker}{tail}")
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
