//! A future that waits beside a stream of tokens and is polled only when it was itself woken: a token wakes
//! the task that both are in, and asking everything that may cut it short each time would cost more than the
//! token does. Looking at one flag is what it costs.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

pub(crate) struct Beside<F> {
    /// Absent once it has said its output.
    future: Option<Pin<Box<F>>>,
    told: Arc<Told>,
    /// Whom `told` wakes; it is told anew when that is another.
    known: Option<Waker>,
}

struct Told {
    woken: AtomicBool,
    task: Mutex<Waker>,
}

impl<F: Future> Beside<F> {
    pub(crate) fn new(future: F) -> Self {
        let told = Told { woken: AtomicBool::new(true), task: Mutex::new(Waker::noop().clone()) };
        Self { future: Some(Box::pin(future)), told: Arc::new(told), known: None }
    }

    /// Its output, once; waits for it. Cancel-safe.
    pub(crate) async fn over(&mut self) -> F::Output {
        poll_fn(|cx| self.poll(cx)).await
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        if !self.known.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            self.known = Some(cx.waker().clone());
            // Before the flag is looked at: a wake sets that first.
            self.told.wakes(cx.waker().clone());
        }
        // Taken back before it is polled: what wakes it meanwhile has it polled again.
        if !self.told.woken.load(Ordering::Acquire) || !self.told.woken.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let Some(future) = &mut self.future else { return Poll::Pending };
        let waker = Waker::from(Arc::clone(&self.told));
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_ready() {
            self.future = None;
        }
        polled
    }
}

impl Told {
    fn wakes(&self, task: Waker) {
        let before = std::mem::replace(&mut *self.task.lock().unwrap_or_else(PoisonError::into_inner), task);
        // Not under the lock: the task may be gone with it.
        drop(before);
    }
}

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.swap(true, Ordering::AcqRel);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn it_is_polled_when_it_was_woken_and_not_when_its_task_was() {
        let (say, mut said) = oneshot::channel();
        let polls = Cell::new(0);
        let mut beside = Beside::new(poll_fn(|cx| {
            polls.set(polls.get() + 1);
            said.poll_unpin(cx)
        }));
        for _ in 0..10 {
            assert_eq!(beside.over().now_or_never(), None);
        }
        assert_eq!(polls.get(), 1);
        say.send(7).unwrap();
        assert_eq!(beside.over().now_or_never(), Some(Ok(7)));
        assert_eq!(beside.over().now_or_never(), None, "once");
        assert_eq!(polls.get(), 2);
    }

    #[tokio::test]
    async fn it_wakes_the_task_that_polled_last() {
        let (say, said) = oneshot::channel::<u8>();
        let mut beside = Beside::new(said);
        assert!(beside.over().now_or_never().is_none());
        let waits = tokio::spawn(async move { beside.over().await });
        tokio::task::yield_now().await;
        say.send(7).unwrap();
        assert_eq!(waits.await.unwrap(), Ok(7));
    }
}
