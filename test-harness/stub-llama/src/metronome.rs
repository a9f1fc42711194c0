//! Waits that end when they are due. tokio's timers go by whole milliseconds: of 64 streams with a token every
//! 20 ms each, three or four would always come at once, and what is measured on the way of one would be the
//! wait behind the others.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// One timer of the kernel's for all that wait.
#[derive(Debug)]
pub(crate) struct Metronome {
    timer: AsyncFd<Timer>,
    waits: Mutex<Waits>,
}

/// Open for as long as it is watched, and never another one: what is asked of who is watched.
#[derive(Debug)]
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Who waits until when, the earliest at the top, in the order of their coming.
#[derive(Debug, Default)]
struct Waits {
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    told: HashMap<u64, oneshot::Sender<()>>,
    count: u64,
    /// Nobody tells any more.
    over: bool,
}

impl Metronome {
    /// Starts one on the runtime that is entered.
    pub(crate) fn start() -> io::Result<Arc<Self>> {
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "what took its place trusts its caller to hold to what a `Timer` holds to"
        )]
        let timer = AsyncFd::with_interest(Timer(timer), Interest::READABLE)?;
        let metronome = Arc::new(Self { timer, waits: Mutex::default() });
        let ticks = Arc::clone(&metronome);
        tokio::spawn(async move {
            if ticks.tick().await.is_err() {
                let mut waits = ticks.lock();
                waits.over = true;
                // Whoever waits learns it by that.
                waits.told.clear();
            }
        });
        Ok(metronome)
    }

    /// Returns at `due`, or at once where that is over.
    pub(crate) async fn until(&self, due: Instant) -> io::Result<()> {
        if due <= Instant::now() {
            tokio::task::yield_now().await;
            return Ok(());
        }
        let told = {
            let mut waits = self.lock();
            if waits.over {
                return Err(io::Error::other("the timer is gone"));
            }
            let (tell, told) = oneshot::channel();
            waits.count += 1;
            let nth = waits.count;
            waits.told.insert(nth, tell);
            waits.due.push(Reverse((due, nth)));
            if waits.due.peek().is_some_and(|Reverse((_, first))| *first == nth) {
                self.set(due)?;
            }
            told
        };
        told.await.map_err(io::Error::other)
    }

    /// Tells whoever is due, for as long as the runtime lives.
    async fn tick(&self) -> io::Result<()> {
        loop {
            self.timer.readable().await?.clear_ready();
            let mut waits = self.lock();
            let now = Instant::now();
            while let Some(Reverse((due, nth))) = waits.due.peek().copied() {
                if due > now {
                    self.set(due)?;
                    break;
                }
                waits.due.pop();
                // Whoever does not wait any more has no ear for it.
                let _ = waits.told.remove(&nth).map(|tell| tell.send(()));
            }
        }
    }

    /// Setting it takes back that it has rung.
    fn set(&self, due: Instant) -> io::Result<()> {
        // Nothing is never, to the kernel.
        let left = due.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let once = Expiration::OneShot(left.into());
        self.timer.get_ref().0.set(once, TimerSetTimeFlags::empty()).map_err(io::Error::from)
    }

    fn lock(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use futures_util::stream::FuturesUnordered;

    use super::*;

    #[tokio::test]
    async fn each_wait_ends_when_it_is_due_and_in_its_turn() {
        let metronome = Metronome::start().unwrap();
        let began = Instant::now();
        let wait = |micros: u64| {
            let metronome = Arc::clone(&metronome);
            async move {
                let due = began + Duration::from_micros(micros);
                metronome.until(due).await.unwrap();
                (micros, Instant::now() >= due)
            }
        };
        let mut waits: FuturesUnordered<_> = [5_700, 5_300, 0, 5_300, 12_100].map(wait).into_iter().collect();
        let mut order = Vec::new();
        while let Some((micros, over)) = waits.next().await {
            assert!(over, "{micros} µs were not over");
            order.push(micros);
        }
        assert_eq!(order, [0, 5_300, 5_300, 5_700, 12_100]);
        // Again, when nobody waits any more.
        assert_eq!(wait(12_900).await.0, 12_900);
    }

    #[tokio::test]
    async fn a_wait_that_comes_later_and_is_due_earlier_is_not_held_up() {
        let metronome = Metronome::start().unwrap();
        let late = metronome.until(Instant::now() + Duration::from_secs(3_600));
        let early = async {
            tokio::task::yield_now().await;
            metronome.until(Instant::now() + Duration::from_millis(2)).await
        };
        tokio::select! {
            biased;
            _ = late => panic!("an hour is over"),
            told = early => told.unwrap(),
        }
    }

    /// By whole milliseconds, each of these would be 0.7 ms late.
    #[tokio::test]
    async fn waits_are_not_rounded_up_to_milliseconds() {
        let metronome = Metronome::start().unwrap();
        let mut late = Vec::new();
        for _ in 0..100 {
            let due = Instant::now() + Duration::from_micros(1_300);
            metronome.until(due).await.unwrap();
            late.push(due.elapsed());
        }
        assert!(late.iter().min() < Some(&Duration::from_micros(300)), "{late:?}");
    }
}
