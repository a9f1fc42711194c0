//! Puts a GGUF file together in memory.
//!
//! A header, the key-value pairs, the table of tensors, and the tensors' bytes, each aligned.
//! It knows the format and nothing about the model.

use super::half::to_f16_bits;

const MAGIC: &[u8; 4] = b"GGUF";
const VERSION: u32 = 3;
/// Bytes; the format's default, so it needs no key.
const ALIGNMENT: usize = 32;

/// A metadata value, limited to what the model file uses.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An unsigned number.
    U32(u32),
    /// A float.
    F32(f32),
    /// A truth value.
    Bool(bool),
    /// Text.
    Text(String),
    /// Several signed numbers.
    I32s(Vec<i32>),
    /// Several floats.
    F32s(Vec<f32>),
    /// Several texts.
    Texts(Vec<String>),
}

/// A named array of numbers.
#[derive(Clone, Debug)]
pub struct Tensor<'a> {
    /// The name by which the engine looks it up.
    pub name: String,
    /// Lengths, the fastest-running first, as the format wants them.
    pub shape: Vec<usize>,
    /// The numbers.
    pub data: &'a [f32],
}

impl Tensor<'_> {
    /// Vectors stay in single precision, because the engine multiplies by them directly.
    fn is_half(&self) -> bool {
        self.shape.len() > 1
    }

    fn byte_len(&self) -> usize {
        self.data.len() * if self.is_half() { 2 } else { 4 }
    }
}

/// A file being put together.
#[derive(Clone, Debug, Default)]
pub struct Gguf<'a> {
    metadata: Vec<(String, Value)>,
    tensors: Vec<Tensor<'a>>,
}

impl<'a> Gguf<'a> {
    /// Adds a metadata pair.
    pub fn set(&mut self, key: &str, value: Value) {
        self.metadata.push((key.to_owned(), value));
    }

    /// Adds a tensor.
    pub fn add(&mut self, tensor: Tensor<'a>) {
        self.tensors.push(tensor);
    }

    /// The bytes of the file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_text(&mut out, key);
            put_value(&mut out, value);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            put_text(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            for length in &tensor.shape {
                out.extend((*length as u64).to_le_bytes());
            }
            out.extend(u32::from(tensor.is_half()).to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset = (offset + tensor.byte_len()).next_multiple_of(ALIGNMENT);
        }
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
            if tensor.is_half() {
                out.extend(tensor.data.iter().flat_map(|v| to_f16_bits(*v).to_le_bytes()));
            } else {
                out.extend(tensor.data.iter().flat_map(|v| v.to_le_bytes()));
            }
        }
        out
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    let array = |out: &mut Vec<u8>, kind: u32, len: usize| {
        out.extend(9u32.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend((len as u64).to_le_bytes());
    };
    match value {
        Value::U32(v) => {
            out.extend(4u32.to_le_bytes());
            out.extend(v.to_le_bytes());
        }
        Value::F32(v) => {
            out.extend(6u32.to_le_bytes());
            out.extend(v.to_le_bytes());
        }
        Value::Bool(v) => {
            out.extend(7u32.to_le_bytes());
            out.push(u8::from(*v));
        }
        Value::Text(v) => {
            out.extend(8u32.to_le_bytes());
            put_text(out, v);
        }
        Value::I32s(v) => {
            array(out, 5, v.len());
            out.extend(v.iter().flat_map(|v| v.to_le_bytes()));
        }
        Value::F32s(v) => {
            array(out, 6, v.len());
            out.extend(v.iter().flat_map(|v| v.to_le_bytes()));
        }
        Value::Texts(v) => {
            array(out, 8, v.len());
            v.iter().for_each(|t| put_text(out, t));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads from the front of a slice.
    struct Reader<'a>(&'a [u8]);

    impl Reader<'_> {
        fn take(&mut self, n: usize) -> Vec<u8> {
            let (head, tail) = self.0.split_at(n);
            self.0 = tail;
            head.to_vec()
        }
        fn u32(&mut self) -> u32 {
            u32::from_le_bytes(self.take(4).try_into().unwrap())
        }
        fn u64(&mut self) -> usize {
            u64::from_le_bytes(self.take(8).try_into().unwrap()) as usize
        }
        fn text(&mut self) -> String {
            let n = self.u64();
            String::from_utf8(self.take(n)).unwrap()
        }
    }

    #[test]
    fn header_metadata_and_tensors_read_back() {
        let (matrix, vector) = ([1.0f32, -2.0, 0.5, 4.0, 0.0, 1.5], [3.0f32]);
        let mut file = Gguf::default();
        file.set("general.architecture", Value::Text("llama".into()));
        file.set("n", Value::U32(7));
        file.set("words", Value::Texts(vec!["a".into(), "bc".into()]));
        file.add(Tensor { name: "m".into(), shape: vec![3, 2], data: &matrix });
        file.add(Tensor { name: "v".into(), shape: vec![1], data: &vector });
        let bytes = file.to_bytes();
        let mut r = Reader(&bytes);
        assert_eq!((r.take(4), r.u32(), r.u64(), r.u64()), (b"GGUF".to_vec(), 3, 2, 3));
        assert_eq!((r.text(), r.u32(), r.text()), ("general.architecture".into(), 8, "llama".into()));
        assert_eq!((r.text(), r.u32(), r.u32()), ("n".into(), 4, 7));
        assert_eq!((r.text(), r.u32(), r.u32(), r.u64()), ("words".into(), 9, 8, 2));
        assert_eq!((r.text(), r.text()), ("a".into(), "bc".into()));
        assert_eq!((r.text(), r.u32(), r.u64(), r.u64(), r.u32(), r.u64()), ("m".into(), 2, 3, 2, 1, 0));
        assert_eq!((r.text(), r.u32(), r.u64(), r.u32(), r.u64()), ("v".into(), 1, 1, 0, 32));
        let data = (bytes.len() - r.0.len()).next_multiple_of(32);
        assert_eq!(bytes[data..data + 4], [0x00, 0x3C, 0x00, 0xC0]);
        assert_eq!(bytes[data + 32..], 3.0f32.to_le_bytes());
    }
}
