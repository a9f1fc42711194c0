//! Every number of dispatch, with its default in one place.

use std::time::Duration;

use wire::config::{LimitsConfig, RetryConfig, SessionsConfig};

/// The numbers.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of events one task may produce; 16 MiB.
    pub task_log_bytes: usize,
    /// Finished tasks kept for late readers; 1,000.
    pub kept_tasks: usize,
    /// Bytes of their logs in all; 64 MiB.
    pub kept_bytes: usize,
    /// How long they are kept; 1 h.
    pub kept_for: Duration,
    /// Bytes of the logs of tasks that are not kept any more, for those who still read them; 64 MiB.
    pub unread_bytes: usize,
    /// How often tasks are tried again that have shown nothing yet; twice each, and a fifth of those that
    /// started or ten within a minute.
    pub retry: RetryConfig,
    /// Times a task goes on with another engine after the one under it was lost; 4.
    pub resumes: u32,
    /// How long it waits for one; 120 s, and longer for an engine that is known to load slowly.
    pub resume_within: Duration,
    /// Silence in the middle of an answer after which an engine is taken for stalled; 120 s, because the
    /// prompts of other slots may hold a slow one up for long.
    pub stalled_after: Duration,
    /// Errors that an engine reports in a row, without finishing a task between them, after which it is
    /// taken for broken; 3.
    pub faults: u32,
    /// How long a replica whose engine did not take a task gets no other one; 1 s. Its registry
    /// entry is still up then, and without a pause one dead engine would use up every task's
    /// retries within a millisecond. Four times that when it was tried again in vain.
    pub suspect_for: Duration,
    /// Wait after which a batch task goes as soon as its class is owed anything; 30 s.
    pub batch_wait: Duration,
    /// How long a task with [`crate::Detach::AtOnce`] waits for its first reader; 30 s.
    pub first_reader: Duration,
    /// How long running tasks may go on after shutdown began; 10 s.
    pub drain: Duration,
    /// `Retry-After` while no service time has been measured; 5 s.
    pub retry_after_unmeasured: Duration,
    /// Upper bound of `Retry-After`; 120 s.
    pub retry_after_max: Duration,
    /// What each caller may ask for; nothing is limited.
    pub callers: LimitsConfig,
    /// How long sessions live and how much each may use; ten minutes, and everything.
    pub sessions: SessionsConfig,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            task_log_bytes: 16 * 1024 * 1024,
            kept_tasks: 1_000,
            kept_bytes: 64 * 1024 * 1024,
            kept_for: Duration::from_secs(3_600),
            unread_bytes: 64 * 1024 * 1024,
            retry: RetryConfig::default(),
            resumes: 4,
            resume_within: Duration::from_secs(120),
            stalled_after: Duration::from_secs(120),
            faults: 3,
            suspect_for: Duration::from_secs(1),
            batch_wait: Duration::from_secs(30),
            first_reader: Duration::from_secs(30),
            drain: Duration::from_secs(10),
            retry_after_unmeasured: Duration::from_secs(5),
            retry_after_max: Duration::from_secs(120),
            callers: LimitsConfig::default(),
            sessions: SessionsConfig::default(),
        }
    }
}
