//! What every write passes first. In production nothing; a test can fill the disk here and empty
//! it again, which a real one allows only to root.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The disk's willingness.
#[derive(Debug, Clone, Default)]
pub struct Space(Option<Arc<AtomicBool>>);

impl Space {
    /// A disk that is full for as long as the flag is set.
    #[must_use]
    pub fn full_while(flag: Arc<AtomicBool>) -> Self {
        Self(Some(flag))
    }

    pub(crate) fn check(&self) -> io::Result<()> {
        match &self.0 {
            Some(full) if full.load(Ordering::SeqCst) => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}
