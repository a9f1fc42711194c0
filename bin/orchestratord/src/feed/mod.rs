//! From handoff files and registrations to ready replicas: scan the directory, probe each claim, keep
//! the registry and the adapter host in step with what the probes say.
//!
//! The watcher only wakes the scanner; the scan is the truth. A claim is believed after our own
//! probe, and probing goes on, so that the registry stays right while pool-managerd is down.

mod replica;
mod view;
mod watch;
mod workers;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use adapter_host::{AdapterHost, WorkerAdapter};
use handoff::{Change, Claim, Claims, HandoffDir};
use registry::Registry;
use tokio::sync::{Notify, watch as channel};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::ReplicaKey;

use crate::metrics::EdgeMetrics;

pub(crate) use view::FeedView;
pub(crate) use workers::{Worker, WorkerError, Workers};

/// Makes the adapter for a claim; the composition module knows which kind.
pub(crate) type Connect = Arc<dyn Fn(&Claim) -> Result<Arc<dyn WorkerAdapter>, String> + Send + Sync>;
/// Told of every claim before it is probed, so that its pool exists and knows its model's name.
pub(crate) type Admit = Arc<dyn Fn(&Claim) + Send + Sync>;

/// How often and how patiently to look.
#[derive(Debug, Clone)]
pub(crate) struct FeedTimings {
    /// A full scan happens at least this often.
    pub(crate) rescan: Duration,
    /// How often a directory that is not there is looked for.
    pub(crate) missing: Duration,
    /// Between probes of a replica that is up.
    pub(crate) probe_period: Duration,
    /// Between probes of a replica that is not up yet.
    pub(crate) first_probes: Duration,
    /// A probe must answer within this time.
    pub(crate) probe_timeout: Duration,
    /// Bad probes in a row that take a replica down.
    pub(crate) fall: u32,
}

impl Default for FeedTimings {
    fn default() -> Self {
        Self {
            rescan: Duration::from_secs(5),
            missing: Duration::from_millis(500),
            probe_period: Duration::from_secs(1),
            first_probes: Duration::from_millis(100),
            probe_timeout: Duration::from_secs(1),
            fall: 3,
        }
    }
}

/// What a feed works on.
#[derive(Clone)]
pub(crate) struct FeedParts {
    pub(crate) registry: Registry,
    pub(crate) host: AdapterHost,
    pub(crate) view: FeedView,
    pub(crate) workers: Workers,
    pub(crate) connect: Connect,
    pub(crate) admit: Admit,
    pub(crate) timings: FeedTimings,
    pub(crate) metrics: EdgeMetrics,
}

/// The handoff feed of one directory.
pub(crate) struct Feed {
    parts: FeedParts,
    dir: HandoffDir,
    claims: Claims,
    replicas: HashMap<ReplicaKey, Followed>,
    /// Counts bindings. Handoffs written by hand all have generation 0; this number never repeats.
    lives: u64,
    tasks: TaskTracker,
    /// Ends every life, also those that another one has replaced.
    ended: CancellationToken,
}

/// A replica with a task of its own.
struct Followed {
    claim: channel::Sender<Claim>,
    end: End,
    by: By,
}

/// Who made a claim. Where two claim one replica, a registration gives way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// A handoff file, or whoever started us.
    Handoff,
    /// `POST /v2/workers/register`.
    Registration,
}

/// How a life's task is told that its claim is no more.
#[derive(Debug, Clone)]
pub(super) struct End {
    /// It was withdrawn, or the feed ends.
    pub(super) withdrawn: CancellationToken,
    /// Another life of the replica claims its place.
    pub(super) replaced: CancellationToken,
}

impl Feed {
    pub(crate) fn new(parts: FeedParts, dir: HandoffDir) -> Self {
        Self {
            parts,
            dir,
            claims: Claims::default(),
            replicas: HashMap::new(),
            lives: 0,
            tasks: TaskTracker::new(),
            ended: CancellationToken::new(),
        }
    }

