//! Counters of what happened, as Prometheus reads them. Labels are pool, replica and cause, never
//! ids of requests or paths.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use wire::{Device, ReplicaKey};

use crate::classify::Cause;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReplicaLabels {
    pool_id: String,
    replica_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LossLabels {
    cause: &'static str,
    pool_id: String,
    replica_id: String,
}

/// All metrics of this daemon.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    losses: Family<LossLabels, Counter<u64, AtomicU64>>,
    restarts: Family<LossLabels, Counter<u64, AtomicU64>>,
    published: Family<ReplicaLabels, Counter>,
    adoptions: Family<ReplicaLabels, Counter>,
    breaker: Family<ReplicaLabels, Gauge>,
    load: Family<ReplicaLabels, Histogram>,
    cards: CardGauges,
}

/// Gauges per card; a card that is gone is not shown any more.
#[derive(Debug)]
struct CardGauges {
    total: Family<CardLabels, Gauge>,
    free: Family<CardLabels, Gauge>,
    utilisation: Family<CardLabels, Gauge<f64, AtomicU64>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CardLabels {
    device: String,
}

impl CardGauges {
    fn register(registry: &mut Registry) -> Self {
        let gauges =
            Self { total: Family::default(), free: Family::default(), utilisation: Family::default() };
        registry.register("device_memory_total_bytes", "Memory of a card", gauges.total.clone());
        registry.register(
            "device_memory_free_bytes",
            "Memory of a card that nobody uses",
            gauges.free.clone(),
        );
        let help = "Part of the last second in which a card computed";
        registry.register("device_utilisation_ratio", help, gauges.utilisation.clone());
        gauges
    }

    fn show(&self, cards: &[Device]) {
        self.total.clear();
        self.free.clear();
        self.utilisation.clear();
        for card in cards {
            let labels = CardLabels { device: card.index.to_string() };
            let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
            self.total.get_or_create(&labels).set(bytes(card.vram_total_bytes));
            self.free.get_or_create(&labels).set(bytes(card.vram_free_bytes));
            if let Some(percent) = card.utilisation_percent {
                self.utilisation.get_or_create(&labels).set(f64::from(percent) / 100.0);
            }
        }
    }
}

fn load_buckets() -> Histogram {
    Histogram::new([0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0])
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("poold");
        let metrics = (
            Family::<LossLabels, Counter<u64, AtomicU64>>::default(),
            Family::<LossLabels, Counter<u64, AtomicU64>>::default(),
            Family::<ReplicaLabels, Counter>::default(),
            Family::<ReplicaLabels, Counter>::default(),
            Family::<ReplicaLabels, Gauge>::default(),
            Family::<ReplicaLabels, Histogram>::new_with_constructor(load_buckets),
        );
        let (losses, restarts, published, adoptions, breaker, load) = metrics;
        let help = "Engines that were lost or could not be started, whether or not another start follows";
        registry.register("engine_losses", help, losses.clone());
        registry.register("engine_restarts", "Engines lost and to be started again", restarts.clone());
        registry.register("handoffs_published", "Replicas published as ready", published.clone());
        registry.register("adoptions", "Engines taken over from an earlier manager", adoptions.clone());
        registry.register("breaker_state", "1 while a replica's breaker is open, else 0", breaker.clone());
        registry.register("engine_load_seconds", "From start of the process to readiness", load.clone());
        let cards = CardGauges::register(&mut registry);
        Self { registry, losses, restarts, published, adoptions, breaker, load, cards }
    }

    /// An engine was lost, or could not be started.
    pub(crate) fn lost(&self, key: &ReplicaKey, cause: Cause) {
        self.losses.get_or_create(&loss_labels(key, cause)).inc();
    }

    /// Another start follows a loss.
    pub(crate) fn restarted(&self, key: &ReplicaKey, cause: Cause) {
        self.restarts.get_or_create(&loss_labels(key, cause)).inc();
    }

    pub(crate) fn published(&self, key: &ReplicaKey) {
        self.published.get_or_create(&labels(key)).inc();
    }

    pub(crate) fn adopted(&self, key: &ReplicaKey) {
        self.adoptions.get_or_create(&labels(key)).inc();
    }

    pub(crate) fn loaded(&self, key: &ReplicaKey, took: Duration) {
        self.load.get_or_create(&labels(key)).observe(took.as_secs_f64());
    }

    pub(crate) fn breaker(&self, key: &ReplicaKey, open: bool) {
        self.breaker.get_or_create(&labels(key)).set(i64::from(open));
    }

    /// OpenMetrics text, with the cards as they were looked at for it.
    pub(crate) fn render(&self, cards: &[Device]) -> Result<String, std::fmt::Error> {
        self.cards.show(cards);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn labels(key: &ReplicaKey) -> ReplicaLabels {
    ReplicaLabels { pool_id: key.pool.to_string(), replica_id: key.replica.to_string() }
}

fn loss_labels(key: &ReplicaKey, cause: Cause) -> LossLabels {
    let ReplicaLabels { pool_id, replica_id } = labels(key);
    LossLabels { cause: cause.as_str(), pool_id, replica_id }
}
