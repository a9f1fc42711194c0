//! The signals that ask a process to end: from a supervisor, a keyboard, and a terminal that closes.
//!
//! A second one means that nobody wants to wait any more. What was sent once and arrives twice must not
//! mean that: `timeout` signals its child and then the whole group, and the child is in both.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Two signals of one kind within this time are one: nobody who has waited is this quick.
const ONE_ASK: Duration = Duration::from_millis(250);
/// And one that is first seen this late has come by itself.
const SEEN_LATE: Duration = Duration::from_secs(2);

/// Listens from when it is made.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
    quit: Signal,
    /// Absent under `nohup`, whose point it is.
    hup: Option<Signal>,
    /// It was started from a terminal.
    terminal: bool,
    /// The last one that asked for the end.
    last: Option<(Received, Instant)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Received {
    Terminate,
    Interrupt,
    Quit,
    Hangup,
}

impl Signals {
    /// Listens from now on; before this they end the process.
    ///
    /// # Errors
    /// The runtime cannot listen.
    pub fn listen() -> io::Result<Self> {
        let hup = if ignores_hup() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hup,
            terminal: has_terminal(),
            last: None,
        })
    }

    /// Resolves when a daemon is to end. A hangup that is none asks for its configuration.
    pub async fn end(&mut self, asked: &Notify) {
        while self.receive().await == Received::Hangup {
            if self.terminal && !has_terminal() {
                return;
            }
            asked.notify_one();
        }
    }

    /// Resolves with any of them.
    pub async fn next(&mut self) {
        self.receive().await;
    }

    async fn receive(&mut self) -> Received {
        while let Some((last, at)) = self.last {
            // Looks for a signal before it looks at the clock: on a machine that is busy, what came at
            // once may be seen late.
            match tokio::time::timeout_at(at + ONE_ASK, self.one()).await {
                Ok(again) if again == last && at.elapsed() < SEEN_LATE => {}
                Ok(other) => return self.note(other),
                Err(_elapsed) => self.last = None,
            }
        }
        let received = self.one().await;
        self.note(received)
    }

    fn note(&mut self, received: Received) -> Received {
        if received != Received::Hangup {
            self.last = Some((received, Instant::now()));
        }
        received
    }

    async fn one(&mut self) -> Received {
        let hup = async {
            match &mut self.hup {
                Some(hup) => hup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.term.recv() => Received::Terminate,
            _ = self.int.recv() => Received::Interrupt,
            _ = self.quit.recv() => Received::Quit,
            _ = hup => Received::Hangup,
        }
    }
}

/// Whether this process has a terminal that controls it; a closed one is none.
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// Whether whoever started us wants us to outlive the terminal.
fn ignores_hup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
