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
use std::path::{Path, PathBuf};

pub use dimensions::Dimensions;
use header::{FileHeader, Split};
use wire::SplitName;

pub use header::GgufHeader;

/// A name in a header may be as long as a page, and an error is for people.
fn short(problem: &str) -> String {
    const MOST: usize = 300;
    match problem.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", problem.get(..at).unwrap_or_default()),
        None => problem.to_owned(),
    }
}

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
    #[error("the header is malformed: {}", short(.0))]
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
    /// A file in the middle of a set.
    #[error(
        "it is file {number} of {count} of a split model; name the first one, ending in -00001-of-{count:05}.gguf"
    )]
    NotFirst {
        /// From 1.
        number: u64,
        /// Files there are.
        count: u64,
    },
    /// What the name and the header say of the set differs; the engine finds the files by name.
    #[error(
        "its header says that it is file {number} of {count}, and its name or place says otherwise; files of a split \
         model keep the names NAME-00001-of-{count:05}.gguf"
    )]
    Misnamed {
        /// From 1.
        number: u64,
        /// Files there are.
        count: u64,
    },
    /// Another file of the set is not usable.
    #[error("the file {file} of the same split model is not usable")]
    Part {
        /// Which.
        file: PathBuf,
        /// Why.
        source: Box<GgufError>,
    },
}

impl GgufError {
    fn misnamed(split: Split) -> Self {
        Self::Misnamed { number: split.number.saturating_add(1), count: split.count }
    }
}

/// Reads and checks the header of the model at `path`; for the first file of a split set, of all of it.
pub fn read_header(path: &Path) -> Result<GgufHeader, GgufError> {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(SplitName::parse);
    if let Some(SplitName { number: 2.., count, .. }) = &name
        && let Some(split) = read_one(path)?.split()
        && split.count == u64::from(*count)
    {
        return Err(GgufError::NotFirst { number: split.number.saturating_add(1), count: split.count });
    }
    read_files(&wire::split::files(path))
}

/// Reads a model whose files are named here, in order, whatever they are called.
pub(crate) fn read_files(files: &[PathBuf]) -> Result<GgufHeader, GgufError> {
    let Some((first, others)) = files.split_first() else { return Err(GgufError::NotGguf) };
    let mut whole = read_one(first)?;
    let count = files.len() as u64;
    match whole.split() {
        Some(split) if split.number != 0 || split.count != count => return Err(GgufError::misnamed(split)),
        None if !others.is_empty() => {
            return Err(GgufError::misnamed(Split { number: 0, count: 1, tensors: None }));
        }
        _ => {}
    }
    for (number, file) in (1..).zip(others) {
        let within = |source| GgufError::Part { file: file.clone(), source: Box::new(source) };
        let part = read_one(file).map_err(within)?;
        let split = part.split().unwrap_or(Split { number: 0, count: 1, tensors: None });
        if split.number != number || split.count != count {
            return Err(within(GgufError::misnamed(split)));
        }
        whole.add(&part)?;
    }
    let promised = whole.split().and_then(|split| split.tensors);
    if let Some(promised) = promised.filter(|promised| *promised != whole.tensor_count()) {
        let there = whole.tensor_count();
        return Err(GgufError::Malformed(format!(
            "its files have {there} tensors together, promised are {promised}"
        )));
    }
    whole.finish(files.to_vec())
}

fn read_one(path: &Path) -> Result<FileHeader, GgufError> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    header::parse(std::io::BufReader::with_capacity(64 * 1024, file), size)
}

#[cfg(test)]
mod tests;
