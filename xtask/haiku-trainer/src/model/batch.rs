//! A ragged batch: sequences of different length laid end to end, with no padding.

/// Tokens of several sequences and the positions whose next token is asked for.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    tokens: Vec<u32>,
    bounds: Vec<usize>,
    asked: Vec<usize>,
    answers: Vec<u32>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self { bounds: vec![0], ..Self::default() }
    }

    /// Adds a training sequence; the loss counts the tokens from index `prompt_len` on.
    pub fn push_sample(&mut self, ids: &[u32], prompt_len: usize) {
        let Some((_, inputs)) = ids.split_last() else { return };
        let start = self.tokens.len();
        self.tokens.extend_from_slice(inputs);
        for (position, answer) in ids.iter().enumerate().skip(prompt_len.max(1)) {
            self.asked.push(start + position - 1);
            self.answers.push(*answer);
        }
        self.bounds.push(self.tokens.len());
    }

    /// Adds a sequence of which only the token after the end is asked for.
    pub fn push_prompt(&mut self, ids: &[u32]) {
        if ids.is_empty() {
            return;
        }
        self.tokens.extend_from_slice(ids);
        self.asked.push(self.tokens.len() - 1);
        self.bounds.push(self.tokens.len());
    }

    /// All input tokens, one row of activations each.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// First row and length of each sequence.
    pub fn sequences(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.bounds.windows(2).map(|w| (w[0], w[1] - w[0]))
    }

    /// Rows whose next token is asked for.
    #[must_use]
    pub fn asked(&self) -> &[usize] {
        &self.asked
    }

    /// The right next token of each asked row; empty for a batch of prompts.
    #[must_use]
    pub fn answers(&self) -> &[u32] {
        &self.answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_is_asked_for() {
        let mut batch = Batch::new();
        batch.push_sample(&[1, 2, 3, 4, 5], 3);
        batch.push_sample(&[6, 7, 8], 2);
        assert_eq!(batch.tokens(), [1, 2, 3, 4, 6, 7]);
        assert_eq!(batch.sequences().collect::<Vec<_>>(), [(0, 4), (4, 2)]);
        assert_eq!(batch.asked(), [2, 3, 5]);
        assert_eq!(batch.answers(), [4, 5, 8]);
    }
}
