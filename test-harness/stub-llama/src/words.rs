//! The model: the next word is a hash of the seed and of every token before it. So a generation
//! is a pure function of (prompt, seed), and one that is broken off goes on identically when the
//! prompt comes back with the tokens so far behind it, as text or as token ids.

/// Some words need several bytes a character, so that no test lives on ASCII alone.
const WORDS: [&str; 32] = [
    "autumn", "moon", "river", "stone", "quiet", "lantern", "naïve", "café", "日本", "風", "🍁", "frog",
    "pond", "rain", "willow", "heron", "snow", "bell", "temple", "dusk", "reed", "moss", "crane", "plum",
    "mist", "ember", "sparrow", "harbour", "winter", "garden", "silence", "wind",
];

/// Ids of the model's own words start here; id 2 ends a generation.
const FIRST_ID: u32 = 1000;
pub(crate) const EOS: u32 = 2;

/// The tokens of a text: a token starts at each space, so that a text and its continuation
/// tokenise to the prompt's tokens followed by the generated ones.
#[must_use]
pub fn tokenize(text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    let mut start = 0;
    let spaces = text.match_indices(' ').map(|(at, _)| at);
    for end in spaces.chain([text.len()]) {
        if end > start {
            ids.push(id_of(&text[start..end]));
            start = end;
        }
    }
    ids
}

fn id_of(piece: &str) -> u32 {
    let word = piece.strip_prefix(' ').unwrap_or_default();
    match WORDS.iter().position(|w| *w == word) {
        Some(index) => FIRST_ID + u32::try_from(index).unwrap_or(0),
        // Outside the model's words any stable number does.
        None => 100_000 + (piece.bytes().fold(17, |h, b| mix(h ^ u64::from(b))) % 1_000_000) as u32,
    }
}

/// splitmix64's finisher.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What the model says after a prompt: an endless iterator of (token id, text).
#[derive(Debug, Clone)]
pub struct Continuation {
    state: u64,
    seed: u64,
}

impl Continuation {
    /// After these tokens.
    #[must_use]
    pub fn new(prompt: &[u32], seed: u32) -> Self {
        let state = prompt.iter().fold(0, |state, id| mix(state ^ u64::from(*id)));
        Self { state, seed: u64::from(seed) }
    }
}

impl Iterator for Continuation {
    type Item = (u32, String);

    fn next(&mut self) -> Option<Self::Item> {
        let index = (mix(self.state ^ mix(self.seed)) % WORDS.len() as u64) as usize;
        let id = FIRST_ID + index as u32;
        self.state = mix(self.state ^ u64::from(id));
        Some((id, format!(" {}", WORDS[index])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_cut_anywhere_goes_on_as_if_it_had_not_been() {
        let prompt = "Write a haiku ";
        let whole: Vec<_> = Continuation::new(&tokenize(prompt), 7).take(50).collect();
        for cut in [1, 13, 49] {
            let text: String = whole[..cut].iter().map(|(_, t)| t.as_str()).collect();
            let resumed: Vec<_> =
                Continuation::new(&tokenize(&format!("{prompt}{text}")), 7).take(50 - cut).collect();
            assert_eq!(resumed, whole[cut..]);
            let ids: Vec<u32> =
                tokenize(prompt).into_iter().chain(whole[..cut].iter().map(|(id, _)| *id)).collect();
            assert_eq!(Continuation::new(&ids, 7).next().unwrap(), whole[cut]);
        }
    }

    #[test]
    fn the_seed_and_the_prompt_both_matter() {
        let say = |prompt: &str, seed| -> Vec<_> {
            Continuation::new(&tokenize(prompt), seed).take(20).map(|(id, _)| id).collect()
        };
        assert_eq!(say("a b", 1), say("a b", 1));
        assert_ne!(say("a b", 1), say("a b", 2));
        assert_ne!(say("a b", 1), say("b a", 1));
    }
}
