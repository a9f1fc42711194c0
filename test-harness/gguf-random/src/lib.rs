//! Writes small llama-architecture GGUF files with random weights, for tests that need the shape of
//! a model and not its sense: a real `llama-server` loads them and generates (nonsense) from them.
//!
//! The same [`Shape`] always gives the same bytes. It trains nothing and reads nothing.
#![forbid(unsafe_code)]

mod encode;
mod vocab;

use std::io;
use std::path::Path;

use encode::{Encoder, Precision};

/// What the model looks like. The default is small on purpose, about 0.6 MB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// `general.name`.
    pub name: String,
    /// Transformer blocks.
    pub layers: u32,
    /// Embedding width; a multiple of `heads` × 2.
    pub width: u32,
    /// Attention heads.
    pub heads: u32,
    /// Tokens; at least [`Shape::MIN_VOCAB`].
    pub vocab: u32,
    /// `llama.context_length`.
    pub ctx: u32,
    /// Seed of the weights.
    pub seed: u64,
    /// Whether a chat template is written.
    pub chat_template: bool,
    /// Matrices in F16 instead of F32.
    pub f16: bool,
    /// The embedding serves as the output matrix, too, as in most models below a billion parameters.
    pub tied_output: bool,
    /// At temperature 0 an answer never ends by itself, only where its limit is. Needs an output matrix of
    /// its own.
    pub endless: bool,
}

/// The token that ends an answer.
const END: u32 = 2;

impl Default for Shape {
    fn default() -> Self {
        Self {
            name: "random".to_owned(),
            layers: 2,
            width: 64,
            heads: 4,
            vocab: 320,
            ctx: 2048,
            seed: 29,
            chat_template: true,
            f16: false,
            tied_output: false,
            endless: false,
        }
    }
}

impl Shape {
    /// Three control tokens, 256 byte tokens, and the space.
    pub const MIN_VOCAB: u32 = 260;