    /// Binds an engine without a file, for as long as the feed runs.
    pub(crate) fn pin(&mut self, claim: Claim) {
        self.follow(claim, By::Handoff);
    }

    /// Runs until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let wake = Arc::new(Notify::new());
        let workers = self.parts.workers.clone();
        let mut watch = watch::DirWatch::new(self.dir.path().to_owned(), Arc::clone(&wake));
        loop {
            watch = match tokio::task::spawn_blocking(move || watch.renew()).await {
                Ok(watch) => watch,
                Err(_) => return, // the runtime is shutting down
            };
            self.scan().await;
            self.take_registered();
            let timings = &self.parts.timings;
            let pause = if watch.is_missing() { timings.missing } else { timings.rescan };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = wake.notified() => {}
                () = workers.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.ended.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn scan(&mut self) {
        self.parts.metrics.handoff_rescans.inc();
        let dir = self.dir.clone();
        let scan = match tokio::task::spawn_blocking(move || dir.scan()).await {
            Ok(Ok(scan)) => scan,
            Ok(Err(error)) => {
                tracing::warn!(dir = %self.dir.path().display(), %error, "cannot scan the handoff directory");
                return;
            }
            Err(_) => return,
        };
        for change in self.claims.update(scan) {
            match change {
                Change::Appeared(claim) | Change::Changed(claim) => self.follow(claim, By::Handoff),
                Change::Vanished(key) => self.unfollow(&key),
                Change::Rejected(rejected) => {
                    tracing::warn!(file = rejected.file, reason = %rejected.reason, "handoff ignored");
                }
            }
        }
    }

    /// Follows what is registered, and lets go of what no longer is: what runs on it may end.
    fn take_registered(&mut self) {
        let claims = self.parts.workers.claims();
        let registered = |followed: &Followed| followed.by == By::Registration;
        for (_, gone) in
            self.replicas.extract_if(|key, followed| registered(followed) && !claims.contains_key(key))
        {
            gone.end.replaced.cancel();
        }
        for (key, claim) in claims {
            let followed = self.replicas.get(&key);
            let stays = followed.is_some_and(|followed| {
                !registered(followed) || followed.claim.borrow().handoff == claim.handoff
            });
            if !stays {
                self.follow(claim, By::Registration);
            }
        }
    }

    fn follow(&mut self, claim: Claim, by: By) {
        let key = claim.key();
        (self.parts.admit)(&claim);
        if let Some(followed) = self.replicas.get(&key).filter(|followed| followed.by == by) {
            let same_life = {
                let before = followed.claim.borrow();
                before.url == claim.url
                    && before.handoff.generation == claim.handoff.generation
                    && before.handoff.api_key == claim.handoff.api_key
            };
            if same_life {
                self.parts.view.accepted(&key);
                followed.claim.send_replace(claim);
                return;
            }
        }
        // Before anything of the binding there is: a claim that cannot be used takes nothing down.
        let adapter = match (self.parts.connect)(&claim) {
            Ok(adapter) => adapter,
            Err(reason) => {
                tracing::warn!(file = claim.file, replica = %key, reason, "handoff ignored: it cannot be bound");
                self.parts.view.refused(&key, reason);
                return;
            }
        };
        self.parts.view.accepted(&key);
        if let Some(before) = self.replicas.remove(&key) {
            before.end.replaced.cancel();
        }
        self.lives += 1;
        let (sender, receiver) = channel::channel(claim);
        let end = End { withdrawn: self.ended.child_token(), replaced: CancellationToken::new() };
        let life = replica::Life::new(self.parts.clone(), key.clone(), self.lives, adapter, receiver);
        self.tasks.spawn(life.run(end.clone()));
        self.replicas.insert(key, Followed { claim: sender, end, by });
    }

    fn unfollow(&mut self, key: &ReplicaKey) {
        self.parts.view.accepted(key);
        if let Some(followed) = self.replicas.remove(key) {
            followed.end.withdrawn.cancel();
        }
    }
}
