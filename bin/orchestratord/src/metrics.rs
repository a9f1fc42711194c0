//! The edge's own counters; the rest of `orchd_*` belongs to `dispatch`.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of the HTTP edge and the feed. Cheap to clone; all clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct EdgeMetrics {
    pub(crate) handoff_rescans: Counter,
    pub(crate) streams_open: Gauge,
    pub(crate) evictions: Counter,
    pub(crate) slow_readers: Counter,
}

impl EdgeMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "orchd_handoff_rescans",
            "Scans of the handoff directory",
            metrics.handoff_rescans.clone(),
        );
        registry.register("orchd_streams_open", "Event streams being written", metrics.streams_open.clone());
        registry.register(
            "orchd_stream_evictions",
            "Connections let go because their reader took nothing",
            metrics.evictions.clone(),
        );
        registry.register(
            "orchd_slow_readers",
            "Readers that were told that what they had not read is gone",
            metrics.slow_readers.clone(),
        );
        metrics
    }

    /// Counts a stream as open until the guard is dropped.
    pub(crate) fn open_stream(&self) -> OpenStream {
        self.streams_open.inc();
        OpenStream(self.streams_open.clone())
    }
}

/// An open stream.
#[derive(Debug)]
pub(crate) struct OpenStream(Gauge);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.dec();
    }
}
