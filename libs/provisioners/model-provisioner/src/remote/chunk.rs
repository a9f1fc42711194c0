//! Pieces of an answer in buffers that go back where they came from. A new buffer for each piece costs page
//! faults, which at the speed of a local server take as long as the hash.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a buffer; a connection's own buffer has as many, so that one read fills one. Larger ones are
/// slower: what is written in one call gets large pages in the system's cache, and it moves others to find room
/// for them. Measured with 64, 128, 256 and 512 KiB.
pub(super) const CHUNK: usize = 128 * 1024;
/// Chunks that wait between two threads: 2 MiB, so that none of them waits for another's short pause.
pub(super) const AHEAD: usize = 16;

/// Buffers that nobody uses at the moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// A chunk that `fill` has filled; what it returns is how far.
    pub(super) fn filled<E>(&self, fill: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<Chunk, E> {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut chunk = Chunk { buffer: spare.unwrap_or_else(|| vec![0; CHUNK]), len: 0, home: self.clone() };
        chunk.len = fill(&mut chunk.buffer)?.min(chunk.buffer.len());
        Ok(chunk)
    }
}

/// Some bytes; dropped, their buffer is used again.
#[derive(Debug)]
pub(crate) struct Chunk {
    buffer: Vec<u8>,
    len: usize,
    home: Buffers,
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.home.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_and_holds_only_what_was_put_in_last() {
        let buffers = Buffers::default();
        let put = |text: &'static [u8]| {
            let fill = |buffer: &mut [u8]| {
                buffer[..text.len()].copy_from_slice(text);
                Ok::<_, ()>(text.len())
            };
            buffers.filled(fill).unwrap()
        };
        let first = put(b"a longer text");
        let second = put(b"two");
        assert_eq!((&*first, &*second), (&b"a longer text"[..], &b"two"[..]));
        let place = first.as_ptr();
        drop(first);
        let third = put(b"one");
        assert_eq!((&*third, third.as_ptr()), (&b"one"[..], place));
        buffers.filled(|_| Err::<usize, ()>(())).unwrap_err();
        assert_eq!(buffers.0.lock().unwrap().len(), 1, "it comes back after a failure, too");
    }
}
