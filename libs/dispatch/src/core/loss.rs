//! What becomes of a task whose engine is gone: it waits again, for so long, or ends.

use std::time::Duration;

use task_log::Entry;
use tokio::time::Instant;

use super::TaskCore;
use super::live::{AfterLoss, State};
use crate::Limits;
use crate::ending::Failure;

impl TaskCore {
    /// The engine was lost. The state is waiting again when the answer is [`AfterLoss::Anew`] or
    /// [`AfterLoss::Again`]. A chat that had only named its role runs again too; its log then holds that
    /// chunk twice, which clients of the protocol take as it is.
    pub(crate) fn after_loss(&self, reason: &str, limits: &Limits) -> AfterLoss {
        let mut state = self.lock();
        let State::Live(live) = &mut *state else { return AfterLoss::Ended };
        live.after_loss(reason, self.on_interrupt, limits)
    }

    /// The engine reported an error; what has shown nothing yet may be tried again.
    pub(crate) fn after_fault(&self, reason: &str) -> AfterLoss {
        let mut state = self.lock();
        let State::Live(live) = &mut *state else { return AfterLoss::Ended };
        if live.said.spoken || live.retries_left == 0 {
            return AfterLoss::GiveUp(None);
        }
        live.retries_left -= 1;
        live.wait_again(reason);
        AfterLoss::Anew
    }

    /// An earlier process was running the task, and `past` is what it wrote of it. The task waits as one
    /// does whose engine was lost, or cannot go on: then the answer says why. `torn`: it had written more,
    /// which is lost, so that it may have spoken although nothing of that is left.
    pub(crate) fn take_over(&self, past: &[Entry], torn: bool, reason: &str, limits: &Limits) -> AfterLoss {
        let mut state = self.lock();
        let State::Live(live) = &mut *state else { return AfterLoss::Ended };
        let mut started = false;
        for entry in past {
            match entry {
                Entry::Chunk { chunk, decode_ms, .. } => {
                    live.said.see(chunk);
                    if let Some(spent) = decode_ms {
                        live.history.decode_before = Duration::from_millis(*spent);
                    }
                }
                Entry::Started(of) => {
                    started = true;
                    live.history.queue = Some(Duration::from_millis(of.queue_ms));
                    live.model_digest = of.model_digest.as_str().into();
                }
                Entry::Resumed(at) => live.recall_seam(at),
                Entry::End(_) | Entry::Error(_) => {}
            }
        }
        if torn
            && live.is_completion()
            && let Some(ends) = live.cannot_go_on(self.on_interrupt)
        {
            return ends;
        }
        if started { live.after_loss(reason, self.on_interrupt, limits) } else { AfterLoss::Again }
    }

    /// Its slot is gone: the trace that it is in is told.
    pub(crate) fn tell_waiting(&self) {
        let Some(traced) = &self.traced else { return };
        if let State::Live(live) = &*self.lock() {
            traced.waits_again(live.first_chunk, live.lost.clone());
        }
    }

    /// How long it may wait in the queue now.
    pub(crate) fn waits_until(&self) -> Option<Instant> {
        let resume_by = match &*self.lock() {
            State::Live(live) => live.resume_by,
            State::Ending(_) | State::Ended { .. } | State::Past(_) => None,
        };
        self.deadline.into_iter().chain(resume_by).min()
    }

    /// What it ends with when it has waited so long.
    pub(crate) fn waited_too_long(&self, now: Instant) -> Failure {
        let lost = match &*self.lock() {
            State::Live(live) => live.lost.clone().filter(|_| live.resume_by.is_some()),
            State::Ending(_) | State::Ended { .. } | State::Past(_) => None,
        };
        match lost {
            Some(reason) if self.deadline.is_none_or(|deadline| deadline > now) => {
                Failure::engine_lost(&reason).because("no other engine could take it over in time")
            }
            _ => Failure::deadline(),
        }
    }
}
