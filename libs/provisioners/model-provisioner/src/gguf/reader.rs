//! A reader that knows how much it may still read, and refuses before it allocates.

use std::io::{BufRead, Seek};

use super::GgufError;

/// The largest vocabularies make headers of some 20 MB; nothing real comes near this.
const MAX_HEADER: u64 = 256 * 1024 * 1024;

pub(super) struct Reader<R> {
    inner: R,
    limit: u64,
    position: u64,
}

impl<R: BufRead + Seek> Reader<R> {
    pub(super) fn new(inner: R, file_size: u64) -> Self {
        Self { inner, limit: file_size.min(MAX_HEADER), position: 0 }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn u32(&mut self) -> Result<u32, GgufError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, GgufError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        self.claim(N as u64)?;
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// A string of at most `max` bytes.
    pub(super) fn text(&mut self, what: &str, max: u64) -> Result<String, GgufError> {
        let len = self.u64()?;
        if len > max {
            return Err(GgufError::Malformed(format!("{what} is {len} bytes long, more than {max}")));
        }
        self.claim(len)?;
        let mut bytes = vec![0; len as usize];
        self.inner.read_exact(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| GgufError::Malformed(format!("{what} is not UTF-8")))
    }

    pub(super) fn skip_text(&mut self) -> Result<(), GgufError> {
        let len = self.u64()?;
        self.skip(len)
    }

    pub(super) fn skip(&mut self, len: u64) -> Result<(), GgufError> {
        self.claim(len)?;
        // `claim` has bounded it far below i64::MAX.
        self.inner.seek_relative(len as i64)?;
        Ok(())
    }

    /// Refuses a count of things that cannot all be there, each being at least `each` bytes.
    pub(super) fn plausible(&self, count: u64, each: u64) -> Result<(), GgufError> {
        let needed = count.checked_mul(each);
        if needed.is_none_or(|needed| needed > self.limit - self.position) {
            return Err(GgufError::HeaderTooLong { limit: self.limit });
        }
        Ok(())
    }

    fn claim(&mut self, len: u64) -> Result<(), GgufError> {
        self.plausible(len, 1)?;
        self.position += len;
        Ok(())
    }
}
