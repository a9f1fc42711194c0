//! Whose turn a task takes: what fairness and limits are counted by.
//!
//! Not who may see a task, which is [`crate::Owner`]: on a daemon without tokens everybody sees
//! everything, and callers still take turns.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use wire::SessionId;

/// A caller: the owner of an API key, else a session, else an address. The text begins with its
/// kind, so that no session can pass for a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallerId(Arc<str>);

impl CallerId {
    /// The owner of an API key, by a name that is not the key.
    #[must_use]
    pub fn key(name: &str) -> Self {
        Self(format!("key {name}").into())
    }

    /// A session of somebody without a key.
    #[must_use]
    pub fn session(session: &SessionId) -> Self {
        Self(format!("session {session}").into())
    }

    /// An address without key and session.
    #[must_use]
    pub fn peer(address: IpAddr) -> Self {
        Self(format!("peer {address}").into())
    }

    /// As [`CallerId`]'s `Display` wrote it.
    pub(crate) fn written(text: &str) -> Self {
        Self(text.into())
    }

    /// The name of the key's owner; `None` for a caller without a key.
    #[must_use]
    pub fn key_name(&self) -> Option<&str> {
        self.0.strip_prefix("key ")
    }
}

impl fmt::Display for CallerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
