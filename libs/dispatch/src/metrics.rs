//! What dispatch counts. Counters count what happened, when it happens; gauges follow the queue
//! and the registry. Handles are looked up once per pool, so that counting costs no look-up.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};
use wire::PoolId;
use wire::task::Priority;

/// Seconds a task waits, starts or runs: from a bare hand-over to minutes of queue.
const WAIT_BUCKETS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];
/// Seconds between tokens: from a small model on a GPU to a large one on a CPU.
const TOKEN_BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabel {
    pool_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabels {
    pool_id: String,
    priority: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    pool_id: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    pool_id: String,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    pool_id: String,
    outcome: &'static str,
}

type Histograms = Family<ClassLabels, Histogram, fn() -> Histogram>;

/// Dispatch's metrics, registered once. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    enqueued: Family<ClassLabels, Counter>,
    started: Family<ClassLabels, Counter>,
    tokens_in: Family<ClassLabels, Counter>,
    tokens_out: Family<ClassLabels, Counter>,
    rejected: Family<ReasonLabels, Counter>,
    canceled: Family<ReasonLabels, Counter>,
    failed: Family<CodeLabels, Counter>,
    placements: Family<OutcomeLabels, Counter>,
    retries: Family<OutcomeLabels, Counter>,
    queue_depth: Family<ClassLabels, Gauge>,
    slots_total: Family<PoolLabel, Gauge>,
    slots_free: Family<PoolLabel, Gauge>,
    queue_wait: Histograms,
    first_token: Histograms,
    inter_token: Histograms,
    decode: Histograms,
    eta_error: Histograms,
}

impl Metrics {
    /// Registers everything under its full name (`orchd_…`; the encoder appends `_total`).
    pub fn register(registry: &mut Registry) -> Self {
        let mut at = At(registry);
        Self {
            enqueued: at.add("orchd_tasks_enqueued", "Tasks admitted to a queue"),
            started: at.add("orchd_tasks_started", "Tasks that got their first slot"),
            tokens_in: at.add("orchd_tokens_in", "Prompt tokens of ended tasks, as engines counted them"),
            tokens_out: at.add("orchd_tokens_out", "Generated tokens of ended tasks"),
            rejected: at.add("orchd_tasks_rejected", "Tasks that were not admitted"),
            canceled: at
                .add("orchd_tasks_canceled", "Tasks cancelled by their owner or for want of a reader"),
            failed: at.add("orchd_tasks_failed", "Admitted tasks that ended with an error"),
            placements: at.add("orchd_placement_decisions", "Placements of tasks on replicas"),
            retries: at.add(
                "orchd_retries",
                "Tasks whose engine was lost before their first token: tried again, or refused by the budget",
            ),
            queue_depth: at.add("orchd_queue_depth", "Tasks that wait for a slot"),
            slots_total: at.add("orchd_slots_total", "Slots of ready replicas"),
            slots_free: at.add("orchd_slots_free", "Slots that nobody holds"),
            queue_wait: at.histograms("orchd_queue_wait_seconds", "From admission to the first slot", waits),
            first_token: at.histograms(
                "orchd_first_token_seconds",
                "From admission to the first token",
                waits,
            ),
            inter_token: at.histograms("orchd_inter_token_seconds", "Between chunks of one task", tokens),
            decode: at.histograms("orchd_decode_seconds", "Time on the engine", waits),
            eta_error: at.histograms(
                "orchd_eta_error_seconds",
                "Predicted start against the real one",
                waits,
            ),
        }
    }

    pub(crate) fn rejected(&self, pool: Option<&PoolId>, reason: &'static str) {
        let pool_id = pool.map(ToString::to_string).unwrap_or_default();
        self.rejected.get_or_create(&ReasonLabels { pool_id, reason }).inc();
    }

    pub(crate) fn pool(&self, pool: &PoolId) -> PoolMetrics {
        let label = PoolLabel { pool_id: pool.to_string() };
        let retries =
            |outcome| self.retries.get_or_create_owned(&OutcomeLabels { pool_id: pool.to_string(), outcome });
        PoolMetrics {
            pool: pool.clone(),
            tried_again: retries("tried_again"),
            not_tried_again: retries("refused"),
            slots_total: self.slots_total.get_or_create_owned(&label),
            slots_free: self.slots_free.get_or_create_owned(&label),
            interactive: self.class(pool, "interactive"),
            batch: self.class(pool, "batch"),
            all: self.clone(),
        }
    }

    fn class(&self, pool: &PoolId, priority: &'static str) -> ClassMetrics {
        let labels = ClassLabels { pool_id: pool.to_string(), priority };
        ClassMetrics {
            enqueued: self.enqueued.get_or_create_owned(&labels),
            started: self.started.get_or_create_owned(&labels),
            tokens_in: self.tokens_in.get_or_create_owned(&labels),
            tokens_out: self.tokens_out.get_or_create_owned(&labels),
            queue_depth: self.queue_depth.get_or_create_owned(&labels),
            queue_wait: self.queue_wait.get_or_create_owned(&labels),
            first_token: self.first_token.get_or_create_owned(&labels),
            inter_token: self.inter_token.get_or_create_owned(&labels),
            decode: self.decode.get_or_create_owned(&labels),
            eta_error: self.eta_error.get_or_create_owned(&labels),
        }
    }
}

/// The metrics of one pool.
#[derive(Debug)]
pub(crate) struct PoolMetrics {
    pool: PoolId,
    all: Metrics,
    interactive: ClassMetrics,
    batch: ClassMetrics,
    pub(crate) tried_again: Counter,
    pub(crate) not_tried_again: Counter,
    pub(crate) slots_total: Gauge,
    pub(crate) slots_free: Gauge,
}

/// The metrics of one class of one pool.
#[derive(Debug)]
pub(crate) struct ClassMetrics {
    pub(crate) enqueued: Counter,
    pub(crate) started: Counter,
    pub(crate) tokens_in: Counter,
    pub(crate) tokens_out: Counter,
    pub(crate) queue_depth: Gauge,
    pub(crate) queue_wait: Histogram,
    pub(crate) first_token: Histogram,
    pub(crate) inter_token: Histogram,
    pub(crate) decode: Histogram,
    pub(crate) eta_error: Histogram,
}

impl PoolMetrics {
    pub(crate) fn class(&self, priority: Priority) -> &ClassMetrics {
        match priority {
            Priority::Interactive => &self.interactive,
            Priority::Batch => &self.batch,
        }
    }

    pub(crate) fn canceled(&self, reason: &'static str) {
        self.all.canceled.get_or_create(&ReasonLabels { pool_id: self.pool.to_string(), reason }).inc();
    }

    pub(crate) fn failed(&self, code: &'static str) {
        self.all.failed.get_or_create(&CodeLabels { pool_id: self.pool.to_string(), code }).inc();
    }

    pub(crate) fn placed(&self, outcome: &'static str) {
        self.all.placements.get_or_create(&OutcomeLabels { pool_id: self.pool.to_string(), outcome }).inc();
    }
}

struct At<'a>(&'a mut Registry);

impl At<'_> {
    fn add<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        let metric = M::default();
        self.0.register(name, help, metric.clone());
        metric
    }

    fn histograms(&mut self, name: &str, help: &str, new: fn() -> Histogram) -> Histograms {
        let family = Histograms::new_with_constructor(new);
        self.0.register(name, help, family.clone());
        family
    }
}

fn waits() -> Histogram {
    Histogram::new(WAIT_BUCKETS)
}

fn tokens() -> Histogram {
    Histogram::new(TOKEN_BUCKETS)
}
