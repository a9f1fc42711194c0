//! What can be said about a model before it is staged, for plans: nothing is fetched, hashed or written.

use std::path::PathBuf;

use crate::gguf;
use crate::remote::{Announced, FetchError, staged_before};
use crate::stage::{ModelProvisioner, existing_file, find_builtin};
use crate::stage_error::StageError;
use crate::{Cancel, ModelRef, trust};

impl ModelProvisioner {
    /// Where an earlier staging of `reference` put its file, if it is still there. Neither reads the file nor
    /// asks the network.
    #[must_use]
    pub fn staged_before(&self, reference: &ModelRef) -> Option<PathBuf> {
        match reference {
            ModelRef::Builtin(name) => find_builtin(name).ok().map(|model| self.builtin_path(model)),
            _ => staged_before(&self.models(), reference).ok().flatten(),
        }
        .filter(|path| path.is_file())
    }

    /// How large the model is, where that is known without asking anybody.
    #[must_use]
    pub fn known_bytes(&self, reference: &ModelRef) -> Option<u64> {
        let path = match reference {
            ModelRef::Builtin(name) => return find_builtin(name).ok().map(|model| model.bytes.len() as u64),
            ModelRef::File(path) if path.is_file() => path.clone(),
            ModelRef::File(_) | ModelRef::Https(_) | ModelRef::Hub { .. } => self.staged_before(reference)?,
        };
        wire::split::files(&path).iter().map(|file| file.metadata().ok().map(|meta| meta.len())).sum()
    }

    /// What would keep `reference` from being staged, as far as that shows without asking anybody: the trust
    /// policy, a name that nobody knows, a file that is not there or is no model.
    ///
    /// # Errors
    /// As staging it would end.
    pub fn foresee(&self, reference: &ModelRef, expected_sha256: Option<&str>) -> Result<(), StageError> {
        self.admit(reference, expected_sha256)?;
        let path = match reference {
            ModelRef::Builtin(name) => {
                let (model, actual) = (find_builtin(name)?, find_builtin(name)?.digest());
                return match expected_sha256.filter(|expected| !expected.eq_ignore_ascii_case(actual)) {
                    None => Ok(()),
                    Some(expected) => Err(StageError::DigestMismatch {
                        path: self.builtin_path(model),
                        expected: expected.to_owned(),
                        actual: actual.to_owned(),
                    }),
                };
            }
            ModelRef::File(path) => match (existing_file(path), self.staged_before(reference)) {
                (Err(StageError::Missing { .. }), Some(taken_in)) => taken_in,
                (here, _) => here?,
            },
            // What was fetched and is damaged is fetched again.
            ModelRef::Https(_) | ModelRef::Hub { .. } => {
                let pinned = expected_sha256.map(str::to_ascii_lowercase);
                let usable = self.with_remote(&|_| (), &Cancel::new(), |remote| {
                    remote.usable(reference, pinned.as_deref())
                });
                return usable.map_err(|source| StageError::of_fetch(reference, source));
            }
        };
        gguf::read_header(&path).map(drop).map_err(|source| StageError::Gguf { path, source })
    }

    /// What is to be had for `reference`, as its source says when it is asked once, briefly; offline as the hub's
    /// own cache says. For a model that was not staged before.
    ///
    /// # Errors
    /// The source's refusal, or that it does not answer.
    pub fn announced(
        &self,
        reference: &ModelRef,
        expected_sha256: Option<&str>,
        cancel: &Cancel,
    ) -> Result<Announced, FetchError> {
        match reference {
            ModelRef::Builtin(_) | ModelRef::File(_) => {
                Ok(Announced { bytes: self.known_bytes(reference), in_hub_cache: None })
            }
            ModelRef::Https(_) | ModelRef::Hub { .. } => {
                self.with_remote(&|_| (), cancel, |remote| match self.is_offline() {
                    true => remote.announced_offline(reference, expected_sha256),
                    false => remote.announced(reference, expected_sha256),
                })
            }
        }
    }

    /// The trust policy's answer.
    pub(crate) fn admit(
        &self,
        reference: &ModelRef,
        expected_sha256: Option<&str>,
    ) -> Result<(), StageError> {
        trust::admit(self.rules(), reference, expected_sha256)
            .map_err(|problem| StageError::Untrusted { reference: reference.to_string(), problem })
    }
}
