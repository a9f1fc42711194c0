//! The tensor descriptions: how many parameters there are, and whether the data they promise fits
//! into the file.

use std::io::{BufRead, Seek};

use super::reader::Reader;
use super::{GgufError, types};

const MAX_NAME: u64 = 1024;
const MAX_DIMS: u32 = 4;
/// Name length, dimension count, one dimension, type, offset.
const MIN_INFO_BYTES: u64 = 8 + 4 + 8 + 4 + 8;

/// Sums over all tensors.
pub(super) struct Totals {
    pub(super) parameters: u64,
    pub(super) bytes: u64,
}

pub(super) fn check<R: BufRead + Seek>(
    reader: &mut Reader<R>,
    count: u64,
    alignment: u64,
    file_size: u64,
) -> Result<Totals, GgufError> {
    if !alignment.is_power_of_two() || alignment > 1 << 20 {
        return Err(GgufError::Malformed(format!(
            "general.alignment is {alignment}, not a small power of two"
        )));
    }
    reader.plausible(count, MIN_INFO_BYTES)?;
    let (mut parameters, mut bytes, mut data_end) = (0u64, 0u64, 0u64);
    for _ in 0..count {
        let tensor = Tensor::read(reader)?;
        let overflow = || GgufError::Malformed(format!("the size of tensor {:?} overflows", tensor.name));
        parameters = parameters.checked_add(tensor.elements).ok_or_else(overflow)?;
        bytes = bytes.checked_add(tensor.bytes).ok_or_else(overflow)?;
        let end = tensor.offset.checked_add(tensor.bytes).ok_or_else(overflow)?;
        data_end = data_end.max(end);
    }
    let data_start = reader.position().next_multiple_of(alignment);
    let expected = data_start.saturating_add(data_end);
    // Data that nobody claims needs no padding in front of it.
    if data_end > 0 && expected > file_size {
        return Err(GgufError::Truncated { expected, actual: file_size });
    }
    Ok(Totals { parameters, bytes })
}

struct Tensor {
    name: String,
    elements: u64,
    offset: u64,
    /// Zero for a type this reader does not know: then only the offset is checked.
    bytes: u64,
}

impl Tensor {
    fn read<R: BufRead + Seek>(reader: &mut Reader<R>) -> Result<Self, GgufError> {
        let name = reader.text("a tensor name", MAX_NAME)?;
        let malformed = |problem: &str| GgufError::Malformed(format!("tensor {name:?} {problem}"));
        let dims = reader.u32()?;
        if dims > MAX_DIMS {
            return Err(malformed(&format!("has {dims} dimensions")));
        }
        let (mut elements, mut row) = (1u64, 1u64);
        for dim in 0..dims {
            let size = reader.u64()?;
            elements = elements
                .checked_mul(size)
                .ok_or_else(|| malformed("has more elements than fit into 64 bits"))?;
            if dim == 0 {
                row = size;
            }
        }
        let kind = reader.u32()?;
        let offset = reader.u64()?;
        let bytes = match types::tensor_block(kind) {
            Some((block, _)) if row % block != 0 => {
                return Err(malformed(&format!("has rows of {row}, not a multiple of its block of {block}")));
            }
            Some((block, bytes)) => (elements / block)
                .checked_mul(bytes)
                .ok_or_else(|| malformed("is larger than fits into 64 bits"))?,
            None => 0,
        };
        Ok(Self { name, elements, offset, bytes })
    }
}
