//! How busy the machine was while a bar ran: a time that was missed on a machine whose processors
//! were overrun says little about the product, and is measured again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A nap of the watching thread.
const NAP: Duration = Duration::from_millis(10);

/// Of the time, some task waited for a processor.
const BUSY_SHARE: f64 = 0.3;

/// Held up for so long, a sleeping thread shows that limits of some tens of milliseconds are in doubt.
const HELD_UP: Duration = Duration::from_millis(20);

/// How long a calmer moment is waited for, and how long one is looked at.
const CALMER_WITHIN: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_secs(1);

/// Watches until it is asked.
pub(crate) struct LoadWatch {
    began: Instant,
    waited_us: Option<u64>,
    latest_us: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How busy it was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Share of the time in which some task waited for a processor, where the kernel tells.
    pub(crate) waiting: Option<f64>,
    /// The latest that a sleeping thread woke up.
    pub(crate) held_up: Duration,
}

impl LoadWatch {
    pub(crate) fn begin() -> Self {
        let (latest_us, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (latest, ended) = (Arc::clone(&latest_us), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let began = Instant::now();
                std::thread::sleep(NAP);
                let late = began.elapsed().saturating_sub(NAP).as_micros();
                latest.fetch_max(u64::try_from(late).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        });
        Self { began: Instant::now(), waited_us: waited_us(), latest_us, over, thread: Some(thread) }
    }

    pub(crate) fn end(mut self) -> Load {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It only sleeps; there is nothing in it that could panic.
            let _ = thread.join();
        }
        let waited = self.waited_us.zip(waited_us()).map(|(before, after)| after.saturating_sub(before));
        let elapsed = self.began.elapsed().as_micros().max(1) as f64;
        Load {
            waiting: waited.map(|us| us as f64 / elapsed),
            held_up: Duration::from_micros(self.latest_us.load(Ordering::Relaxed)),
        }
    }
}

impl Load {
    /// Whether the machine alone may be why a time was missed.
    pub(crate) fn was_heavy(&self) -> bool {
        self.held_up >= HELD_UP || self.waiting.is_some_and(|share| share >= BUSY_SHARE)
    }
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let waiting = self.waiting.map_or("?".to_owned(), |share| format!("{:.0}", share * 100.0));
        let held_up = self.held_up.as_millis();
        write!(
            f,
            "a task waited for a processor {waiting} % of the time, a sleeper woke up to {held_up} ms late"
        )
    }
}

/// Waits until the machine is calmer, but not for long: it may be as busy all day.
pub(crate) async fn calmer() {
    let until = Instant::now() + CALMER_WITHIN;
    while Instant::now() < until {
        let before = waited_us();
        tokio::time::sleep(LOOK).await;
        let waited = before.zip(waited_us()).map_or(0, |(before, after)| after.saturating_sub(before));
        if (waited as f64) < LOOK.as_micros() as f64 * BUSY_SHARE {
            return;
        }
    }
}

/// Microseconds since boot in which some task waited for a processor.
fn waited_us() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/pressure/cpu").ok()?;
    let some = text.lines().find(|line| line.starts_with("some"))?;
    some.split_whitespace().find_map(|word| word.strip_prefix("total=")?.parse().ok())
}
