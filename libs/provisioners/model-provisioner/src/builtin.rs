//! The models that ship inside the program, so that a machine without any hub has one.

use std::sync::OnceLock;

use sha2::{Digest as _, Sha256};

use crate::digest::hex;

/// A model compiled into the program.
pub(crate) struct Builtin {
    pub(crate) name: &'static str,
    pub(crate) bytes: &'static [u8],
    digest: OnceLock<String>,
}

impl Builtin {
    /// SHA-256 of the bytes; computed once per process.
    pub(crate) fn digest(&self) -> &str {
        self.digest.get_or_init(|| hex(&Sha256::digest(self.bytes)))
    }
}

static HAIKU: Builtin =
    Builtin { name: "haiku", bytes: include_bytes!("../models/haiku.gguf"), digest: OnceLock::new() };

/// All of them; the first is the default of zero config.
pub(crate) fn all() -> [&'static Builtin; 1] {
    [&HAIKU]
}
