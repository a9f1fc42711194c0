//! The handle that admits and finds tasks, and what all of dispatch shares.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use adapter_host::AdapterHost;
use registry::Registry;
use task_log::{Artifacts, Journal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::usage::UsageRow;
use wire::{PoolId, SessionId, SessionView, TaskId};

use crate::core::{Account, LastWord, TaskCore};
use crate::ending::Ending;
use crate::loops::{keeper, pool_loop};
use crate::moves::Moves;
use crate::names::Names;
use crate::pool::Pool;
use crate::quota::Quotas;
use crate::sessions::Sessions;
use crate::size::Size;
use crate::spans::Spans;
use crate::store::Store;
use crate::usage::Usage;
use crate::{
    AdmissionError, Limits, Metrics, Owner, PoolMeasured, PoolSpec, Task, TaskFilter, TaskPage, TaskSpec,
    UnknownModel,
};

/// Dispatch. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Dispatch {
    pub(crate) shared: Arc<Shared>,
}

/// What every part of dispatch shares. Locks are taken in the order store, queue, registry; a
/// task's own lock is never held while another is taken.
pub(crate) struct Shared {
    pub(crate) registry: Registry,
    pub(crate) host: AdapterHost,
    pub(crate) limits: Limits,
    /// Cancelled when running tasks must end now.
    pub(crate) drained: CancellationToken,
    pub(crate) metrics: Metrics,
    pub(crate) moves: Moves,
    usage: Usage,
    pub(crate) pools: RwLock<BTreeMap<PoolId, Arc<Pool>>>,
    /// What was measured of pools that are not there.
    recalled: Mutex<BTreeMap<PoolId, PoolMeasured>>,
    /// The pools of the configuration.
    pub(crate) configured: Mutex<BTreeSet<PoolId>>,
    pub(crate) names: RwLock<Names>,
    store: Mutex<Store>,
    pub(crate) next_seq: AtomicU64,
    pub(crate) quotas: Quotas,
    pub(crate) sessions: Sessions,
    /// Set once, before anything is submitted; absent: nothing outlives this process.
    pub(crate) journal: OnceLock<Journal>,
    /// Set once; absent: nobody collects spans.
    pub(crate) spans: OnceLock<Spans>,
    /// Set once; absent: transcripts are not kept.
    pub(crate) artifacts: OnceLock<Artifacts>,
    pub(crate) shutdown: CancellationToken,
    /// Every task this crate spawns, for its owner.
    pub(crate) tracker: TaskTracker,
    /// The running generations among them, for our own shutdown.
    pub(crate) running: TaskTracker,
}

impl Dispatch {
    /// Starts one loop per pool. Everything it spawns is on `tracker` and ends after `shutdown`,
    /// running tasks within [`Limits::drain`].
    #[must_use]
    pub fn start(
        pools: Vec<PoolSpec>,
        registry: Registry,
        host: AdapterHost,
        limits: Limits,
        metrics: Metrics,
        shutdown: CancellationToken,
        tracker: TaskTracker,
    ) -> Self {
        let names = RwLock::new(Names::new(&pools));
        let configured = Mutex::new(pools.iter().map(|pool| pool.id.clone()).collect());
        let shared = Arc::new(Shared {
            registry,
            host,
            drained: CancellationToken::new(),
            metrics,
            moves: Moves::default(),
            usage: Usage::default(),
            pools: RwLock::default(),
            recalled: Mutex::default(),
            configured,
            names,
            store: Mutex::default(),
            next_seq: AtomicU64::new(0),
            quotas: Quotas::new(limits.callers.clone()),
            sessions: Sessions::new(limits.sessions.clone()),
            journal: OnceLock::new(),
            spans: OnceLock::new(),
            artifacts: OnceLock::new(),
            shutdown,
            tracker,
            running: TaskTracker::new(),
            limits,
        });
        pools.into_iter().for_each(|spec| shared.add_pool(spec));
        shared.tracker.spawn(keeper(Arc::clone(&shared)));
        Self { shared }
    }

    /// Admits a task that lives as long as this process. Never waits for an engine; the task is
    /// queued when this returns.
    pub fn submit(&self, spec: TaskSpec) -> Result<Task, AdmissionError> {
        self.take(spec, false)
    }

    pub(crate) fn take(&self, spec: TaskSpec, durable: bool) -> Result<Task, AdmissionError> {
        let shared = &self.shared;
        let pool = shared.resolve(&spec.model).inspect_err(|_| {
            shared.metrics.rejected(None, "unknown_model");
        })?;
        let id = pool.id.clone();
        let admitted = shared.admit(&pool, spec, durable);
        admitted.inspect_err(|error| shared.metrics.rejected(Some(&id), error.reason()))
    }

    /// Tells of tasks that are part of a trace from now on. To be called once, before anything is
    /// submitted.
    pub fn tell_spans(&self, spans: Spans) {
        let _set_before = self.shared.spans.set(spans);
    }

    /// The task of this id that `owner` may know of; for the control scope the newest one.
    #[must_use]
    pub fn task(&self, id: &TaskId, owner: &Owner) -> Option<Task> {
        let core = self.shared.lock_store().get(id, owner).map(Arc::clone)?;
        if !core.recorded.borrow().is_settled() {
            return None;
        }
        Some(self.shared.task(core, false))
    }

