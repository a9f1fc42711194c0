//! Questions that may never be answered: a library call cannot be ended from outside, and a driver that
//! hangs holds it for ever. It is asked on a thread of its own; whoever asks while a question is on its way
//! waits for that one's answer, and nobody waits for one that is late.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(10);

/// Whoever is asked. All clones know whether an answer is still owed.
#[derive(Debug)]
pub(crate) struct InTime<T> {
    patience: Duration,
    owed: Arc<Mutex<Option<Question<T>>>>,
}

/// One that is on its way.
#[derive(Debug)]
struct Question<T> {
    asked: Instant,
    /// The answer, and when it was given.
    answer: Receiver<(Instant, T)>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// Whoever asked wants to know no more.
    Stopped,
    /// It did not come in time, or that of an earlier question is late and has not come yet.
    Late,
    /// The question could not be asked, or whoever was asked panicked.
    Failed,
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

    /// The answer, waited for until `stop` says true or the patience with the question ends. One that came
    /// late and not long ago is as good: the next would be late, too.
    pub(crate) fn ask(
        &self,
        question: impl FnOnce() -> T + Send + 'static,
        stop: &dyn Fn() -> bool,
    ) -> Result<T, NoAnswer> {
        // Taken in a statement of its own: the lock must not be held while waiting.
        let owed = self.owed().take();
        let owed = match owed {
            None => None,
            Some(owed) => match owed.answer.recv_timeout(Duration::ZERO) {
                Ok((given, answer)) if given.elapsed() < self.patience => return Ok(answer),
                Err(RecvTimeoutError::Timeout) => Some(owed),
                Ok(_) | Err(RecvTimeoutError::Disconnected) => None,
            },
        };
        let asked = match owed {
            Some(owed) => owed,
            None => send(question)?,
        };
        let waited = self.wait(&asked, stop);
        if matches!(waited, Err(NoAnswer::Stopped | NoAnswer::Late)) {
            *self.owed() = Some(asked);
        }
        waited
    }

    fn wait(&self, question: &Question<T>, stop: &dyn Fn() -> bool) -> Result<T, NoAnswer> {
        let left = self.patience.saturating_sub(question.asked.elapsed());
        let until = Instant::now() + left;
        // Where this process hardly came to run itself, neither did whoever answers.
        let (mut looks, enough) = (0, left.as_millis() / POLL.as_millis() / 4);
        loop {
            looks += 1;
            match question.answer.recv_timeout(POLL) {
                Ok((_, answer)) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => return Err(NoAnswer::Failed),
                Err(RecvTimeoutError::Timeout) if stop() => return Err(NoAnswer::Stopped),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= until && looks > enough => {
                    return Err(NoAnswer::Late);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn owed(&self) -> MutexGuard<'_, Option<Question<T>>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn send<T: Send + 'static>(question: impl FnOnce() -> T + Send + 'static) -> Result<Question<T>, NoAnswer> {
    let (sender, answer) = channel();
    let ask = move || {
        let said = question();
        // Nobody may wait for it any more.
        let _unheard = sender.send((Instant::now(), said));
    };
    let asked = Instant::now();
    std::thread::Builder::new().name("question".to_owned()).spawn(ask).map_err(|_| NoAnswer::Failed)?;
    Ok(Question { asked, answer })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: &dyn Fn() -> bool = &|| false;

    fn not_asked() -> u32 {
        panic!("it is asked a second time while it owes an answer")
    }

    /// POOLD-DEVICE-001
    #[test]
    fn what_never_answers_is_waited_for_once_and_its_late_answer_counts() {
        let library = InTime::new(Duration::from_millis(200));
        let (release, held) = channel::<()>();
        let hangs = move || {
            let _released = held.recv();
            1
        };
        let begun = Instant::now();
        assert_eq!(library.ask(hangs, NEVER), Err(NoAnswer::Late));
        assert!(begun.elapsed() >= library.patience());
        assert_eq!(library.clone().ask(not_asked, NEVER), Err(NoAnswer::Late));
        drop(release);
        let patient = InTime { patience: Duration::from_secs(60), ..library };
        assert_eq!(patient.ask(not_asked, NEVER), Ok(1));
        assert_eq!(patient.ask(|| 2, NEVER), Ok(2), "it is told once");
    }

    /// POOLD-DEVICE-001
    #[test]
    fn an_answer_that_is_old_is_asked_for_anew() {
        let library = InTime::new(Duration::from_secs(30));
        let long_ago = Instant::now().checked_sub(Duration::from_secs(31)).unwrap();
        let (sender, answer) = channel();
        sender.send((long_ago, 1)).unwrap();
        *library.owed() = Some(Question { asked: long_ago, answer });
        assert_eq!(library.ask(|| 2, NEVER), Ok(2));
    }

    /// POOLD-DEVICE-001
    #[test]
    fn whoever_stops_waits_no_longer_and_who_asks_next_gets_that_answer() {
        let library = InTime::new(Duration::from_secs(600));
        let (release, held) = channel::<()>();
        let slow = move || {
            let _released = held.recv();
            1
        };
        let begun = Instant::now();
        assert_eq!(library.ask(slow, &|| true), Err(NoAnswer::Stopped));
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        // Nothing is wrong with it: it is no hung one.
        let next = library.clone();
        let asks = std::thread::spawn(move || next.ask(not_asked, NEVER));
        drop(release);
        assert_eq!(asks.join().unwrap(), Ok(1));
        let dies = InTime::<()>::new(Duration::from_secs(600));
        assert_eq!(dies.ask(|| panic!("as a library may"), NEVER), Err(NoAnswer::Failed));
        assert_eq!(dies.ask(|| (), NEVER), Ok(()));
    }
}
