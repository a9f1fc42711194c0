//! The metadata part of the header: a handful of keys are kept, all others are stepped over.

use std::io::{BufRead, Seek};
use std::path::PathBuf;

use super::dimensions::{Dimensions, Numbers};
use super::reader::Reader;
use super::{GgufError, tensors, types};

/// Real models have some 40 keys; large ones a few hundred.
const MAX_KEYS: u64 = 65_536;
const MAX_KEY_BYTES: u64 = 4096;
const MAX_VALUE_BYTES: u64 = 1024 * 1024;

/// What a model file says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufHeader {
    /// `general.architecture`.
    pub architecture: String,
    /// `general.name`, when it has one.
    pub name: Option<String>,
    /// `<architecture>.context_length`.
    pub ctx_max: Option<u32>,
    /// Usual name of `general.file_type`, or `type-<n>`; `unknown` when the header does not say.
    pub quantisation: String,
    /// Sum of the tensors' elements.
    pub parameters: u64,
    /// Whether `tokenizer.chat_template` is there and not empty.
    pub chat_template: bool,
    /// Whether it makes one vector of a text: `<architecture>.pooling_type` is there and not 0 (none).
    pub pooled: bool,
    /// Size of the whole file, or of all files of a split set.
    pub file_size: u64,
    /// Sum of the tensors' sizes.
    pub tensor_bytes: u64,
    /// What its memory is computed from; `None` when the header does not say enough.
    pub dimensions: Option<Dimensions>,
    /// Where it was read from: one file, or all of a split set in order.
    pub files: Vec<PathBuf>,
}

/// The header of one file, which may be one of several.
pub(super) struct FileHeader {
    kept: Kept,
    totals: tensors::Totals,
    tensor_count: u64,
    file_size: u64,
}

/// Which file of a set it says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Split {
    /// From 0.
    pub(super) number: u64,
    pub(super) count: u64,
    /// In all files together.
    pub(super) tensors: Option<u64>,
}

/// The keys worth keeping, as they are met.
#[derive(Default)]
struct Kept {
    architecture: Option<String>,
    name: Option<String>,
    file_type: Option<u64>,
    alignment: Option<u64>,
    split_count: Option<u64>,
    split_number: Option<u64>,
    split_tensors: Option<u64>,
    chat_template: bool,
    /// Entries of the tokenizer's list.
    tokens: Option<u64>,
    /// Every `….context_length`; the architecture may come after it.
    context_lengths: Vec<(String, u64)>,
    /// Every `….pooling_type`.
    pooling_types: Vec<(String, u64)>,
    numbers: Numbers,
}

pub(super) fn parse(input: impl BufRead + Seek, file_size: u64) -> Result<FileHeader, GgufError> {
    if file_size < 4 {
        return Err(GgufError::NotGguf);
    }
    let mut reader = Reader::new(input, file_size);
    if reader.array()? != *b"GGUF" {
        return Err(GgufError::NotGguf);
    }
    match reader.u32()? {
        2 | 3 => {}
        // A big-endian file shows its version byte-swapped.
        version if matches!(version.swap_bytes(), 2 | 3) => {
            return Err(GgufError::Malformed("it is big-endian; convert it to little-endian".to_owned()));
        }
        version => return Err(GgufError::Version(version)),
    }
    let tensor_count = reader.u64()?;
    let key_count = reader.u64()?;
    if key_count > MAX_KEYS {
        return Err(GgufError::Malformed(format!("it claims {key_count} metadata keys")));
    }
    let mut kept = Kept::default();
    for _ in 0..key_count {
        let key = reader.text("a metadata key", MAX_KEY_BYTES)?;
        let kind = reader.u32()?;
        kept.take(&mut reader, key, kind)?;
    }
    let totals = tensors::check(&mut reader, tensor_count, kept.alignment.unwrap_or(32), file_size)?;
    Ok(FileHeader { kept, totals, tensor_count, file_size })
}

impl FileHeader {
    /// `None` for a model that is one file.
    pub(super) fn split(&self) -> Option<Split> {
        let count = self.kept.split_count.filter(|count| *count > 1)?;
        let (number, tensors) = (self.kept.split_number.unwrap_or(0), self.kept.split_tensors);
        Some(Split { number, count, tensors })
    }

    pub(super) fn tensor_count(&self) -> u64 {
        self.tensor_count
    }

    /// Adds what another file of the same set holds.
    pub(super) fn add(&mut self, other: &Self) -> Result<(), GgufError> {
        let sum = |a: u64, b: u64| {
            a.checked_add(b).ok_or_else(|| GgufError::Malformed("the sizes of its files overflow".to_owned()))
        };
        self.totals.parameters = sum(self.totals.parameters, other.totals.parameters)?;
        self.totals.bytes = sum(self.totals.bytes, other.totals.bytes)?;
        self.tensor_count = sum(self.tensor_count, other.tensor_count)?;
        self.file_size = sum(self.file_size, other.file_size)?;
        Ok(())
    }

