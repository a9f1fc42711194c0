//! What every write and every sync passes first. In production nothing; a test can fill the disk here, or
//! let its syncs fail, and mend it again, which a real one allows only to root.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The disk's willingness.
#[derive(Debug, Clone, Default)]
pub struct Space {
    full: Option<Arc<AtomicBool>>,
    unsynced: Option<Arc<AtomicBool>>,
}

impl Space {
    /// A disk that is full for as long as the flag is set.
    #[must_use]
    pub fn full_while(flag: Arc<AtomicBool>) -> Self {
        Self { full: Some(flag), ..Self::default() }
    }

    /// A disk that takes writes into memory and syncs no event file for as long as the flag is set.
    #[must_use]
    pub fn unsynced_while(flag: Arc<AtomicBool>) -> Self {
        Self { unsynced: Some(flag), ..Self::default() }
    }

    pub(crate) fn check(&self) -> io::Result<()> {
        if is_set(self.full.as_ref()) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    pub(crate) fn check_sync(&self) -> io::Result<()> {
        if is_set(self.unsynced.as_ref()) { Err(io::Error::other("a sync that fails")) } else { Ok(()) }
    }
}

fn is_set(flag: Option<&Arc<AtomicBool>>) -> bool {
    flag.is_some_and(|flag| flag.load(Ordering::SeqCst))
}
