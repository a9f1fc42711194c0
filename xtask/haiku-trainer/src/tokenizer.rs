//! The tokenizer: pieces learned from the corpus, and the algorithm by which `llama-server`
//! finds them.
//!
//! Five special tokens, 256 bytes, the space mark, the printable ASCII characters and a few
//! hundred merges of lower-case letters. No piece spans a space, so a word has the same pieces
//! wherever it stands, which is what makes copying it easy to learn.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

/// SentencePiece's stand-in for a space.
const SPACE_MARK: char = '\u{2581}';
const FIRST_BYTE: u32 = 5;
/// Words met fewer times than this, which are mostly invented ones, do not shape the pieces.
const RARE: usize = 3;

/// The special tokens, in the order of their ids.
pub const SPECIAL: [&str; 5] = ["<unk>", "<s>", "</s>", "<|user|>", "<|haiku|>"];
/// Starts every prompt.
pub const BOS: u32 = 1;
/// Ends every haiku.
pub const EOS: u32 = 2;
/// Precedes what the user says.
pub const USER: u32 = 3;
/// Precedes the haiku.
pub const HAIKU: u32 = 4;

/// What kind of token an id is, in the numbering of the GGUF format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum TokenType {
    /// Text.
    Normal = 1,
    /// The unknown token.
    Unknown = 2,
    /// Steers the model; not part of any text.
    Control = 3,
    /// One byte.
    Byte = 6,
}

/// Pieces, their ranks, and the way to and from text.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    pieces: Vec<String>,
    ids: HashMap<String, u32>,
    first_merge: u32,
}

impl Tokenizer {
    /// Learns `merges` pieces from the words of `text`: byte-pair encoding over runs of
    /// lower-case letters, the most frequent pair first, ties in alphabetical order.
    #[must_use]
    pub fn learn(text: &str, merges: usize) -> Self {
        let mut pieces: Vec<String> = SPECIAL.iter().map(|s| (*s).to_owned()).collect();
        pieces.extend((0..=255u8).map(|b| format!("<0x{b:02X}>")));
        pieces.push(SPACE_MARK.to_string());
        pieces.extend(('!'..='~').map(String::from));
        let first_merge = pieces.len() as u32;
        let mut words = word_counts(text);
        for _ in 0..merges {
            let Some((left, right)) = most_frequent_pair(&words) else { break };
            let merged = format!("{left}{right}");
            for (word, _) in &mut words {
                merge_in(word, &left, &right, &merged);
            }
            pieces.push(merged);
        }
        let ids = pieces.iter().enumerate().map(|(i, p)| (p.clone(), i as u32)).collect();
        Self { pieces, ids, first_merge }
    }

    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Never true: the special tokens are always there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Every token's text, by id.
    #[must_use]
    pub fn pieces(&self) -> &[String] {
        &self.pieces
    }

    /// The pieces that were learned, most frequent first.
    #[must_use]
    pub fn learned(&self) -> &[String] {
        self.pieces.get(self.first_merge as usize..).unwrap_or_default()
    }

    /// The rank of a piece: pieces with higher scores are put together first.
    #[must_use]
    pub fn score(&self, id: u32) -> f32 {
        if id < self.first_merge { 0.0 } else { -((id - self.first_merge + 1) as f32) }
    }

    /// What kind of token `id` is.
    #[must_use]
    pub fn token_type(&self, id: u32) -> TokenType {
        match id {
            0 => TokenType::Unknown,
            1..FIRST_BYTE => TokenType::Control,
            _ if id < FIRST_BYTE + 256 => TokenType::Byte,
            _ => TokenType::Normal,
        }
    }