    pub(super) fn finish(self, files: Vec<PathBuf>) -> Result<GgufHeader, GgufError> {
        self.kept.finish(self.totals, self.file_size, files)
    }
}

impl Kept {
    fn take<R: BufRead + Seek>(
        &mut self,
        reader: &mut Reader<R>,
        key: String,
        kind: u32,
    ) -> Result<(), GgufError> {
        let text = kind == types::TEXT;
        match key.as_str() {
            "general.architecture" if text => self.architecture = Some(reader.text(&key, MAX_VALUE_BYTES)?),
            "general.name" if text => self.name = Some(reader.text(&key, MAX_VALUE_BYTES)?),
            "tokenizer.chat_template" if text => {
                self.chat_template = !reader.text(&key, MAX_VALUE_BYTES)?.trim().is_empty();
            }
            "general.file_type" => self.file_type = integer(reader, &key, kind)?,
            "general.alignment" => self.alignment = integer(reader, &key, kind)?,
            "split.count" => self.split_count = integer(reader, &key, kind)?,
            "split.no" => self.split_number = integer(reader, &key, kind)?,
            "split.tensors.count" => self.split_tensors = integer(reader, &key, kind)?,
            "tokenizer.ggml.tokens" if kind == types::ARRAY => {
                self.tokens = Some(skip_value(reader, kind)?);
            }
            _ if self.numbers.wants(&key) => self.numbers.take(reader, key, kind)?,
            other => {
                let of = |name: &str| other.strip_suffix(name).map(str::to_owned);
                let (owner, list) = match (of(".context_length"), of(".pooling_type")) {
                    (Some(owner), _) => (owner, &mut self.context_lengths),
                    (None, Some(owner)) => (owner, &mut self.pooling_types),
                    (None, None) => return skip_value(reader, kind).map(|_elements| ()),
                };
                // Written by hand it may be -1, which is no number for a length and no way to pool.
                let odd = kind == types::I32 && other.ends_with(".pooling_type");
                if odd || list.len() >= 16 {
                    return skip_value(reader, kind).map(|_elements| ());
                }
                if let Some(number) = integer(reader, &key, kind)? {
                    list.push((owner, number));
                }
            }
        }
        Ok(())
    }

    fn finish(
        self,
        totals: tensors::Totals,
        file_size: u64,
        files: Vec<PathBuf>,
    ) -> Result<GgufHeader, GgufError> {
        let architecture = self.architecture.ok_or_else(|| {
            GgufError::Malformed("general.architecture is missing; this is not a language model".to_owned())
        })?;
        let own = self.context_lengths.into_iter().find(|(owner, _)| *owner == architecture);
        let ctx_max = own.and_then(|(_, length)| u32::try_from(length).ok());
        let pooled = self.pooling_types.iter().any(|(owner, kind)| *owner == architecture && *kind > 0);
        let name = self.name.filter(|name| !name.trim().is_empty());
        let quantisation = self.file_type.map_or_else(|| "unknown".to_owned(), types::file_type_name);
        let chat_template = self.chat_template;
        let dimensions = self.numbers.finish(&architecture, self.tokens);
        let tensors::Totals { parameters, bytes: tensor_bytes } = totals;
        Ok(GgufHeader {
            architecture,
            name,
            ctx_max,
            quantisation,
            parameters,
            chat_template,
            pooled,
            file_size,
            tensor_bytes,
            dimensions,
            files,
        })
    }
}

/// An integer of any width; other types are stepped over and count as absent.
pub(super) fn integer<R: BufRead + Seek>(
    reader: &mut Reader<R>,
    key: &str,
    kind: u32,
) -> Result<Option<u64>, GgufError> {
    let value = match kind {
        types::U8 => u64::from(reader.array::<1>()?[0]),
        types::U16 => u64::from(u16::from_le_bytes(reader.array()?)),
        types::U32 => u64::from(reader.u32()?),
        types::U64 => reader.u64()?,
        types::I32 => u64::try_from(i32::from_le_bytes(reader.array()?))
            .map_err(|_| GgufError::Malformed(format!("{key} is negative")))?,
        _ => {
            skip_value(reader, kind)?;
            return Ok(None);
        }
    };
    Ok(Some(value))
}

/// Steps over a value; how many elements it had.
fn skip_value<R: BufRead + Seek>(reader: &mut Reader<R>, kind: u32) -> Result<u64, GgufError> {
    if kind == types::TEXT {
        return reader.skip_text().map(|()| 1);
    }
    if kind != types::ARRAY {
        return reader.skip(types::scalar_size(kind)?).map(|()| 1);
    }
    let element = reader.u32()?;
    let count = reader.u64()?;
    if element == types::TEXT {
        reader.plausible(count, 8)?;
        (0..count).try_for_each(|_| reader.skip_text())?;
    } else {
        let each = types::scalar_size(element)?;
        reader.plausible(count, each)?;
        reader.skip(count * each)?;
    }
    Ok(count)
}
