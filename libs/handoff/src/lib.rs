//! The directory of handoff files.