    /// What each caller has used of each pool.
    #[must_use]
    pub fn usage(&self) -> Vec<UsageRow> {
        self.shared.usage.rows()
    }

    /// Adds what was counted before this process began.
    pub fn add_usage(&self, rows: Vec<UsageRow>) {
        self.shared.usage.add(rows);
    }

    /// What was measured of each pool, for the process after this one.
    #[must_use]
    pub fn measured(&self) -> Vec<PoolMeasured> {
        let pools: Vec<_> = self
            .shared
            .pools
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .map(Arc::clone)
            .collect();
        let measured = pools.into_iter().filter_map(|pool| {
            let measured = pool.lock_estimator().measured()?;
            Some(PoolMeasured {
                pool_id: pool.id.clone(),
                model_ref: pool.spec().model_ref.clone(),
                measured,
            })
        });
        measured.collect()
    }

    /// What an earlier process has measured; of a pool that is not there yet, for when it comes.
    pub fn recall(&self, measured: Vec<PoolMeasured>) {
        let mut recalled = self.shared.recalled.lock().unwrap_or_else(PoisonError::into_inner);
        for measured in measured {
            match self.shared.pool(&measured.pool_id) {
                Some(pool) => pool.recall(measured),
                None => drop(recalled.insert(measured.pool_id.clone(), measured)),
            }
        }
    }

    /// Tasks that the filter's owner may know of, newest first.
    #[must_use]
    pub fn tasks(&self, filter: &TaskFilter) -> TaskPage {
        let cores: Vec<_> = self
            .shared
            .lock_store()
            .newest_first()
            .filter(|core| filter.before.is_none_or(|before| core.place.seq < before))
            .filter(|core| filter.owner.sees(&core.owner) && core.recorded.borrow().is_settled())
            .map(Arc::clone)
            .collect();
        let views = cores.iter().map(|core| (core.place.seq, self.shared.view(core)));
        let mut views = views.filter(|(_, view)| filter.state.is_none_or(|state| view.state == state));
        let page: Vec<_> = views.by_ref().take(filter.limit).collect();
        let next = page.last().map(|(seq, _)| *seq).filter(|_| views.next().is_some());
        TaskPage { tasks: page.into_iter().map(|(_, view)| view).collect(), next }
    }

    /// The pool that a model name means.
    pub fn resolve(&self, model: &str) -> Result<PoolId, UnknownModel> {
        self.shared.resolve(model).map(|pool| pool.id.clone())
    }

    /// A pool as it was configured; `None` for one there is not.
    #[must_use]
    pub fn pool_spec(&self, pool: &PoolId) -> Option<Arc<PoolSpec>> {
        self.shared.pool(pool).map(|pool| pool.spec())
    }

    /// Adds a pool that no configuration names: an engine someone else runs made itself known. A
    /// pool that is there already stays as it is, unless only tasks of an earlier process spoke of it.
    pub fn ensure_pool(&self, spec: PoolSpec) {
        let id = spec.id.clone();
        match self.shared.pool(&id) {
            Some(pool) if !pool.is_now(spec.clone()) => return,
            Some(_) => {}
            None => self.shared.add_pool(spec),
        }
        self.shared.names.write().unwrap_or_else(PoisonError::into_inner).learn(id.as_str(), &id);
    }

    /// A session that `owner` may know of.
    #[must_use]
    pub fn session(&self, id: &SessionId, owner: &Owner) -> Option<SessionView> {
        self.shared.sessions.view(owner, id, Instant::now())
    }

    /// Forgets a session that `owner` may know of, and says what it was. Its tasks go on.
    #[must_use]
    pub fn forget_session(&self, id: &SessionId, owner: &Owner) -> Option<SessionView> {
        self.shared.sessions.remove(owner, id, Instant::now())
    }

    /// Every pool, by name.
    #[must_use]
    pub fn pool_ids(&self) -> Vec<PoolId> {
        self.shared.pools.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Every name a pool can be asked for by: ids, aliases, model names.
    #[must_use]
    pub fn model_names(&self) -> Vec<String> {
        self.shared.names.read().unwrap_or_else(PoisonError::into_inner).all()
    }

    /// Resolves once shutdown has begun and no generation runs any more, or none may.
    pub async fn drained(&self) {
        self.shared.drained.cancelled().await;
    }

    /// Ends every task with INTERRUPTED, for a process that goes down without waiting any longer; the readers
    /// of one that the next process can go on with are told so, and its log stays open on disk. Nobody
    /// follows any of them when this returns, and nothing is admitted any more. To be called before
    /// replicas are withdrawn: what still ran would end as lost with them.
    pub fn interrupt_now(&self) {
        let shared = &self.shared;
        let pools: Vec<_> =
            shared.pools.read().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect();
        // Closed first: a submission that is under way is in the store by the time it is read, or
        // is refused.
        pools.iter().for_each(|pool| drop(pool.close()));
        let cores: Vec<_> = shared.lock_store().newest_first().map(Arc::clone).collect();
        // Oldest first, and those that have ended stay as they are.
        cores.iter().rev().for_each(|core| shared.interrupt(core));
        shared.drained.cancel();
    }

    /// Tasks that wait in a pool; 0 for one there is not.
    #[must_use]
    pub fn queue_depth(&self, pool: &PoolId) -> u32 {
        self.shared.pool(pool).map_or(0, |pool| pool.depth())
    }

    /// Lets a pool be asked for by one more name, as its model's once it is staged. A name that
    /// is taken stays with whom it belongs to.
    pub fn learn_model_name(&self, pool: &PoolId, name: &str) {
        if self.shared.pool(pool).is_some() {
            self.shared.names.write().unwrap_or_else(PoisonError::into_inner).learn(name, pool);
        }
    }
}

impl Shared {
    pub(crate) fn pool(&self, id: &PoolId) -> Option<Arc<Pool>> {
        self.pools.read().unwrap_or_else(PoisonError::into_inner).get(id).map(Arc::clone)
    }

