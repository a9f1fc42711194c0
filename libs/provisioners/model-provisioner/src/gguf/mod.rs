//! The GGUF header, read by hand: what the product wants to know about a model before it starts an
//! engine on it, and whether the file is whole.
//!
//! A header comes from strangers. Every count and length is checked against the bytes that are left
//! before anything is allocated or skipped, so a hostile one costs an error, not memory or time. It
//! reads no tensor data.

mod dimensions;
mod header;
mod reader;
mod tensors;
mod types;

use std::fs::File;
use std::path::Path;

pub use dimensions::Dimensions;
pub use header::GgufHeader;

/// Why a file is not a usable model.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The system could not read it.
    #[error("cannot read the header")]
    Read {
        /// The system's reason.
        #[from]
        source: std::io::Error,
    },
    /// It does not begin with `GGUF`.
    #[error("it does not begin with the letters GGUF; this is not a GGUF file")]
    NotGguf,
    /// A version this reader does not know.
    #[error("GGUF version {0} is not supported (2 and 3 are); convert the model again with a current tool")]
    Version(u32),
    /// It ends inside the header.
    #[error(
        "the header goes on past the end of the file or past {limit} bytes; the file is truncated or damaged"
    )]
    HeaderTooLong {
        /// Bytes that a header may have here.
        limit: u64,
    },
    /// A count, length or type that no real model has.
    #[error("the header is malformed: {0}")]
    Malformed(String),
    /// The tensors need more bytes than there are.
    #[error(
        "the file is truncated: its tensors need {expected} bytes and it has {actual}; the download was \
         probably cut, fetch it again"
    )]
    Truncated {
        /// Bytes that the header promises.
        expected: u64,
        /// Bytes that are there.
        actual: u64,
    },
    /// One part of several.
    #[error(
        "it is part of a model split into {0} files, which is not supported yet; merge them with `llama-gguf-split --merge`"
    )]
    Split(u64),
}

/// Reads and checks the header of `path`.
pub fn read_header(path: &Path) -> Result<GgufHeader, GgufError> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    header::parse(std::io::BufReader::with_capacity(64 * 1024, file), size)
}

#[cfg(test)]
mod tests;
