//! Whether the journal can be written, for admission, and one word in the log per change.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

/// Which part fails.
#[derive(Debug, Default)]
pub(crate) struct Health([AtomicBool; 3]);

/// What is written, and what makes it last.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    Events,
    Sync,
    Store,
}

impl Health {
    /// Whether an admission may be tried.
    pub(crate) fn is_good(&self) -> bool {
        !self.0.iter().any(|fails| fails.load(Ordering::SeqCst))
    }

    pub(crate) fn fails(&self, part: Part, error: &dyn fmt::Display) {
        if !self.flag(part).swap(true, Ordering::SeqCst) {
            tracing::error!(
                what = part.words(),
                %error,
                "the journal cannot be written; streams go on, new tasks are refused until it can be; \
                 check the free space and the disk of the runtime directory"
            );
        }
    }

    pub(crate) fn works(&self, part: Part) {
        if self.flag(part).swap(false, Ordering::SeqCst) {
            tracing::info!(what = part.words(), "the journal can be written again");
        }
    }

    fn flag(&self, part: Part) -> &AtomicBool {
        match part {
            Part::Events => &self.0[0],
            Part::Sync => &self.0[1],
            Part::Store => &self.0[2],
        }
    }
}

impl Part {
    fn words(self) -> &'static str {
        match self {
            Self::Events => "event files",
            Self::Sync => "event files, to the disk itself",
            Self::Store => "store of tasks",
        }
    }
}
