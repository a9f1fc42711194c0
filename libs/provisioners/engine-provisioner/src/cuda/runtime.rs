//! What an engine of the managed toolkit loads when it starts, CUDA's runtime and cuBLAS, laid beside its binary.
//! So the engine is whole by itself: it outlives the toolkit, its libraries are checked as its binary is, it can be
//! confined to its own directory, and packed for another machine.
//!
//! NVIDIA's licence lets these libraries be passed on unchanged with a program that uses them (its Attachment A),
//! under its terms; its text lies beside the engine and goes wherever they go.

use std::io;
use std::path::{Path, PathBuf};

use super::managed;

/// Each library, and the wheel that it and its licence come with.
const LIBRARIES: [(&str, &str); 3] = [
    ("libcudart.so.13", "nvidia-cuda-runtime"),
    ("libcublas.so.13", "nvidia-cublas"),
    ("libcublasLt.so.13", "nvidia-cublas"),
];

/// What they have, measured.
pub(crate) const DISK_BYTES: u64 = 569 << 20;

/// The beginning of the name of every licence text beside an engine.
pub(crate) const LICENCE: &str = "LICENSE.";

/// Whether it is one of them.
pub(crate) fn is_one(library: &str) -> bool {
    LIBRARIES.iter().any(|(name, _)| *name == library)
}

/// Puts them beside a binary that was just linked.
pub(crate) fn lay_beside(binary: &Path, cache: &Path) -> io::Result<()> {
    for (name, _) in LIBRARIES {
        let (from, to) = (managed::libraries(cache).join(name), binary.with_file_name(name));
        match std::fs::remove_file(&to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // A second name costs nothing; it goes with the objects, and the store gets a copy.
        std::fs::hard_link(&from, &to).or_else(|_| std::fs::copy(&from, &to).map(drop))?;
    }
    Ok(())
}

/// The licence texts of the wheels that they come with: as they are called beside an engine, and where they are.
pub(crate) fn licences(cache: &Path) -> Vec<(String, PathBuf)> {
    let mut wheels: Vec<_> = LIBRARIES.iter().map(|(_, wheel)| *wheel).collect();
    wheels.dedup();
    let text = |wheel: &str| (format!("{LICENCE}{wheel}.txt"), managed::licence(cache, wheel));
    wheels.into_iter().map(text).collect()
}
