//! The word lists: what is trained on, and what is kept back to measure with.
//!
//! The lists next to the model are committed before it is trained and are the yardstick; the
//! bulk of the training nouns belongs to this crate alone.

use std::collections::HashSet;

/// Lists compiled into the trainer, so that a checkout always measures against its own.
#[derive(Clone, Debug)]
pub struct Lists {
    /// Zero to fifty-nine, with hyphens.
    pub numbers: Vec<&'static str>,
    /// Nouns of the yardstick that are targets in training.
    pub nouns_seen: Vec<&'static str>,
    /// Nouns that are never a target in training.
    pub nouns_unseen: Vec<&'static str>,
    /// Six-letter words that do not exist and are never a target in training.
    pub nonsense: Vec<&'static str>,
    /// The five ways of asking.
    pub phrasings: Vec<&'static str>,
    /// Five more ways of asking that the grammar cannot produce.
    pub phrasings_held_out: Vec<&'static str>,
    /// Further nouns for training.
    pub bulk: Vec<&'static str>,
}

macro_rules! yardstick {
    ($name:literal) => {
        include_str!(concat!("../../../../libs/provisioners/model-provisioner/models/haiku-eval/", $name))
    };
}

impl Lists {
    /// Reads the compiled-in lists, one entry per line.
    #[must_use]
    pub fn load() -> Self {
        Self {
            numbers: lines(yardstick!("numbers.txt")),
            nouns_seen: lines(yardstick!("nouns-seen.txt")),
            nouns_unseen: lines(yardstick!("nouns-unseen.txt")),
            nonsense: lines(yardstick!("nonsense.txt")),
            phrasings: lines(yardstick!("phrasings.txt")),
            phrasings_held_out: lines(yardstick!("phrasings-held-out.txt")),
            bulk: lines(include_str!("../../words/nouns.txt")),
        }
    }

    /// Every noun that may be a target in training.
    #[must_use]
    pub fn training_nouns(&self) -> Vec<&'static str> {
        self.nouns_seen.iter().chain(&self.bulk).copied().collect()
    }

    /// Words that must never be a target in training, in lower case.
    #[must_use]
    pub fn kept_back(&self) -> HashSet<&'static str> {
        self.nouns_unseen.iter().chain(&self.nonsense).copied().collect()
    }
}

fn lines(text: &'static str) -> Vec<&'static str> {
    text.lines().map(str::trim).filter(|l| !l.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_have_the_promised_sizes_and_no_duplicates() {
        let lists = Lists::load();
        for (list, size) in [
            (&lists.numbers, 60),
            (&lists.nouns_seen, 140),
            (&lists.nouns_unseen, 60),
            (&lists.nonsense, 200),
            (&lists.phrasings, 5),
            (&lists.phrasings_held_out, 5),
        ] {
            assert_eq!(list.len(), size);
            assert_eq!(list.iter().collect::<HashSet<_>>().len(), size);
        }
        assert_eq!(
            (lists.numbers[0], lists.numbers[29], lists.numbers[59]),
            ("zero", "twenty-nine", "fifty-nine")
        );
        assert!(lists.nonsense.iter().all(|w| w.len() == 6 && w.bytes().all(|b| b.is_ascii_lowercase())));
        assert!(lists.phrasings.iter().chain(&lists.phrasings_held_out).all(|p| p.contains("{W}")));
    }

    #[test]
    fn no_kept_back_word_is_a_training_noun() {
        let lists = Lists::load();
        let kept = lists.kept_back();
        let nouns = lists.training_nouns();
        assert!(nouns.len() >= 450);
        assert!(nouns.iter().all(|n| !kept.contains(n)));
    }
}
