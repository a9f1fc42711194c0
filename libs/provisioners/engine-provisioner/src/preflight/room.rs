//! How much disk a build takes, from what it is made of: each part with what it is, so that whoever has too
//! little sees where it would go.

use std::fmt;

use super::look::{Found, Python};
use crate::cuda::{managed, runtime};
use crate::gpu::Target;
use crate::tools::{self, Choice};

const MIB: u64 = 1 << 20;
/// Objects, libraries and the binary of a build for the processor. Allowed for: the first quarter of the pinned
/// source's objects took 16 MiB, and the binary has 15.
const CPU_OBJECTS: u64 = 512 * MIB;
/// More for each compute capability. Allowed for: no whole build for a card has been measured yet.
const CUDA_OBJECTS_EACH: u64 = 1024 * MIB;
/// Logs, manifests, and what a file system adds to small files.
const MARGIN: u64 = 128 * MIB;

/// What a build takes, part by part.
pub(super) struct Room(Vec<(String, u64)>);

/// What is there of objects while a build for `target` goes on.
pub(crate) fn objects(target: &Target) -> u64 {
    match target {
        Target::Cpu => CPU_OBJECTS,
        Target::Cuda { architectures, .. } => {
            CPU_OBJECTS + CUDA_OBJECTS_EACH * architectures.len().max(1) as u64
        }
    }
}

impl Room {
    /// What is there already takes nothing.
    pub(super) fn of(found: &Found, target: &Target) -> Self {
        let built = match target {
            Target::Cpu => "objects".to_owned(),
            Target::Cuda { architectures, .. } => {
                format!("objects of compute capability {}", architectures.join(" and "))
            }
        };
        let tools = match found.tools.choice() {
            Choice::Ready(_) => false,
            Choice::Install(None) => true,
            Choice::Install(Some(_)) => matches!(found.python, Some(Python::Usable(_))),
        };
        let parts = [
            ("the source".to_owned(), found.source_bytes),
            ("CMake and Ninja".to_owned(), if tools { tools::DISK_MIB * MIB } else { 0 }),
            ("the CUDA toolkit".to_owned(), if found.own_toolkit { managed::DISK_BYTES } else { 0 }),
            (built, objects(target)),
            ("CUDA's libraries".to_owned(), if found.runtime { runtime::DISK_BYTES } else { 0 }),
            ("what else there is".to_owned(), MARGIN),
        ];
        Self(parts.into_iter().filter(|(_, bytes)| *bytes > 0).collect())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// As `930 MiB (290 for the source, 512 for objects, …)`.
impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.bytes().div_ceil(MIB))?;
        let parts = self.0.iter().map(|(what, bytes)| format!("{} for {what}", bytes.div_ceil(MIB)));
        write!(f, " ({})", parts.collect::<Vec<_>>().join(", "))
    }
}
