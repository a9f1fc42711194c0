//! Questions that may never be answered: a library call cannot be ended from outside, and a driver that
//! hangs holds it for ever. It is asked on a thread of its own, and once an answer is late nothing more is
//! asked until it has come.

use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(10);

/// Whoever is asked. All clones know whether an answer is still owed.
#[derive(Debug)]
pub(crate) struct InTime<T> {
    patience: Duration,
    owed: Arc<Mutex<Option<Receiver<T>>>>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// Whoever asked wants to know no more.
    Stopped,
    /// It did not come in time, or that of an earlier question has not come yet.
    Late,
    /// Whoever was asked panicked.
    Died,
}

impl<T> Clone for InTime<T> {
    fn clone(&self) -> Self {
        Self { patience: self.patience, owed: Arc::clone(&self.owed) }
    }
}

impl<T: Send + 'static> InTime<T> {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, owed: Arc::default() }
    }

    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// The answer, waited for until `stop` says true or the patience ends; at once none while one that was
    /// waited for in vain is still owed.
    pub(crate) fn ask(
        &self,
        question: impl FnOnce() -> T + Send + 'static,
        stop: &dyn Fn() -> bool,
    ) -> Result<T, NoAnswer> {
        let still = |owed: &mut Receiver<T>| matches!(owed.try_recv(), Err(TryRecvError::Empty));
        if self.owed().as_mut().is_some_and(still) {
            return Err(NoAnswer::Late);
        }
        let (answer, answered) = channel();
        std::thread::spawn(move || {
            // Nobody may wait for it any more.
            let _unheard = answer.send(question());
        });
        let until = Instant::now() + self.patience;
        let none = loop {
            match answered.recv_timeout(POLL) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => break NoAnswer::Died,
                Err(RecvTimeoutError::Timeout) if stop() => break NoAnswer::Stopped,
                Err(RecvTimeoutError::Timeout) if Instant::now() >= until => break NoAnswer::Late,
                Err(RecvTimeoutError::Timeout) => {}
            }
        };
        *self.owed() = Some(answered);
        Err(none)
    }

    fn owed(&self) -> MutexGuard<'_, Option<Receiver<T>>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: &dyn Fn() -> bool = &|| false;

    /// POOLD-DEVICE-001
    #[test]
    fn what_never_answers_is_waited_for_once_and_asked_again_when_it_has() {
        let library = InTime::new(Duration::from_millis(200));
        let (release, held) = channel::<()>();
        let hangs = move || {
            let _released = held.recv();
            1
        };
        let begun = Instant::now();
        assert_eq!(library.ask(hangs, NEVER), Err(NoAnswer::Late));
        assert!(begun.elapsed() >= library.patience());
        let asked = || panic!("it is asked a second time while it owes an answer");
        assert_eq!(library.clone().ask(asked, NEVER), Err(NoAnswer::Late));
        drop(release);
        let patient = InTime { patience: Duration::from_secs(60), ..library };
        let answer = loop {
            match patient.ask(|| 2, NEVER) {
                Err(NoAnswer::Late) => std::thread::yield_now(),
                answer => break answer,
            }
        };
        assert_eq!(answer, Ok(2), "the late answer was an older question's");
    }

    /// POOLD-DEVICE-001
    #[test]
    fn whoever_stops_waits_no_longer_and_a_panic_is_no_answer() {
        let library = InTime::new(Duration::from_secs(600));
        let (_release, held) = channel::<()>();
        let begun = Instant::now();
        let hangs = move || {
            let _released = held.recv();
        };
        assert_eq!(library.ask(hangs, &|| true), Err(NoAnswer::Stopped));
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        let dies = InTime::<()>::new(Duration::from_secs(600));
        assert_eq!(dies.ask(|| panic!("as a library may"), NEVER), Err(NoAnswer::Died));
        assert_eq!(dies.ask(|| (), NEVER), Ok(()));
    }
}
