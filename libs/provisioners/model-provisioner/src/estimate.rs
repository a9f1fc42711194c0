//! How much memory an engine will need for a model: its tensors, the keys and values of its slots, and
//! the scratch buffers of a computation. Pure arithmetic on the header.
//!
//! Weights and keys and values are exact for models whose every layer attends to everything; sliding
//! windows and compressed caches need less than is said here. The formula of the scratch buffers was
//! fitted to what llama-server reports (a test holds both against it).

use wire::MemoryEstimate;

use crate::gguf::{Dimensions, GgufHeader};

/// The engine pads a slot's context to this many tokens.
const CTX_PAD: u64 = 256;
const F32: u64 = 4;

/// How the model is going to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// Tokens of context per slot.
    pub ctx: u32,
    /// Concurrent generations.
    pub slots: u32,
    /// `--ubatch-size`; llama-server's default is 512.
    pub ubatch: u32,
    /// `--cache-type-k`; llama-server's default is `f16`.
    pub cache_type_k: String,
    /// `--cache-type-v`.
    pub cache_type_v: String,
    /// Not with `--flash-attn off`.
    pub flash_attention: bool,
}

impl Load {
    /// With llama-server's defaults.
    #[must_use]
    pub fn new(ctx: u32, slots: u32) -> Self {
        let f16 = || "f16".to_owned();
        Self { ctx, slots, ubatch: 512, cache_type_k: f16(), cache_type_v: f16(), flash_attention: true }
    }
}

/// `None` when the header does not say enough, or its numbers do not fit into 64 bits.
#[must_use]
pub fn estimate(header: &GgufHeader, load: &Load) -> Option<MemoryEstimate> {
    let dimensions = header.dimensions.as_ref()?;
    let ctx = u64::from(load.ctx).next_multiple_of(CTX_PAD);
    let heads = dimensions.kv_heads_of_all_layers;
    let keys = cache_bytes(&load.cache_type_k, dimensions.key_length.checked_mul(heads)?)?;
    let values = cache_bytes(&load.cache_type_v, dimensions.value_length.checked_mul(heads)?)?;
    let kv_bytes_per_slot = keys.checked_add(values)?.checked_mul(ctx)?;
    Some(MemoryEstimate {
        weights_bytes: header.tensor_bytes,
        kv_bytes_per_slot,
        kv_bytes: kv_bytes_per_slot.checked_mul(u64::from(load.slots))?,
        compute_bytes: compute_bytes(dimensions, ctx, load)?,
    })
}

/// Bytes of `elements` numbers in the cache; a type that is not known counts as the widest.
fn cache_bytes(kind: &str, elements: u64) -> Option<u64> {
    let (block, bytes) = match kind {
        "f16" | "bf16" => (1, 2),
        "q8_0" => (32, 34),
        "q4_0" | "iq4_nl" => (32, 18),
        "q4_1" => (32, 20),
        "q5_0" => (32, 22),
        "q5_1" => (32, 24),
        _ => (1, F32),
    };
    elements.div_ceil(block).checked_mul(bytes)
}

/// What the allocator adds for alignment, whatever the model: seen as 8 KiB.
const ALIGNMENT_BYTES: u64 = 64 * 1024;

/// Per token of a batch: the residual stream and its copies (more where queries, keys and values are one
/// tensor), both halves of the feed-forward layer, and the mask over the context; without flash attention
/// also every head's scores.
fn compute_bytes(d: &Dimensions, ctx: u64, load: &Load) -> Option<u64> {
    let activations =
        d.width.checked_mul(7)?.checked_add(d.feed_forward.checked_mul(2)?)?.checked_mul(F32)?;
    let per_token = if load.flash_attention {
        activations.checked_add(ctx.checked_mul(2)?)?
    } else {
        activations.checked_add(ctx.checked_mul(F32)?.checked_mul(d.heads.checked_add(1)?)?)?
    };
    let logits = d.vocabulary.unwrap_or(0).checked_mul(F32)?.checked_mul(u64::from(load.slots))?;
    per_token.checked_mul(u64::from(load.ubatch))?.checked_add(logits)?.checked_add(ALIGNMENT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(dimensions: Option<Dimensions>) -> GgufHeader {
        GgufHeader {
            architecture: "llama".to_owned(),
            name: None,
            ctx_max: None,
            quantisation: "F16".to_owned(),
            parameters: 1,
            chat_template: true,
            pooled: false,
            file_size: 1,
            tensor_bytes: 1000,
            dimensions,
            files: Vec::new(),
        }
    }

    fn large() -> Dimensions {
        Dimensions {
            layers: 32,
            width: 4096,
            feed_forward: 14336,
            heads: 32,
            kv_heads_of_all_layers: 32 * 8,
            key_length: 128,
            value_length: 128,
            vocabulary: Some(128_256),
        }
    }

    /// MPROV-020
    #[test]
    fn keys_and_values_of_a_known_model_are_what_its_shape_says() {
        // Llama 3 8B: 128 KiB a token at f16, so 1 GiB for 8192.
        let estimated = estimate(&of(Some(large())), &Load::new(8192, 4)).unwrap();
        assert_eq!(estimated.kv_bytes_per_slot, 1 << 30);
        assert_eq!(estimated.kv_bytes, 4 << 30);
        assert_eq!(estimated.weights_bytes, 1000);
        let mut small = Load::new(8192, 1);
        (small.cache_type_k, small.cache_type_v) = ("q8_0".to_owned(), "q8_0".to_owned());
        assert_eq!(estimate(&of(Some(large())), &small).unwrap().kv_bytes, (1 << 30) / 32 * 17);
        assert_eq!(estimate(&of(Some(large())), &Load::new(1, 1)).unwrap().kv_bytes, 256 * 128 * 1024);
    }

    /// MPROV-020
    #[test]
    fn a_header_that_says_nothing_or_the_absurd_gives_no_estimate() {
        assert_eq!(estimate(&of(None), &Load::new(2048, 1)), None);
        let absurd = Dimensions { key_length: u64::MAX, ..large() };
        assert_eq!(estimate(&of(Some(absurd)), &Load::new(2048, 1)), None);
    }
}