    /// The whole file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let tensors = self.tensors();
        let mut file = Encoder::new(tensors.len() as u64);
        self.write_metadata(&mut file);
        self.write_tensors(&mut file, &tensors, &mut Random(self.seed));
        file.finish()
    }

    fn write_tensors(&self, file: &mut Encoder, tensors: &[(String, Vec<u64>)], random: &mut Random) {
        for (name, dims) in tensors {
            file.tensor(name, dims, self.precision(dims));
        }
        for (name, dims) in tensors {
            let elements: u64 = dims.iter().product();
            // Norm weights near one and the rest near zero, as a freshly initialised network has.
            let (mean, spread) = if name.contains("norm") { (1.0, 0.05) } else { (0.0, 0.4) };
            let silent = self.silent(name);
            let weight = |at| {
                let weight = mean + spread * random.centered();
                if silent.contains(&at) { 0.0 } else { weight }
            };
            file.data((0..elements).map(weight), self.precision(dims));
        }
    }

    /// The same model in `count` files, each by its name as `llama-gguf-split` gives it, with its bytes.
    ///
    /// The weights are drawn file by file, so they are not those of [`Shape::to_bytes`].
    #[must_use]
    pub fn to_split(&self, prefix: &str, count: usize) -> Vec<(String, Vec<u8>)> {
        let tensors = self.tensors();
        let each = tensors.len().div_ceil(count.max(1));
        let groups: Vec<_> = tensors.chunks(each.max(1)).collect();
        let mut random = Random(self.seed);
        let file = |(number, group): (usize, &&[(String, Vec<u64>)])| {
            let mut file = Encoder::new(group.len() as u64);
            if number == 0 {
                self.write_metadata(&mut file);
            }
            file.u16("split.no", number as u16);
            file.u16("split.count", groups.len() as u16);
            file.i32("split.tensors.count", tensors.len() as i32);
            self.write_tensors(&mut file, group, &mut random);
            let name = format!("{prefix}-{:05}-of-{:05}.gguf", number + 1, groups.len());
            (name, file.finish())
        };
        groups.iter().enumerate().map(file).collect()
    }

    /// Writes the file to `path`.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        std::fs::write(path, self.to_bytes())
    }

    /// Elements of a tensor that are zero: the end token's row in the output, whose logit is then never the
    /// largest.
    fn silent(&self, name: &str) -> std::ops::Range<u64> {
        let width = u64::from(self.width);
        let end = u64::from(END);
        if self.endless && name == "output.weight" { end * width..(end + 1) * width } else { 0..0 }
    }

    /// Vectors stay in F32, as everywhere.
    fn precision(&self, dims: &[u64]) -> Precision {
        if self.f16 && dims.len() > 1 { Precision::F16 } else { Precision::F32 }
    }

    fn write_metadata(&self, file: &mut Encoder) {
        let vocab = vocab::build(self.vocab.max(Self::MIN_VOCAB));
        file.text("general.architecture", "llama");
        file.text("general.name", &self.name);
        file.u32("general.file_type", u32::from(self.f16));
        file.u32("llama.block_count", self.layers);
        file.u32("llama.context_length", self.ctx);
        file.u32("llama.embedding_length", self.width);
        file.u32("llama.feed_forward_length", self.width * 2);
        file.u32("llama.attention.head_count", self.heads);
        file.u32("llama.attention.head_count_kv", self.heads);
        file.f32("llama.attention.layer_norm_rms_epsilon", 1e-5);
        file.u32("llama.rope.dimension_count", self.width / self.heads);
        file.u32("llama.vocab_size", vocab.len() as u32);
        file.text("tokenizer.ggml.model", "llama");
        file.texts("tokenizer.ggml.tokens", vocab.iter().map(|t| t.text.as_str()));
        file.f32s("tokenizer.ggml.scores", vocab.iter().map(|t| t.score));
        file.i32s("tokenizer.ggml.token_type", vocab.iter().map(|t| t.kind));
        file.u32("tokenizer.ggml.unknown_token_id", 0);
        file.u32("tokenizer.ggml.bos_token_id", 1);
        file.u32("tokenizer.ggml.eos_token_id", END);
        if self.chat_template {
            file.text(
                "tokenizer.chat_template",
                "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:",
            );
        }
    }

    fn tensors(&self) -> Vec<(String, Vec<u64>)> {
        let width = u64::from(self.width);
        let vocab = u64::from(self.vocab.max(Self::MIN_VOCAB));
        let mut tensors = vec![("token_embd.weight".to_owned(), vec![width, vocab])];
        for layer in 0..self.layers {
            let mut block =
                |name: &str, dims: Vec<u64>| tensors.push((format!("blk.{layer}.{name}.weight"), dims));
            block("attn_norm", vec![width]);
            for name in ["attn_q", "attn_k", "attn_v", "attn_output"] {
                block(name, vec![width, width]);
            }
            block("ffn_norm", vec![width]);
            block("ffn_gate", vec![width, width * 2]);
            block("ffn_up", vec![width, width * 2]);
            block("ffn_down", vec![width * 2, width]);
        }
        tensors.push(("output_norm.weight".to_owned(), vec![width]));
        if !self.tied_output {
            tensors.push(("output.weight".to_owned(), vec![width, vocab]));
        }
        tensors
    }
}

/// splitmix64: enough for weights that nobody looks at, and the same on every machine.
struct Random(u64);

impl Random {
    /// Uniform in -1 to 1.
    fn centered(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_shape_gives_the_same_bytes_and_another_seed_others() {
        let shape = Shape::default();
        assert_eq!(shape.to_bytes(), shape.to_bytes());
        let other = Shape { seed: 30, ..shape.clone() };
        assert_ne!(shape.to_bytes(), other.to_bytes());
        assert_eq!(shape.to_bytes().len(), other.to_bytes().len());
    }

    #[test]
    fn an_endless_model_differs_in_the_row_of_its_end_token_alone() {
        let shape = Shape::default();
        let (plain, endless) = (shape.to_bytes(), Shape { endless: true, ..shape.clone() }.to_bytes());
        let differs: Vec<usize> = (0..plain.len()).filter(|at| plain[*at] != endless[*at]).collect();
        let row = shape.width as usize * size_of::<f32>();
        let (first, last) = (differs[0], differs[differs.len() - 1]);
        assert!(last - first < row && differs.len() > row / 2, "{first} to {last}");
        assert!(endless[first..=last].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn no_token_appears_twice() {
        let mut texts: Vec<_> = vocab::build(5000).into_iter().map(|t| t.text).collect();
        assert_eq!(texts.len(), 5000);
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), 5000);
    }
}
