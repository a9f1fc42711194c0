//! A running engine process, started by this manager or adopted from an earlier one. The two
//! differ in how their end is observed, and nobody above needs to know.

use std::time::Duration;

use child::{Adopted, Child, Exit, WaitError};

/// Between two questions about an adopted engine's exit status.
const STATUS_PERIOD: Duration = Duration::from_millis(20);

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

    /// How it ended, once it has. Of an adopted engine only the kernel knows, and says it when its parent
    /// has reaped it, or never; it is asked for as long as `within`.
    pub(crate) async fn exit_status(&self, exit: Exit, within: Duration) -> Exit {
        let Self::Adopted(adopted) = self else { return exit };
        let told = async {
            loop {
                if let Some(exit) = adopted.exit_status() {
                    return exit;
                }
                tokio::time::sleep(STATUS_PERIOD).await;
            }
        };
        tokio::time::timeout(within, told).await.unwrap_or(exit)
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