    /// Adds a pool and starts its loop, unless there is one of this name.
    pub(crate) fn add_pool(self: &Arc<Self>, spec: PoolSpec) {
        drop(self.keep_pool(Pool::new(spec, &self.limits, &self.metrics)));
    }

    /// The pool of this one's name: this one, whose loop starts, unless there is one.
    pub(crate) fn keep_pool(self: &Arc<Self>, pool: Pool) -> Arc<Pool> {
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = pools.get(&pool.id) {
            return Arc::clone(there);
        }
        if let Some(measured) = self.recalled.lock().unwrap_or_else(PoisonError::into_inner).remove(&pool.id)
        {
            pool.recall(measured);
        }
        let pool = Arc::new(pool);
        self.tracker.spawn(pool_loop(Arc::clone(self), Arc::clone(&pool)));
        pools.insert(pool.id.clone(), Arc::clone(&pool));
        pool
    }

    pub(crate) fn resolve(&self, model: &str) -> Result<Arc<Pool>, UnknownModel> {
        let id = self.names.read().unwrap_or_else(PoisonError::into_inner).resolve(model)?;
        let unknown = || UnknownModel { model: model.to_owned(), nearest: Vec::new() };
        self.pool(&id).ok_or_else(unknown)
    }

    /// What a task that went through on one engine got of it, for the registry to show. Its first token
    /// came with the prompt.
    fn tell_pace(&self, core: &TaskCore, account: &Account) {
        let (Some((key, generation)), Some(to_first), Some(total)) =
            (core.placed(), account.to_first, account.stay)
        else {
            return;
        };
        let tokens = account.used.tokens_out.saturating_sub(1);
        let took = total.saturating_sub(to_first);
        self.registry.apply(registry::Event::Generated { key, generation, tokens, took });
    }

    /// Ends a task, if it has not ended: its log is terminal when this returns, it waits nowhere,
    /// and its run lets go by itself. Everything is counted before its end is told: whoever has read that
    /// finds it in usage, metrics and session, and its place free.
    pub(crate) fn end(&self, core: &TaskCore, ending: Ending) {
        let Some((account, real, last)) = self.close(core, &ending) else { return };
        if matches!(ending, Ending::Finished(_)) {
            self.tell_pace(core, &account);
        }
        if let Some(id) = &core.session {
            let home = core.home(real).filter(|_| matches!(ending, Ending::Finished(_)));
            self.sessions.ended(&core.owner, id, real, home, Instant::now());
        }
        let class = core.metrics();
        class.tokens_in.inc_by(account.used.tokens_in.unwrap_or(0));
        class.tokens_out.inc_by(account.used.tokens_out);
        if let Some(decode) = account.decode {
            class.decode.observe(decode.as_secs_f64());
        }
        self.usage.count(core, &account, &ending);
        if let Some(traced) = &core.traced {
            traced.ended(core, &account, &ending);
        }
        match ending {
            Ending::Finished(_) | Ending::Spent => {}
            Ending::Cancelled(reason) => core.pool.metrics.canceled(reason.as_str()),
            Ending::Failed(failure) => core.pool.metrics.failed(failure.code.as_str()),
        }
        core.announce(last);
        self.record_end(core);
        self.moved(core);
        let swept = self.lock_store().has_ended(core, &self.limits);
        self.let_go(swept);
    }

    /// Gives back what a task holds, and says what it was and what its log ends with; `None`: it has ended
    /// before.
    pub(crate) fn close(&self, core: &TaskCore, ending: &Ending) -> Option<(Account, Size, LastWord)> {
        let (account, last) = core.end(ending)?;
        core.pool.leave(core);
        let real = core.pool.ended(core, &account, matches!(ending, Ending::Finished(_)));
        self.quotas.settle(&core.caller, core.size, real);
        Some((account, real, last))
    }

    pub(crate) fn task(self: &Arc<Self>, core: Arc<TaskCore>, created_now: bool) -> Task {
        Task { shared: Arc::clone(self), core, created_now }
    }

    pub(crate) fn lock_store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatch").field("pools", &self.pool_ids()).finish_non_exhaustive()
    }
}
