//! The GGUF version 3 container: counts, metadata, tensor descriptions, aligned F32 data.

const ALIGNMENT: usize = 32;
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

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

    pub(crate) fn tensor(&mut self, name: &str, dims: &[u64]) {
        put_text(&mut self.tensors, name);
        self.tensors.extend((dims.len() as u32).to_le_bytes());
        self.tensors.extend(dims.iter().flat_map(|d| d.to_le_bytes()));
        self.tensors.extend(0u32.to_le_bytes());
        self.tensors.extend(self.next_offset.to_le_bytes());
        let bytes = dims.iter().product::<u64>() * 4;
        self.next_offset += bytes.next_multiple_of(ALIGNMENT as u64);
    }

    pub(crate) fn data(&mut self, values: impl Iterator<Item = f32>) {
        self.data.extend(values.flat_map(f32::to_le_bytes));
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

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
