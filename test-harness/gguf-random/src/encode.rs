//! The GGUF version 3 container: counts, metadata, tensor descriptions, aligned F32 or F16 data.

const ALIGNMENT: usize = 32;
const U16: u32 = 2;
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

/// How a tensor's numbers are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precision {
    F32,
    F16,
}

impl Precision {
    fn ggml_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// Collects one file; call the metadata methods first, then `tensor` for each, then `data` for each
/// in the same order.
pub(crate) struct Encoder {
    metadata: Vec<u8>,
    metadata_count: u64,
    tensors: Vec<u8>,
    tensor_count: u64,
    next_offset: u64,
    data: Vec<u8>,
}

impl Encoder {
    pub(crate) fn new(tensor_count: u64) -> Self {
        Self {
            metadata: Vec::new(),
            metadata_count: 0,
            tensors: Vec::new(),
            tensor_count,
            next_offset: 0,
            data: Vec::new(),
        }
    }

    pub(crate) fn text(&mut self, key: &str, value: &str) {
        self.key(key, TEXT);
        put_text(&mut self.metadata, value);
    }

    pub(crate) fn u32(&mut self, key: &str, value: u32) {
        self.key(key, U32);
        self.metadata.extend(value.to_le_bytes());
    }

    pub(crate) fn u16(&mut self, key: &str, value: u16) {
        self.key(key, U16);
        self.metadata.extend(value.to_le_bytes());
    }

    pub(crate) fn i32(&mut self, key: &str, value: i32) {
        self.key(key, I32);
        self.metadata.extend(value.to_le_bytes());
    }

    pub(crate) fn f32(&mut self, key: &str, value: f32) {
        self.key(key, F32);
        self.metadata.extend(value.to_le_bytes());
    }

    pub(crate) fn texts<'a>(&mut self, key: &str, values: impl ExactSizeIterator<Item = &'a str>) {
        self.array(key, TEXT, values.len());
        for value in values {
            put_text(&mut self.metadata, value);
        }
    }

    pub(crate) fn f32s(&mut self, key: &str, values: impl ExactSizeIterator<Item = f32>) {
        self.array(key, F32, values.len());
        self.metadata.extend(values.flat_map(f32::to_le_bytes));
    }

    pub(crate) fn i32s(&mut self, key: &str, values: impl ExactSizeIterator<Item = i32>) {
        self.array(key, I32, values.len());
        self.metadata.extend(values.flat_map(i32::to_le_bytes));
    }

    pub(crate) fn tensor(&mut self, name: &str, dims: &[u64], precision: Precision) {
        put_text(&mut self.tensors, name);
        self.tensors.extend((dims.len() as u32).to_le_bytes());
        self.tensors.extend(dims.iter().flat_map(|d| d.to_le_bytes()));
        self.tensors.extend(precision.ggml_type().to_le_bytes());
        self.tensors.extend(self.next_offset.to_le_bytes());
        let bytes = dims.iter().product::<u64>() * precision.bytes();
        self.next_offset += bytes.next_multiple_of(ALIGNMENT as u64);
    }

    pub(crate) fn data(&mut self, values: impl Iterator<Item = f32>, precision: Precision) {
        match precision {
            Precision::F32 => self.data.extend(values.flat_map(f32::to_le_bytes)),
            Precision::F16 => self.data.extend(values.map(half).flat_map(u16::to_le_bytes)),
        }
        self.data.resize(self.data.len().next_multiple_of(ALIGNMENT), 0);
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3u32.to_le_bytes());
        file.extend(self.tensor_count.to_le_bytes());
        file.extend(self.metadata_count.to_le_bytes());
        file.extend(self.metadata);
        file.extend(self.tensors);
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
        file.extend(self.data);
        file
    }

    fn key(&mut self, key: &str, kind: u32) {
        self.metadata_count += 1;
        put_text(&mut self.metadata, key);
        self.metadata.extend(kind.to_le_bytes());
    }

    fn array(&mut self, key: &str, kind: u32, len: usize) {
        self.key(key, ARRAY);
        self.metadata.extend(kind.to_le_bytes());
        self.metadata.extend((len as u64).to_le_bytes());
    }
}

/// IEEE 754 binary16, rounded towards zero; what is too small for a normal number becomes zero.
fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    match exponent {
        1..=30 => sign | (exponent as u16) << 10 | (bits >> 13 & 0x3ff) as u16,
        31.. => sign | 0x7bff,
        _ => sign,
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::half;

    #[test]
    fn halves_are_those_of_ieee_754() {
        assert_eq!([half(1.0), half(-2.0), half(0.5), half(65504.0)], [0x3c00, 0xc000, 0x3800, 0x7bff]);
        assert_eq!([half(0.0), half(1e-9), half(-1e9)], [0, 0, 0xfbff]);
    }
}
