//! One life of one replica, as orchestratord sees it: unproven → up → down, by our own probes.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use adapter_host::{Binding, ProbeError, Probed, WorkerAdapter};
use handoff::Claim;
use registry::{Event, Up};
use tokio::sync::watch;
use wire::{EngineFacts, Handoff, HandoffState, ReplicaKey, SlotMode};

use super::{End, FeedParts};

/// The engine behind one claim. Its task owns it; where `run` stands is its state.
pub(super) struct Life {
    parts: FeedParts,
    key: ReplicaKey,
    number: u64,
    adapter: Arc<dyn WorkerAdapter>,
    claim: watch::Receiver<Claim>,
}

impl Life {
    pub(super) fn new(
        parts: FeedParts,
        key: ReplicaKey,
        number: u64,
        adapter: Arc<dyn WorkerAdapter>,
        claim: watch::Receiver<Claim>,
    ) -> Self {
        Self { parts, key, number, adapter, claim }
    }

    /// Probes until its claim is no more. A replica that fell may rise again: its engine was only
    /// unreachable.
    pub(super) async fn run(self, end: End) {
        let reason = tokio::select! {
            // Being replaced is known before the claim's channel closes because of it.
            biased;
            () = end.withdrawn.cancelled() => "its handoff was withdrawn".to_owned(),
            () = end.replaced.cancelled() => tokio::select! {
                () = end.withdrawn.cancelled() => "the feed ended".to_owned(),
                reason = self.finish() => reason,
            },
            () = self.probe_for_ever() => "its probe ended".to_owned(),
        };
        let (key, generation) = (self.key.clone(), self.number);
        self.parts.registry.apply(Event::Gone { key, generation, reason });
        self.parts.host.unbind(&self.key, self.number);
        self.parts.view.forget(&self.key, self.number);
    }

    /// Another life takes its place: it gets nothing new, and what runs on it goes on until that has
    /// ended or its engine is gone.
    async fn finish(&self) -> String {
        let (key, generation) = (self.key.clone(), self.number);
        self.parts.registry.apply(Event::Superseded { key, generation });
        let mut changed = self.parts.registry.changed();
        let unused = async {
            while self.parts.registry.is_held(&self.key, self.number) {
                // The registry cannot go away while we hold it.
                let _ = changed.changed().await;
            }
            "a new life of the replica took its place".to_owned()
        };
        tokio::select! {
            reason = unused => reason,
            reason = self.until_mute() => reason,
        }
    }

    async fn probe_for_ever(&self) {
        loop {
            let probed = self.until_up().await;
            self.up(&probed);
            let reason = self.until_down(&probed).await;
            tracing::warn!(replica = %self.key, reason, "replica down");
            self.down(reason);
        }
    }

    async fn until_up(&self) -> Probed {
        loop {
            match self.probe().await {
                Ok(probed) => return probed,
                Err(error) => self.parts.view.failed(&self.key, self.number, error.to_string()),
            }
            tokio::time::sleep(self.parts.timings.first_probes).await;
        }
    }

    async fn until_down(&self, probed: &Probed) -> String {
        let mut claim = self.claim.clone();
        let mut draining = self.is_draining();
        let mut mute = pin!(self.until_mute());
        loop {
            tokio::select! {
                reason = &mut mute => return reason,
                changed = claim.changed() => {
                    if changed.is_err() {
                        return "its feed ended".to_owned();
                    }
                    if self.is_draining() != draining {
                        draining = !draining;
                        self.up(probed);
                    }
                }
            }
        }
    }

    /// Until so many probes in a row have failed; why the last one did.
    async fn until_mute(&self) -> String {
        let mut misses = 0;
        loop {
            tokio::time::sleep(self.parts.timings.probe_period).await;
            match self.probe().await {
                Ok(_) => {
                    misses = 0;
                    self.parts.view.seen(&self.key, self.number);
                }
                Err(error) => {
                    misses += 1;
                    self.parts.view.failed(&self.key, self.number, error.to_string());
                    if misses >= self.parts.timings.fall {
                        return error.to_string();
                    }
                }
            }
        }
    }

    async fn probe(&self) -> Result<Probed, ProbeError> {
        let limit: Duration = self.parts.timings.probe_timeout;
        match tokio::time::timeout(limit, self.adapter.probe()).await {
            Ok(result) => result,
            Err(_) => Err(ProbeError::Unreachable(format!("no answer within {} ms", limit.as_millis()))),
        }
    }

    fn is_draining(&self) -> bool {
        self.claim.borrow().handoff.state == HandoffState::Draining
    }

    fn up(&self, probed: &Probed) {
        let handoff = self.claim.borrow().handoff.clone();
        let draining = handoff.state == HandoffState::Draining;
        let binding = Binding { generation: self.number, adapter: Arc::clone(&self.adapter) };
        self.parts.host.bind(self.key.clone(), binding);
        self.parts.view.up(&self.key, self.number, &handoff);
        tracing::info!(replica = %self.key, engine = handoff.engine_version, draining, "replica up");
        let up = Up::ready_from_handoff(self.number, &handoff).offering(probed.slots_total, probed.ctx);
        let engine = Arc::new(facts(&handoff, probed, up.slots));
        // Whose replica it is, the feed says: a claim may be pinned to another name.
        self.parts.registry.apply(Event::Up(Up { key: self.key.clone(), engine, ..up }));
    }

    fn down(&self, reason: String) {
        self.parts.registry.apply(Event::Down { key: self.key.clone(), generation: self.number, reason });
    }
}

/// What is known of an engine beyond its version. Of one that somebody started by hand the flags are
/// known only where its handoff lists some.
fn facts(handoff: &Handoff, probed: &Probed, slots: u32) -> EngineFacts {
    let batched = !handoff.flags.iter().any(|flag| matches!(flag.as_str(), "--no-cont-batching" | "-nocb"));
    EngineFacts {
        engine_digest: handoff.engine_digest.clone(),
        build_flags: handoff.build_flags.clone(),
        chat_template_sha256: probed.chat_template_sha256.clone().unwrap_or_default(),
        slot_mode: Some(SlotMode {
            slots,
            continuous_batching: (!handoff.flags.is_empty()).then_some(batched),
        }),
    }
}
