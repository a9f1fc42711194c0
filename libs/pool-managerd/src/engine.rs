//! A running engine process, started by this manager or adopted from an earlier one. The two
//! differ in how their end is observed, and nobody above needs to know.

use std::time::Duration;

use child::{Adopted, Child, Exit, WaitError};

/// The process of one life. Dropping it leaves the process running.
#[derive(Debug)]
pub(crate) enum Engine {
    Own(Child),
    Adopted(Adopted),
}

impl Engine {
    pub(crate) fn pid(&self) -> u32 {
        match self {
            Self::Own(child) => child.pid(),
            Self::Adopted(adopted) => adopted.pid(),
        }
    }

    /// Resolves when it has exited. An exit that cannot be observed counts as one: a process that
    /// nobody can watch must not stay published.
    pub(crate) async fn exited(&self) -> Exit {
        let exit = match self {
            Self::Own(child) => child.exited().await,
            Self::Adopted(adopted) => adopted.exited().await,
        };
        told(exit)
    }

    /// Ends it and all its descendants.
    pub(crate) async fn terminate(&self, grace: Duration) -> Exit {
        let exit = match self {
            Self::Own(child) => child.terminate(grace).await,
            Self::Adopted(adopted) => adopted.terminate(grace).await,
        };
        told(exit)
    }
}

fn told(exit: Result<Exit, WaitError>) -> Exit {
    exit.unwrap_or_else(|error| {
        let source = &error.source;
        tracing::error!(%error, %source, "an engine's exit cannot be observed");
        Exit::Unknown
    })
}
