//! Newtypes for every identifier, validated where they enter so that the rest of the code may
//! use them in paths, URLs and metric labels without checking again.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a string is not a valid identifier. The text names the kind and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {value:?} is not valid: {rule}")]
pub struct IdError {
    kind: &'static str,
    value: String,
    rule: &'static str,
}

const NAME_RULE: &str = "1 to 63 of a-z, 0-9, '-' and '_', starting with a letter or digit";
const TOKEN_RULE: &str = "1 to 64 of A-Z, a-z, 0-9, '-' and '_'";
const CORRELATION_RULE: &str = "1 to 64 visible ASCII characters";

fn is_name(s: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    (1..=63).contains(&s.len()) && s.bytes().all(inner) && !s.starts_with(['-', '_'])
}

fn is_token(s: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (1..=64).contains(&s.len()) && s.bytes().all(inner)
}

fn is_correlation(s: &str) -> bool {
    (1..=64).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_graphic())
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:ident, $rule:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String")]
        pub struct $name(String);

        impl $name {
            /// Validates `value`; the error names the rule it breaks.
            pub fn try_new(value: impl Into<String>) -> Result<Self, IdError> {
                let value = value.into();
                if $check(&value) {
                    Ok(Self(value))
                } else {
                    Err(IdError { kind: $kind, value, rule: $rule })
                }
            }

            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(value: String) -> Result<Self, IdError> {
                Self::try_new(value)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(value: &str) -> Result<Self, IdError> {
                Self::try_new(value)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

id!(
    /// A pool: one model on one engine configuration, served by one or more replicas.
    PoolId, "pool id", is_name, NAME_RULE
);
id!(
    /// One engine process inside a pool, `r0`, `r1`, …
    ReplicaId, "replica id", is_name, NAME_RULE
);
id!(
    /// A task. Chosen by the client for idempotent submission, else a UUIDv7.
    TaskId, "task id", is_token, TOKEN_RULE
);
id!(
    /// A session: turns that belong together.
    SessionId, "session id", is_token, TOKEN_RULE
);
id!(
    /// An operation on a pool; a UUIDv7.
    OperationId, "operation id", is_token, TOKEN_RULE
);
id!(
    /// The value of `X-Correlation-Id`.
    CorrelationId, "correlation id", is_correlation, CORRELATION_RULE
);

/// A replica's full name, written `pool/replica`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct ReplicaKey {
    /// Its pool.
    pub pool: PoolId,
    /// Its name in the pool.
    pub replica: ReplicaId,
}

impl fmt::Display for ReplicaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pool, self.replica)
    }
}

impl PoolId {
    /// The pool of a handoff that names none.
    #[must_use]
    pub fn default_pool() -> Self {
        Self("default".to_owned())
    }
}

impl ReplicaId {
    /// The `n`-th replica of a pool: `r0`, `r1`, …
    #[must_use]
    pub fn nth(n: u32) -> Self {
        Self(format!("r{n}"))
    }
}

impl OperationId {
    /// A new time-ordered id (UUIDv7).
    #[must_use]
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7().to_string())
    }
}

impl TaskId {
    /// A new time-ordered id (UUIDv7).
    #[must_use]
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7().to_string())
    }
}

impl CorrelationId {
    /// A new time-ordered id (UUIDv7).
    #[must_use]
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_id_never_leaves_its_directory() {
        for bad in ["", "..", "a/b", "A", "-a", "_a", "a.b", "a\0", &"x".repeat(64)] {
            assert!(PoolId::try_new(bad).is_err(), "{bad:?} must be refused");
        }
        for good in ["a", "haiku", "r0", "9-b_c", &"x".repeat(63)] {
            assert!(PoolId::try_new(good).is_ok(), "{good:?} must be accepted");
        }
    }

    #[test]
    fn a_refused_id_says_which_rule_it_breaks() {
        let error = PoolId::try_new("Big").unwrap_err().to_string();
        assert!(error.contains("pool id \"Big\"") && error.contains("a-z"), "{error}");
    }

    #[test]
    fn a_generated_task_id_is_valid() {
        assert!(TaskId::try_new(TaskId::generate().as_str()).is_ok());
    }
}
