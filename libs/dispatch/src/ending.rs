//! The ways a task can end, and what each says to its readers and to the metrics.

use std::time::Duration;

use adapter_host::{Finished, SoFar};
use wire::event::StreamError;
use wire::{ErrorBody, ErrorCode, ReplicaKey, TaskState};

use crate::said::Said;

/// How a task ends.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The engine finished it.
    Finished(Finished),
    /// Its engine was lost when the last token that it may have was there.
    Spent,
    /// Somebody cancelled it.
    Cancelled(CancelReason),
    /// It failed.
    Failed(Failure),
}

/// Who cancelled a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CancelReason {
    /// Its owner asked.
    Requested,
    /// Nobody read for as long as it may run unread.
    Unread,
    /// The connection that it was is gone.
    Disconnected,
}

/// Why a task failed: a code and one sentence for its reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) hint: Option<String>,
}

/// What an ended task has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Used {
    /// Only the engine knows it, and says it at its end.
    pub(crate) tokens_in: Option<u64>,
    pub(crate) tokens_out: u64,
}

impl CancelReason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Unread => "unread",
            Self::Disconnected => "disconnected",
        }
    }
}

impl Failure {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None, hint: None }
    }

    pub(crate) fn deadline() -> Self {
        Self::new(
            ErrorCode::DeadlineExceeded,
            "the task's deadline passed before it ended; give it a longer deadline_ms or fewer max_tokens",
        )
    }

    pub(crate) fn interrupted() -> Self {
        Self::new(
            ErrorCode::Interrupted,
            "orchestratord was shut down before the task ended; submit it again",
        )
    }

    /// Of a task that the next process goes on with.
    pub(crate) fn put_off() -> Self {
        Self::new(
            ErrorCode::Interrupted,
            "orchestratord is going down and the task goes on when it is back; read its events again from \
             the last id",
        )
    }

    pub(crate) fn cut_off() -> Self {
        Self::new(
            ErrorCode::Interrupted,
            "orchestratord was restarted in the middle of the answer; submit the task again",
        )
    }

    /// Events of it behind so many token events were lost, and it does not go on there.
    pub(crate) fn lost_behind(tokens: u64) -> Self {
        Self::new(ErrorCode::Interrupted, task_log::journal::lost_behind(tokens))
    }

    pub(crate) fn unreadable() -> Self {
        Self::new(
            ErrorCode::Interrupted,
            "orchestratord was restarted and could not read the task's prompt back; submit the task again",
        )
    }

    pub(crate) fn engine_lost(reason: &str) -> Self {
        Self::new(ErrorCode::EngineLost, format!("the engine was lost: {reason}; submit the task again"))
    }

    pub(crate) fn draining(replica: &ReplicaKey) -> Self {
        Self::new(
            ErrorCode::PoolDraining,
            format!("{replica} was drained and its deadline passed before the task ended; submit it again"),
        )
    }

    /// An engine that lives and sends nothing any more.
    pub(crate) fn stalled(silent: Duration) -> Self {
        let message = format!("the engine sent nothing for {} s; submit the task again", silent.as_secs());
        Self::new(ErrorCode::EngineStalled, message)
    }

    /// In an engine's own words, for the task's owner.
    pub(crate) fn refused(body: ErrorBody) -> Self {
        Self { hint: body.hint, ..Self::new(body.code, body.message) }
    }

    /// Adds why the task did not go on elsewhere.
    pub(crate) fn because(mut self, why: &str) -> Self {
        self.hint = Some(why.to_owned());
        self
    }

    /// It was not tried again, because too many others of its pool were; after so long one may be.
    pub(crate) fn budget_spent(self, after: Duration) -> Self {
        let retry_after = Some(after).filter(|_| self.code.retriable());
        let why = "its pool has used up its budget for trying tasks again, or the half of it that is for errors \
                   (limits.retry): of too many the engine was lost or failed before their first token within a \
                   short time";
        Self { retry_after, ..self.because(why) }
    }

    pub(crate) fn dropped(retry_after: Duration) -> Self {
        let message = "the queue was full and dropped its oldest batch task for a new one";
        Self { retry_after: Some(retry_after), ..Self::new(ErrorCode::QueueFull, message) }
    }

    /// As the stream's last event. The log fills in how many token events were sent.
    pub(crate) fn event(&self) -> StreamError {
        StreamError {
            code: self.code,
            message: self.message.clone(),
            retriable: self.code.retriable(),
            retry_after_ms: self.retry_after.and_then(|after| u64::try_from(after.as_millis()).ok()),
            hint: self.hint.clone(),
            tokens_sent: 0,
        }
    }

    pub(crate) fn state(&self) -> TaskState {
        if self.code == ErrorCode::Interrupted { TaskState::Interrupted } else { TaskState::Failed }
    }
}

/// What a task has used, however it ended. `resumed` is what the engine that ended it was given of the
/// answer: it counted that among its prompt.
pub(crate) fn used(said: &Said, ending: &Ending, resumed: &SoFar, before: u64) -> Used {
    match (ending, resumed) {
        (Ending::Finished(finished), SoFar::Nothing) => {
            Used { tokens_in: Some(finished.tokens_in), tokens_out: finished.tokens_out }
        }
        (Ending::Finished(finished), SoFar::Ids(ids)) => Used {
            tokens_in: finished.tokens_in.checked_sub(ids.len() as u64),
            tokens_out: before + finished.tokens_out,
        },
        // How many tokens the text was for the engine's tokenizer, nobody has said.
        (Ending::Finished(finished), SoFar::Text(_)) => {
            Used { tokens_in: None, tokens_out: before + finished.tokens_out }
        }
        (Ending::Spent | Ending::Cancelled(_) | Ending::Failed(_), _) => {
            Used { tokens_in: None, tokens_out: said.count() }
        }
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
