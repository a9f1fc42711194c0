//! Two answers to the same prompts, held against each other.

use sha2::{Digest, Sha256};

use crate::engine_http::Completed;
use crate::record::hex;

/// The answers to each prompt, and to each again.
pub(super) struct Answers {
    pub(super) first: Vec<Completed>,
    pub(super) again: Vec<Completed>,
}

impl Answers {
    /// The first difference of each prompt, in words.
    pub(super) fn differences(&self) -> Vec<String> {
        let pairs = self.first.iter().zip(&self.again).enumerate();
        pairs
            .filter_map(|(nth, (one, other))| {
                Some(format!("prompt {}: {}", nth + 1, difference(one, other)?))
            })
            .collect()
    }

    /// Over the token ids of the first answers.
    pub(super) fn sha256(&self) -> String {
        let mut digest = Sha256::new();
        for token in self.first.iter().flat_map(|answer| &answer.tokens) {
            digest.update(token.to_le_bytes());
        }
        hex(&digest.finalize())
    }
}

fn difference(one: &Completed, other: &Completed) -> Option<String> {
    if one.tokens.is_empty() || other.tokens.is_empty() {
        return Some("the engine does not say which tokens it generated".to_owned());
    }
    let unequal = one.tokens.iter().zip(&other.tokens).position(|(one, other)| one != other);
    if let Some(at) = unequal {
        let (one, other) = (one.tokens[at], other.tokens[at]);
        return Some(format!("token {at} is {one} in one answer and {other} in the other"));
    }
    if one.tokens.len() != other.tokens.len() {
        return Some(format!(
            "one answer has {} tokens and the other {}",
            one.tokens.len(),
            other.tokens.len()
        ));
    }
    if one.content != other.content {
        return Some("the same tokens have another text".to_owned());
    }
    // The next token's draw, or a longer answer, would show what the tokens do not show yet.
    (one.probabilities != other.probabilities).then(|| "the same tokens have other probabilities".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn said(tokens: &[u32], content: &str, probabilities: Value) -> Completed {
        Completed { tokens: tokens.to_vec(), content: content.to_owned(), probabilities }
    }

    /// DET-002
    #[test]
    fn tokens_lengths_texts_and_probabilities_all_count() {
        let answer = || said(&[1, 2], "a b", json!([-0.5, -0.25]));
        assert_eq!(difference(&answer(), &answer()), None);
        let differs = |other: Completed| difference(&answer(), &other).unwrap();
        assert!(differs(said(&[1, 3], "a b", json!([-0.5, -0.25]))).contains("token 1 is 2"));
        assert!(differs(said(&[1], "a b", json!([-0.5, -0.25]))).contains("2 tokens and the other 1"));
        assert!(differs(said(&[1, 2], "a c", json!([-0.5, -0.25]))).contains("another text"));
        assert!(differs(said(&[1, 2], "a b", json!([-0.5, -0.2500001]))).contains("probabilities"));
        assert!(differs(said(&[], "a b", json!([-0.5, -0.25]))).contains("does not say"));
    }

    #[test]
    fn the_digest_is_of_the_first_answers_in_their_order() {
        let of = |first: &[&[u32]]| {
            let first = first.iter().map(|tokens| said(tokens, "", Value::Null)).collect();
            Answers { first, again: Vec::new() }.sha256()
        };
        assert_eq!(of(&[&[1], &[2]]), of(&[&[1, 2]]));
        assert_ne!(of(&[&[1], &[2]]), of(&[&[2], &[1]]));
    }
}
