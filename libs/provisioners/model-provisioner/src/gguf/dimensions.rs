//! The numbers of a model that decide how much memory it needs: layers, widths, heads.

use std::io::{BufRead, Seek};

use super::reader::Reader;
use super::{GgufError, header, types};

/// Per-layer lists of real models have at most a few hundred entries.
const MAX_LIST: u64 = 4096;
/// A file may hold keys of several architectures (a vision tower beside the text model).
const MAX_KEPT: usize = 64;

const LAYERS: &str = "block_count";
const WIDTH: &str = "embedding_length";
const FEED_FORWARD: &str = "feed_forward_length";
const HEADS: &str = "attention.head_count";
const KV_HEADS: &str = "attention.head_count_kv";
const KEY_LENGTH: &str = "attention.key_length";
const VALUE_LENGTH: &str = "attention.value_length";
const VOCABULARY: &str = "vocab_size";
const WANTED: [&str; 8] =
    [LAYERS, WIDTH, FEED_FORWARD, HEADS, KV_HEADS, KEY_LENGTH, VALUE_LENGTH, VOCABULARY];

/// What a model's memory is computed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dimensions {
    /// Transformer blocks.
    pub layers: u64,
    /// Width of the residual stream.
    pub width: u64,
    /// Widest feed-forward layer.
    pub feed_forward: u64,
    /// Most attention heads of any layer.
    pub heads: u64,
    /// Key and value heads, summed over all layers; layers without attention have none.
    pub kv_heads_of_all_layers: u64,
    /// Width of one key head.
    pub key_length: u64,
    /// Width of one value head.
    pub value_length: u64,
    /// Tokens, when the header says so.
    pub vocabulary: Option<u64>,
}

/// The wanted keys, as they are met; the architecture may come after them.
#[derive(Default)]
pub(super) struct Numbers(Vec<(String, Vec<u64>)>);

impl Numbers {
    /// Whether `key` is one to keep.
    pub(super) fn wants(&self, key: &str) -> bool {
        self.0.len() < MAX_KEPT && key.split_once('.').is_some_and(|(_, rest)| WANTED.contains(&rest))
    }

    pub(super) fn take<R: BufRead + Seek>(
        &mut self,
        reader: &mut Reader<R>,
        key: String,
        kind: u32,
    ) -> Result<(), GgufError> {
        let values = match kind {
            types::ARRAY => list(reader, &key)?,
            _ => header::integer(reader, &key, kind)?.into_iter().collect(),
        };
        self.0.push((key, values));
        Ok(())
    }

    /// `None` when the header does not say enough, as for models that are no transformers.
    /// `tokens`: entries of the tokenizer's list, for headers that have no number of their own.
    pub(super) fn finish(self, architecture: &str, tokens: Option<u64>) -> Option<Dimensions> {
        let list = |name: &str| {
            let key = format!("{architecture}.{name}");
            self.0.iter().find(|(known, values)| *known == key && !values.is_empty()).map(|(_, v)| v)
        };
        let largest = |name: &str| list(name)?.iter().copied().max();
        let (layers, width, heads) = (largest(LAYERS)?, largest(WIDTH)?, largest(HEADS)?);
        let kv_heads_of_all_layers = match list(KV_HEADS).or_else(|| list(HEADS))?.as_slice() {
            [same] => same.checked_mul(layers)?,
            each => each.iter().try_fold(0u64, |sum, n| sum.checked_add(*n))?,
        };
        let head = width.checked_div(heads)?;
        Some(Dimensions {
            layers,
            width,
            feed_forward: largest(FEED_FORWARD).unwrap_or(0),
            heads,
            kv_heads_of_all_layers,
            key_length: largest(KEY_LENGTH).unwrap_or(head),
            value_length: largest(VALUE_LENGTH).unwrap_or(head),
            vocabulary: largest(VOCABULARY).or(tokens),
        })
    }
}

fn list<R: BufRead + Seek>(reader: &mut Reader<R>, key: &str) -> Result<Vec<u64>, GgufError> {
    let element = reader.u32()?;
    let count = reader.u64()?;
    if count > MAX_LIST {
        return Err(GgufError::Malformed(format!("{key} has {count} entries")));
    }
    if matches!(element, types::TEXT | types::ARRAY) {
        return Err(GgufError::Malformed(format!("{key} is not a list of numbers")));
    }
    reader.plausible(count, types::scalar_size(element)?)?;
    let numbers = (0..count).map(|_| header::integer(reader, key, element));
    Ok(numbers.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}
