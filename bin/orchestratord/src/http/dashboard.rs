//! `GET /v2/events`: everything a dashboard needs on one stream. First all of it as it is, then what
//! changes; whoever comes back gets all of it again, so there is nothing to resume from.
//!
//! Pools, loads and workers are compared with what was told a few times a second, so that a thousand
//! changes of a slot in one moment are one event; tasks are told one by one as they move.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::{Pin, pin};
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use dispatch::{Moved, TaskMoves};
use serde::Serialize;
use tokio::time::{Interval, MissedTickBehavior};
use wire::dashboard::{DashboardEvent, Gap, PoolLoad, Synced, WorkerGone};
use wire::worker::WorkerView;
use wire::{OperationId, OperationView, PoolId, PoolView, ReplicaKey};

use super::{AppState, sse, workers};
use crate::metrics::OpenStream;

/// How often what is there is compared with what was told.
const LOOK: Duration = Duration::from_millis(250);
/// How often pool-managerd is asked for its operations.
const ASK: Duration = Duration::from_secs(1);
/// Ended tasks that a reader is told of at first.
const NEWEST: usize = 100;

type Asking = Pin<Box<dyn Future<Output = Vec<OperationView>> + Send>>;

pub(super) async fn watch(State(state): State<AppState>) -> Response {
    let watcher = Watcher::new(state);
    sse::response(futures_util::stream::unfold(watcher, |mut watcher| async move {
        let bytes = watcher.next().await?;
        Some((bytes, watcher))
    }))
}

/// One reader, and what it knows.
struct Watcher {
    state: AppState,
    pools: BTreeMap<PoolId, PoolView>,
    loads: BTreeMap<PoolId, PoolLoad>,
    workers: BTreeMap<ReplicaKey, WorkerView>,
    operations: HashMap<OperationId, OperationView>,
    moves: TaskMoves,
    look: Interval,
    asking: Asking,
    ready: VecDeque<Bytes>,
    _open: OpenStream,
}

impl Watcher {
    fn new(state: AppState) -> Self {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watcher = Self {
            // Before what is there is read: what moves meanwhile is told twice rather than not at all.
            moves: state.dispatch.moves(),
            asking: ask(&state, Duration::ZERO),
            pools: BTreeMap::new(),
            loads: BTreeMap::new(),
            workers: BTreeMap::new(),
            operations: HashMap::new(),
            look,
            ready: VecDeque::new(),
            _open: state.metrics.open_stream(),
            state,
        };
        watcher.compare();
        let tasks = watcher.state.dispatch.newest(NEWEST);
        let told = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
        tasks.into_iter().for_each(|task| watcher.tell(&DashboardEvent::Task(task)));
        watcher.tell(&DashboardEvent::Synced(Synced { tasks: told }));
        watcher
    }

    async fn next(&mut self) -> Option<Bytes> {
        let mut silence = pin!(tokio::time::sleep(sse::KEEPALIVE_EVERY));
        let stopping = self.state.stopping.clone();
        loop {
            if !self.ready.is_empty() {
                return Some(self.taken());
            }
            tokio::select! {
                biased;
                () = stopping.cancelled() => return None,
                moved = self.moves.next() => match moved? {
                    Moved::Task(task) => self.tell(&DashboardEvent::Task(*task)),
                    Moved::Missed(missed) => self.tell(&DashboardEvent::Gap(Gap { missed })),
                },
                operations = &mut self.asking => {
                    self.asking = ask(&self.state, ASK);
                    self.tell_operations(operations);
                }
                _ = self.look.tick() => self.compare(),
                () = &mut silence => return Some(sse::KEEPALIVE),
            }
        }
    }

    /// As much as goes out in one write.
    fn taken(&mut self) -> Bytes {
        let mut all = Vec::new();
        while all.len() < sse::WRITE_BYTES
            && let Some(bytes) = self.ready.pop_front()
        {
            all.extend_from_slice(&bytes);
        }
        Bytes::from(all)
    }

    fn compare(&mut self) {
        for pool in self.state.pools() {
            if self.pools.get(&pool.id).map(timeless) != Some(timeless(&pool)) {
                self.tell(&DashboardEvent::Pool(pool.clone()));
                self.pools.insert(pool.id.clone(), pool);
            }
        }
        for load in self.state.dispatch.loads() {
            if self.loads.get(&load.pool_id) != Some(&load) {
                self.tell(&DashboardEvent::Load(load.clone()));
                self.loads.insert(load.pool_id.clone(), load);
            }
        }
        self.compare_workers();
    }

    fn compare_workers(&mut self) {
        let registered = self.state.workers.all();
        let now: BTreeMap<ReplicaKey, WorkerView> =
            registered.iter().map(|worker| (worker.key(), workers::view(&self.state, worker))).collect();
        let before = std::mem::take(&mut self.workers);
        for (key, worker) in &now {
            let untimed = |worker: &WorkerView| WorkerView { expires_in_ms: None, ..worker.clone() };
            if before.get(key).map(untimed) != Some(untimed(worker)) {
                self.tell(&DashboardEvent::Worker(worker.clone()));
            }
        }
        for key in before.into_keys().filter(|key| !now.contains_key(key)) {
            self.tell(&DashboardEvent::WorkerGone(WorkerGone { pool_id: key.pool, replica_id: key.replica }));
        }
        self.workers = now;
    }

    fn tell_operations(&mut self, operations: Vec<OperationView>) {
        // They come newest first, and are told as they happened.
        for operation in operations.iter().rev() {
            if self.operations.get(&operation.id) != Some(operation) {
                self.tell(&DashboardEvent::Operation(operation.clone()));
            }
        }
        if !operations.is_empty() {
            // What pool-managerd has forgotten is forgotten here, too.
            self.operations = operations.into_iter().map(|op| (op.id.clone(), op)).collect();
        }
    }

    fn tell(&mut self, event: &DashboardEvent) {
        self.ready.push_back(frame(event));
    }
}

/// A pool without what changes by time alone.
fn timeless(pool: &PoolView) -> PoolView {
    let mut pool = pool.clone();
    for replica in &mut pool.replicas {
        replica.phase_ms = 0;
        replica.next_attempt_ms = None;
        if let Some(hints) = &mut replica.hints {
            hints.tokens_per_s = None;
        }
    }
    pool
}

/// pool-managerd's operations, in a while; none where there is no answer.
fn ask(state: &AppState, after: Duration) -> Asking {
    let link = state.link.clone();
    Box::pin(async move {
        tokio::time::sleep(after).await;
        let Some(manager) = link.client() else { return Vec::new() };
        manager.operations().await.map(|list| list.operations).unwrap_or_default()
    })
}

fn frame(event: &DashboardEvent) -> Bytes {
    fn of(name: &str, data: &impl Serialize) -> Bytes {
        sse::frame(None, name, data)
    }
    let name = event.name();
    match event {
        DashboardEvent::Pool(data) => of(name, data),
        DashboardEvent::Load(data) => of(name, data),
        DashboardEvent::Task(data) => of(name, data),
        DashboardEvent::Operation(data) => of(name, data),
        DashboardEvent::Worker(data) => of(name, data),
        DashboardEvent::WorkerGone(data) => of(name, data),
        DashboardEvent::Synced(data) => of(name, data),
        DashboardEvent::Gap(data) => of(name, data),
    }
}
