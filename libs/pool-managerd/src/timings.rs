//! Every limit and period of supervision, with its default, in one place; tests scale them down.

use std::time::Duration;

/// How long things may take and how often they are looked at.
#[derive(Debug, Clone)]
pub struct Timings {
    /// Shortest pause between two looks at a starting engine; grows with the time it takes, up to
    /// `probe_slowest`.
    pub probe_first: Duration,
    /// Longest pause between two looks at a starting engine.
    pub probe_slowest: Duration,
    /// How long a start may take before the engine shows that it is loading.
    pub startup_base: Duration,
    /// Once it shows that (503), the budget grows by a second for this many bytes of model, and further
    /// while bytes arrive.
    pub startup_bytes_per_second: u64,
    /// The one-token completion before a replica is published.
    pub canary_timeout: Duration,
    /// Period of the liveness probe.
    pub liveness_period: Duration,
    /// How long one liveness probe may take.
    pub liveness_timeout: Duration,
    /// So many failed probes in a row make an engine hung.
    pub liveness_fall: u32,
    /// A draining engine must have no busy slot for this long before it ends: longer than anybody
    /// needs to see that its handoff says `draining`.
    pub drain_settle: Duration,
    /// Between two looks at a draining engine's slots.
    pub drain_poll: Duration,
    /// Period of the progress probe.
    pub progress_period: Duration,
    /// When a busy engine gets nowhere.
    pub progress: ProgressLimits,
    /// How long to wait for the kernel's word on how an adopted engine ended: its parent, the first
    /// process, must reap it before.
    pub exit_status_within: Duration,
    /// Period of the look at the length of an engine's log.
    pub log_period: Duration,
    /// A log that grows beyond this while its engine runs is copied to `.1` and cut.
    pub log_cap_bytes: u64,
    /// Between SIGTERM and SIGKILL.
    pub stop_grace: Duration,
    /// Between two tries to write what must be on disk (a full disk recovers by itself).
    pub disk_retry: Duration,
    /// Pauses after the first, second, … preparation in a row that failed and may succeed later; the
    /// last one repeats.
    pub provisioning_pauses: Vec<Duration>,
    /// When a lost engine starts again.
    pub restart: RestartPolicy,
}

/// How long a busy engine may do without a token.
#[derive(Debug, Clone, Copy)]
pub struct ProgressLimits {
    /// For the first token after its prompt was read, and between any two.
    pub token: Duration,
    /// In addition for every token of a prompt that it has read meanwhile: slower than a processor is
    /// with a model that is worth serving from it.
    pub prompt_token: Duration,
    /// A request that ends this soon after it was first seen was answered, not given up.
    pub early_end: Duration,
    /// More than this between two looks is the manager's own doing.
    pub longest_step: Duration,
}

impl ProgressLimits {
    /// How long the reading of so many prompt tokens may take.
    pub(crate) fn for_prompt(&self, tokens: u32) -> Duration {
        self.prompt_token.saturating_mul(tokens)
    }
}

impl Default for ProgressLimits {
    fn default() -> Self {
        Self {
            token: Duration::from_mins(1),
            prompt_token: Duration::from_millis(200),
            early_end: Duration::from_secs(10),
            longest_step: Duration::from_secs(5),
        }
    }
}

/// When a lost engine starts again. The numbers are POOLD-RESTART-001's and -002's.
#[derive(Debug, Clone)]
pub struct RestartPolicy {
    /// Pauses after the first, second, … loss in a row; the last one repeats.
    pub pauses: Vec<Duration>,
    /// So many losses in a row open the breaker.
    pub open_after: u32,
    /// Pauses between single trials while the breaker is open; the last one repeats.
    pub trials: Vec<Duration>,
    /// A life that served this long starts the count anew.
    pub stable_after: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            probe_first: Duration::from_millis(2),
            probe_slowest: Duration::from_millis(250),
            startup_base: Duration::from_secs(60),
            startup_bytes_per_second: 50 * 1024 * 1024,
            canary_timeout: Duration::from_secs(60),
            liveness_period: Duration::from_secs(1),
            liveness_timeout: Duration::from_secs(1),
            liveness_fall: 3,
            drain_settle: Duration::from_millis(500),
            drain_poll: Duration::from_millis(100),
            progress_period: Duration::from_secs(1),
            progress: ProgressLimits::default(),
            exit_status_within: Duration::from_millis(500),
            log_period: Duration::from_secs(10),
            log_cap_bytes: 64 * 1024 * 1024,
            stop_grace: Duration::from_secs(5),
            disk_retry: Duration::from_secs(1),
            provisioning_pauses: [5, 10, 20, 40, 80, 160, 300].map(Duration::from_secs).into(),
            restart: RestartPolicy::default(),
        }
    }
}

impl Default for RestartPolicy {
    fn default() -> Self {
        let seconds = |list: &[u64]| list.iter().copied().map(Duration::from_secs).collect();
        Self {
            pauses: seconds(&[0, 1, 2, 4, 8]),
            open_after: 6,
            trials: seconds(&[60, 120, 240, 300]),
            stable_after: Duration::from_mins(10),
        }
    }
}
