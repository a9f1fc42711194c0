//! The random name of one spawn. It is put into the child's environment, so that a process can be
//! recognised even when its record was lost.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The environment variable that carries the [`SpawnId`].
pub const SPAWN_ID_VARIABLE: &str = "LLORCH_SPAWN_ID";

/// 122 random bits; never reused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SpawnId(String);

impl SpawnId {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string())
    }

    /// As text, as it stands in the environment.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn from_environment(value: String) -> Self {
        Self(value)
    }
}

impl fmt::Display for SpawnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