    /// The tokens of plain text, as `llama-server` finds them for a `llama` vocabulary: of all
    /// neighbours that form a piece, the best-ranked and then the leftmost is merged, until
    /// none is left. Characters without a piece become bytes.
    #[must_use]
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut out = Vec::with_capacity(text.len());
        // Merges never cross anything but lower-case letters, so runs can be done apart.
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let run = rest.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.len());
            if run > 0 {
                self.encode_run(&rest[..run], &mut out);
                rest = &rest[run..];
                continue;
            }
            let (head, tail) = rest.split_at(first.len_utf8());
            let mark = if first == ' ' { SPACE_MARK } else { first };
            match self.ids.get(mark.to_string().as_str()) {
                Some(id) => out.push(*id),
                None => out.extend(head.bytes().map(|b| FIRST_BYTE + u32::from(b))),
            }
            rest = tail;
        }
        out
    }

    fn encode_run(&self, run: &str, out: &mut Vec<u32>) {
        let mut parts: Vec<&str> = (0..run.len()).map(|i| &run[i..=i]).collect();
        let mut at: Vec<usize> = (0..run.len()).collect();
        loop {
            let best = (1..parts.len())
                .filter_map(|i| {
                    let joined = &run[at[i - 1]..at[i] + parts[i].len()];
                    self.ids.get(joined).map(|id| (*id, i, joined))
                })
                .min_by_key(|&(id, i, _)| (id, i));
            let Some((_, i, joined)) = best else { break };
            parts[i - 1] = joined;
            parts.remove(i);
            at.remove(i);
        }
        out.extend(parts.iter().filter_map(|p| self.ids.get(*p)));
    }

    /// The text of `ids`; special tokens have none.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut bytes = Vec::new();
        for &id in ids {
            match self.token_type(id) {
                TokenType::Byte => bytes.extend(u8::try_from(id - FIRST_BYTE)),
                TokenType::Normal => {
                    let piece = self.pieces.get(id as usize).map_or("", String::as_str);
                    bytes.extend_from_slice(piece.replace(SPACE_MARK, " ").as_bytes());
                }
                TokenType::Unknown | TokenType::Control => {}
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn word_counts(text: &str) -> Vec<(Vec<String>, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for word in text.split(|c: char| !c.is_ascii_lowercase()).filter(|w| w.len() > 1) {
        *counts.entry(word).or_default() += 1;
    }
    counts
        .into_iter()
        .filter(|(_, n)| *n >= RARE)
        .map(|(w, n)| (w.chars().map(String::from).collect(), n))
        .collect()
}

fn most_frequent_pair(words: &[(Vec<String>, usize)]) -> Option<(String, String)> {
    let mut pairs: HashMap<(&str, &str), usize> = HashMap::new();
    for (word, n) in words {
        for pair in word.windows(2) {
            *pairs.entry((&pair[0], &pair[1])).or_default() += n;
        }
    }
    let best = pairs.into_iter().min_by_key(|&(pair, n)| (Reverse(n), pair));
    best.map(|((left, right), _)| (left.to_owned(), right.to_owned()))
}

fn merge_in(word: &mut Vec<String>, left: &str, right: &str, merged: &str) {
    let mut i = 0;
    while i + 1 < word.len() {
        if word[i] == left && word[i + 1] == right {
            merged.clone_into(&mut word[i]);
            word.remove(i + 1);
        }
        i += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::{Corpus, Lists};
    use crate::rng::Rng;

    fn learned() -> (Corpus, Tokenizer) {
        let corpus = Corpus::new(&Lists::load());
        let text = corpus.tokenizer_text(&mut Rng::from_parts(&[1]), 3000);
        (corpus, Tokenizer::learn(&text, 300))
    }

    #[test]
    fn text_survives_the_round_trip_and_gets_shorter() {
        let (corpus, tokenizer) = learned();
        assert_eq!(tokenizer.len(), 656);
        let (mut chars, mut tokens) = (0, 0);
        for i in 0..500 {
            let sample = corpus.sample(&mut Rng::from_parts(&[77, i]));
            for text in [sample.prompt, sample.answer] {
                let ids = tokenizer.encode(&text);
                assert_eq!(tokenizer.decode(&ids), text);
                chars += text.len();
                tokens += ids.len();
            }
        }
        assert!(tokens * 3 < chars * 2, "{tokens} tokens for {chars} characters");
        let odd = "Déjà vu \u{201c}twenty-nine\u{201d}\n\ttab";
        assert_eq!(tokenizer.decode(&tokenizer.encode(odd)), odd);
    }

    #[test]
    fn a_word_has_the_same_pieces_wherever_it_stands() {
        let (_, tokenizer) = learned();
        let alone = tokenizer.encode("lantern");
        for text in ["the lantern, lit", "\"lantern\"", "lantern\n"] {
            let ids = tokenizer.encode(text);
            assert!(ids.windows(alone.len()).any(|w| w == alone), "{text}");
        }
    }

    #[test]
    fn newline_is_its_byte_and_specials_are_not_text() {
        let (_, tokenizer) = learned();
        assert_eq!(tokenizer.encode("\n"), [FIRST_BYTE + 10]);
        assert!(!tokenizer.encode("</s>").contains(&EOS));
        assert_eq!(tokenizer.decode(&[BOS, USER, HAIKU, EOS]), "");
    }
}
