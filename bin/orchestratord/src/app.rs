//! orchestratord put together: pool-managerd, feed, dispatch and the HTTP edge, started and stopped
//! in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adapter_host::AdapterHost;
use anyhow::{Context, Result};
use dispatch::{Dispatch, PoolSpec, TakenBack};
use handoff::{Claim, EngineUrl, HandoffDir};
use registry::Registry;
use task_log::artifacts::ArtifactLimits;
use task_log::journal::{Opened, Space};
use task_log::{Artifacts, Journal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::HandoffState;
use wire::config::{Config, OtlpConfig, PoolConfig, QueueConfig};

use crate::compose::{PoolManager, connect};
use crate::feed::{Admit, Feed, FeedParts, FeedTimings, FeedView, Workers};
use crate::http::{AppState, BodyLimits, Configuration, Guard, Kinds, Parts, Server, Traces, router, tls};
use crate::journal;
use crate::listen::bind;
use crate::metrics::EdgeMetrics;
use crate::otlp::Exporter;
use crate::pool_manager::{Endpoint, Link};
use crate::settings::{Settings, with_causes};
use crate::tokens::Tokens;
use crate::{descriptors, measured, reload, usage};

/// Connections may close for this long after that.
const LINGER: Duration = Duration::from_secs(1);
/// When nobody waits any more, readers have this long to receive their last event.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// And engines this long to be gone.
const AT_ONCE: Duration = Duration::from_millis(500);

/// A started orchestratord.
pub(crate) struct Running {
    addr: SocketAddr,
    state: AppState,
    pool_manager: PoolManager,
    /// Absent where tasks live no longer than this process.
    journal: Option<Journal>,
    /// Running tasks may finish for this long after a stop was asked for.
    drain: Duration,
    stop: Stop,
    tasks: Tasks,
}

/// What runs, in the order in which it ends.
#[derive(Default)]
struct Tasks {
    dispatch: TaskTracker,
    server: TaskTracker,
    background: TaskTracker,
}

/// The stages of a stop, in the order they are cancelled.
#[derive(Default)]
struct Stop {
    /// Readiness says no, no connection is accepted, nothing is admitted.
    accepting: CancellationToken,
    /// Connections that are still open are cut.
    connections: CancellationToken,
    /// Feed and followers end.
    background: CancellationToken,
}

/// Starts everything on `listen`. What fails is said before anything is left running.
pub(crate) async fn start(settings: &Settings, listen: SocketAddr) -> Result<Running> {
    let tokens = settings.tokens()?;
    let tls = settings.tls()?;
    let body_limits = settings.body_limits();
    let listener = bind(listen).await?;
    let addr = listener.local_addr().context("reading the listener's address")?;
    // Before any engine is started: a journal that cannot be used is no reason to stop one.
    let opened = if settings.keeps_tasks() { journal::open(settings).await? } else { None };
    let pool_manager = PoolManager::start(settings, addr).await?;
    if settings.keeps_tasks() && opened.is_none() {
        pool_manager.shutdown(std::future::ready(())).await;
        return Err(journal::in_use(settings).into());
    }
    // Only now is the runtime directory ours.
    let artifacts = match artifacts(settings).await {
        Ok(artifacts) => artifacts,
        Err(error) => {
            pool_manager.shutdown(std::future::ready(())).await;
            return Err(error);
        }
    };
    let stop = Stop::default();
    let tasks = Tasks::default();

    let mut exposition = prometheus_client::registry::Registry::default();
    let metrics = EdgeMetrics::register(&mut exposition);
    let registry = Registry::default();
    let host = AdapterHost::default();
    let task_limits = limits(&settings.config);
    let drain = task_limits.drain;
    let dispatch = Dispatch::start(
        settings.config.pools.iter().map(pool_spec).collect(),
        registry.clone(),
        host.clone(),
        task_limits,
        dispatch::Metrics::register(&mut exposition),
        stop.accepting.clone(),
        tasks.dispatch.clone(),
    );
    dispatch.keep_transcripts(artifacts.clone());
    let (traces, exporter) = traces(&settings.config.otlp, &mut exposition)?;
    if let Some(spans) = &traces.spans {
        dispatch.tell_spans(spans.clone());
    }
    let measured_file = settings.config.paths.runtime.join("measured.json");
    // Before the tasks of an earlier process: how large each will be is estimated when it is taken back.
    measured::restore(&measured_file, &dispatch);
    let journal = opened.map(|opened| take_back(&dispatch, opened));
    if let Some(journal) = journal.clone() {
        // Where tokens come and readers wait, so that a token does not wake a thread on its way.
        let until = stop.background.clone();
        tasks.background.spawn(async move {
            // A task of its own, so that a token does not ask whether it is time to stop.
            let driving = tokio::spawn(async move { journal.drive().await });
            until.cancelled().await;
            driving.abort();
            let _aborted = driving.await;
        });
    }
    let usage_file = settings.config.paths.runtime.join("usage.json");
    let counting_since = usage::restore(&usage_file, &dispatch);
    let view = FeedView::default();
    let workers = workers(settings).await?;
    let parts = FeedParts {
        registry: registry.clone(),
        host: host.clone(),
        view: view.clone(),
        workers: workers.clone(),
        connect: connect(),
        admit: admit(dispatch.clone()),
        timings: FeedTimings::default(),
        metrics: metrics.clone(),
    };
    let feed = feed(settings, parts)?;
    tasks.background.spawn(feed.run(stop.background.clone()));
    let link = Link::default();
    if let Some(endpoint) = pool_manager.endpoint() {
        link_to(&link, endpoint, &stop, &tasks)?;
    }
    let tokens = tokens.map(|(path, tokens)| {
        let (file, stop) = (path.clone(), stop.background.clone());
        let read = move || Tokens::reread(&file);
        let (current, task) = reload::follow("the tokens file", vec![path], tokens, read, stop);
        tasks.background.spawn(task);
        current
    });
    let tls = tls.map(|(config, first)| {
        let (files, stop) = (tls::files(&config), stop.background.clone());
        let (current, task) =
            reload::follow("the certificate", files, first, move || tls::read(&config), stop);
        tasks.background.spawn(task);
        current
    });
    if let Some(exporter) = exporter {
        tasks.background.spawn(exporter.run(stop.background.clone()));
    }
    let keep_usage = usage::keep(usage_file, dispatch.clone(), counting_since, stop.background.clone());
    tasks.background.spawn(keep_usage);
    tasks.background.spawn(measured::keep(measured_file, dispatch.clone(), stop.background.clone()));
    let guard = Guard { hosts: settings.config.api.hosts.clone().into(), listen: addr, tokens };
    let state = AppState::from(Parts {
        dispatch,
        registry,
        host,
        feed: view,
        workers,
        artifacts,
        pools: link.views(),
        link,
        guard,
        traces,
        metrics: metrics.clone(),
        exposition: Arc::new(exposition),
        stopping: stop.accepting.clone(),
        started: crate::http::StartTime::now(),
        counting_since,
        kinds: Kinds::of(&settings.config.pools),
        configuration: Configuration::default(),
        bodies: Arc::new(BodyLimits { routes: body_limits, timeout: settings.limits.body_timeout }),
    });
    let mut limits = settings.limits.clone();
    limits.connections = descriptors::connections(limits.connections);
    let server = Server::new(listener, router(state.clone()), limits, tls, metrics.evictions);
    tasks.server.spawn(server.run(stop.accepting.clone(), stop.connections.clone()));
    Ok(Running { addr, state, pool_manager, journal, drain, stop, tasks })
}

/// Follows pool-managerd from now on.
fn link_to(link: &Link, endpoint: Endpoint, stop: &Stop, tasks: &Tasks) -> Result<()> {
    let client = reqwest::Client::builder().no_proxy().build().context("building an HTTP client")?;
    if let Some(follower) = link.found(endpoint, client, stop.background.clone()) {
        tasks.background.spawn(follower);
    }
    Ok(())
}

/// Where spans go, where they go anywhere.
fn traces(
    config: &OtlpConfig,
    exposition: &mut prometheus_client::registry::Registry,
) -> Result<(Traces, Option<Exporter>)> {
    let Some(endpoint) = &config.endpoint else { return Ok((Traces::default(), None)) };
    let (spans, exporter) =
        Exporter::new(endpoint, exposition).context("building an HTTP client for spans")?;
    Ok((Traces { spans: Some(spans), sample: config.sample }, Some(exporter)))
}

fn limits(config: &Config) -> dispatch::Limits {
    let keep = &config.journal;
    dispatch::Limits {
        drain: Duration::from_millis(config.limits.drain_ms),
        kept_tasks: keep.keep_tasks,
        kept_bytes: keep.keep_bytes,
        kept_for: Duration::from_secs(keep.keep_minutes.saturating_mul(60)),
        unread_bytes: keep.keep_unread_bytes,
        callers: config.limits.clone(),
        stalled_after: Duration::from_millis(config.limits.engine_silence_ms),
        resume_within: Duration::from_millis(config.limits.resume_within_ms),
        retry: config.limits.retry.clone(),
        sessions: config.sessions.clone(),
        ..dispatch::Limits::default()
    }
}

async fn artifacts(settings: &Settings) -> Result<Artifacts> {
    let dir = settings.config.paths.runtime.join("artifacts");
    let keep = &settings.config.artifacts;
    let limits = ArtifactLimits {
        bytes: keep.keep_bytes,
        count: keep.keep_count,
        age: Duration::from_secs(keep.keep_minutes.saturating_mul(60)),
    };
    let path = dir.clone();
    let opened = tokio::task::spawn_blocking(move || Artifacts::open(&path, limits, Space::default()));
    let opened = opened.await.context("opening the artifacts")?;
    Ok(opened.map_err(|error| settings.unusable_runtime(&dir, &error))?)
}

/// The tasks of the process before this one.
fn take_back(dispatch: &Dispatch, opened: Opened) -> Journal {
    let journal = opened.journal.clone();
    let TakenBack { waiting, interrupted, ended } = dispatch.restore(opened);
    if waiting + interrupted + ended > 0 {
        tracing::info!(waiting, interrupted, ended, "tasks of an earlier run were taken back");
    }
    journal
}

/// Engines that others registered with the process before this one.
async fn workers(settings: &Settings) -> Result<Workers> {
    let file = settings.keeps_tasks().then(|| settings.config.paths.runtime.join("workers.json"));
    let networks = settings.config.workers.networks.clone();
    tokio::task::spawn_blocking(move || Workers::open(file, networks))
        .await
        .context("reading the registered engines")
}

fn feed(settings: &Settings, parts: FeedParts) -> Result<Feed> {
    let dir = settings.config.paths.runtime.join("engines");
    let dir = HandoffDir::open(&dir).map_err(|error| settings.unusable_runtime(&dir, &error))?;
    let mut feed = Feed::new(parts, dir);
    if let Some(handoff) = &settings.shim {
        let url = EngineUrl::try_new(&handoff.url).context("reading ORCHD_LLAMACPP_URL")?;
        feed.pin(Claim { file: "ORCHD_LLAMACPP_URL".to_owned(), handoff: handoff.clone(), url });
    }
    Ok(feed)
}

fn pool_spec(pool: &PoolConfig) -> PoolSpec {
    PoolSpec {
        id: pool.id.clone(),
        aliases: pool.aliases.clone(),
        model_names: Vec::new(),
        model_ref: pool.model.clone(),
        ctx: pool.ctx,
        queue: pool.queue.clone(),
        deterministic: pool.deterministic,
    }
}

/// A claim may speak of a pool that no configuration names, and knows its model's name.
fn admit(dispatch: Dispatch) -> Admit {
    Arc::new(move |claim: &Claim| {
        let handoff = &claim.handoff;
        if handoff.state == HandoffState::Draining {
            // A pool that is about to go is no news: a configuration may just have let go of it.
            return;
        }
        dispatch.ensure_pool(PoolSpec {
            id: handoff.pool_id.clone(),
            aliases: Vec::new(),
            model_names: Vec::new(),
            model_ref: String::new(),
            ctx: handoff.ctx.unwrap_or(0),
            queue: QueueConfig::default(),
            deterministic: false,
        });
        if !handoff.model.id.is_empty() {
            dispatch.learn_model_name(&handoff.pool_id, &handoff.model.id);
        }
    })
}

impl Running {
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn state(&self) -> &AppState {
        &self.state
    }

    /// Follows the pools of a changed configuration, in what is routed and in what runs. Says what it
    /// comes to; the error, why nothing of it is followed.
    pub(crate) async fn configure(
        &self,
        settings: &Settings,
        config: &Config,
    ) -> Result<Vec<String>, String> {
        let changes = self.pool_manager.configure(settings, self.addr, config).await?;
        if self.state.link.client().is_none()
            && let Some(endpoint) = self.pool_manager.endpoint()
        {
            let linked = link_to(&self.state.link, endpoint, &self.stop, &self.tasks);
            linked.map_err(|error| with_causes(&*error))?;
        }
        self.state.kinds.set(&config.pools);
        self.state.dispatch.configure(config.pools.iter().map(pool_spec).collect());
        Ok(changes)
    }

    /// Stops in order: nothing new, running tasks for a while, connections, our view of the engines,
    /// the engines. From when `now` resolves, whenever that is, nothing is waited for any more.
    pub(crate) async fn shutdown(self, now: impl Future<Output = ()>) {
        let hurry = CancellationToken::new();
        let impatience = async {
            now.await;
            tracing::info!("stopping at once");
            hurry.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = self.stop_in_order(&hurry) => {}
            () = impatience => {}
        }
    }

    async fn stop_in_order(self, hurry: &CancellationToken) {
        let Self { state, pool_manager, journal, drain, stop, tasks, .. } = self;
        stop.accepting.cancel();
        for tracker in [&tasks.dispatch, &tasks.server, &tasks.background] {
            tracker.close();
        }
        patiently(drain + LINGER, hurry, tasks.dispatch.wait()).await;
        // Before the engines' withdrawal, which would end what still runs as lost.
        state.dispatch.interrupt_now();
        patiently(LINGER, hurry, tasks.server.wait()).await;
        if hurry.is_cancelled() {
            let _ = tokio::time::timeout(LAST_WORDS, tasks.server.wait()).await;
        }
        stop.connections.cancel();
        patiently(LINGER, hurry, tasks.server.wait()).await;
        stop.background.cancel();
        patiently(LINGER, hurry, tasks.background.wait()).await;
        if let Some(journal) = journal {
            // Nothing is said any more. It joins its threads, which write what they have.
            let _ = tokio::task::spawn_blocking(move || journal.close()).await;
        }
        tokio::select! {
            () = pool_manager.shutdown(hurry.cancelled()) => {}
            () = async { hurry.cancelled().await; tokio::time::sleep(AT_ONCE).await } => {
                tracing::warn!("an engine or a build still ends; the next start finds what is left of it");
            }
        }
    }
}

/// Waits for an end, but not for long and not when nobody waits any more.
async fn patiently(limit: Duration, hurry: &CancellationToken, end: impl Future<Output = ()>) {
    let _either_way = hurry.run_until_cancelled(tokio::time::timeout(limit, end)).await;
}
