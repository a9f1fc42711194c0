//! The metadata part of the header: a handful of keys are kept, all others are stepped over.

use std::io::{BufRead, Seek};

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
    /// Size of the whole file.
    pub file_size: u64,
    /// Sum of the tensors' sizes.
    pub tensor_bytes: u64,
    /// What its memory is computed from; `None` when the header does not say enough.
    pub dimensions: Option<Dimensions>,
}

/// The keys worth keeping, as they are met.
#[derive(Default)]
struct Kept {
    architecture: Option<String>,
    name: Option<String>,
    file_type: Option<u64>,
    alignment: Option<u64>,
    split_count: Option<u64>,
    chat_template: bool,
    /// Every `….context_length`; the architecture may come after it.
    context_lengths: Vec<(String, u64)>,
    numbers: Numbers,
}

pub(super) fn parse(input: impl BufRead + Seek, file_size: u64) -> Result<GgufHeader, GgufError> {
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
    if let Some(parts) = kept.split_count.filter(|parts| *parts > 1) {
        return Err(GgufError::Split(parts));
    }
    let totals = tensors::check(&mut reader, tensor_count, kept.alignment.unwrap_or(32), file_size)?;
    kept.finish(totals, file_size)
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
            _ if self.numbers.wants(&key) => self.numbers.take(reader, key, kind)?,
            other => match other.strip_suffix(".context_length").map(str::to_owned) {
                Some(owner) if self.context_lengths.len() < 16 => {
                    if let Some(length) = integer(reader, &key, kind)? {
                        self.context_lengths.push((owner, length));
                    }
                }
                _ => skip_value(reader, kind)?,
            },
        }
        Ok(())
    }

    fn finish(self, totals: tensors::Totals, file_size: u64) -> Result<GgufHeader, GgufError> {
        let architecture = self.architecture.ok_or_else(|| {
            GgufError::Malformed("general.architecture is missing; this is not a language model".to_owned())
        })?;
        let own = self.context_lengths.into_iter().find(|(owner, _)| *owner == architecture);
        let ctx_max = own.and_then(|(_, length)| u32::try_from(length).ok());
        let name = self.name.filter(|name| !name.trim().is_empty());
        let quantisation = self.file_type.map_or_else(|| "unknown".to_owned(), types::file_type_name);
        let chat_template = self.chat_template;
        let dimensions = self.numbers.finish(&architecture);
        let tensors::Totals { parameters, bytes: tensor_bytes } = totals;
        Ok(GgufHeader {
            architecture,
            name,
            ctx_max,
            quantisation,
            parameters,
            chat_template,
            file_size,
            tensor_bytes,
            dimensions,
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

fn skip_value<R: BufRead + Seek>(reader: &mut Reader<R>, kind: u32) -> Result<(), GgufError> {
    if kind == types::TEXT {
        return reader.skip_text();
    }
    if kind != types::ARRAY {
        return reader.skip(types::scalar_size(kind)?);
    }
    let element = reader.u32()?;
    let count = reader.u64()?;
    if element != types::TEXT {
        let each = types::scalar_size(element)?;
        reader.plausible(count, each)?;
        return reader.skip(count * each);
    }
    reader.plausible(count, 8)?;
    (0..count).try_for_each(|_| reader.skip_text())
}
