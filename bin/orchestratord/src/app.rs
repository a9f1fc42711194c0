//! orchestratord put together: pool-managerd, feed, dispatch and the HTTP edge, started and stopped
//! in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adapter_host::AdapterHost;
use anyhow::{Context, Result};
use dispatch::{Dispatch, PoolSpec};
use handoff::{Claim, EngineUrl, HandoffDir};
use registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::config::{PoolConfig, QueueConfig};

use crate::compose::{PoolManager, connect};
use crate::exit::{Fatal, TEMPORARY};
use crate::feed::{Admit, Feed, FeedParts, FeedTimings, FeedView};
use crate::http::{AppState, Guard, Server, ServerLimits, router};
use crate::metrics::EdgeMetrics;
use crate::pool_manager::{self, PoolManagerClient, PoolViews};
use crate::settings::Settings;

/// Running tasks may finish for this long after a stop was asked for.
const DRAIN: Duration = Duration::from_secs(10);
/// Connections may close for this long after that.
const LINGER: Duration = Duration::from_secs(1);

/// A started orchestratord.
pub(crate) struct Running {
    addr: SocketAddr,
    state: AppState,
    pool_manager: PoolManager,
    stop: Stop,
    tasks: TaskTracker,
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
    let tokens = settings.tokens()?.map(Arc::new);
    let listener = bind(listen).await?;
    let addr = listener.local_addr().context("reading the listener's address")?;
    let pool_manager = PoolManager::start(settings).await?;
    let stop = Stop::default();
    let tasks = TaskTracker::new();

    let mut exposition = prometheus_client::registry::Registry::default();
    let metrics = EdgeMetrics::register(&mut exposition);
    let registry = Registry::default();
    let host = AdapterHost::default();
    let dispatch = Dispatch::start(
        settings.config.pools.iter().map(pool_spec).collect(),
        registry.clone(),
        host.clone(),
        dispatch::Limits { drain: DRAIN, ..dispatch::Limits::default() },
        dispatch::Metrics::register(&mut exposition),
        stop.accepting.clone(),
        tasks.clone(),
    );
    let view = FeedView::default();
    let parts = FeedParts {
        registry: registry.clone(),
        host,
        view: view.clone(),
        connect: connect(),
        admit: admit(dispatch.clone()),
        timings: FeedTimings::default(),
        metrics: metrics.clone(),
    };
    let feed = feed(settings, parts)?;
    tasks.spawn(feed.run(stop.background.clone()));
    let (pools, orders) = match pool_manager.endpoint() {
        None => (PoolViews::none(), None),
        Some(endpoint) => {
            let client = reqwest::Client::builder().no_proxy().build().context("building an HTTP client")?;
            let orders = PoolManagerClient::new(endpoint.clone(), client.clone());
            let (views, follower) = pool_manager::follow(endpoint, client, stop.background.clone());
            tasks.spawn(follower);
            (views, Some(orders))
        }
    };
    let guard = Guard { hosts: settings.config.api.hosts.clone().into(), listen: addr, tokens };
    let state = AppState {
        dispatch,
        registry,
        feed: view,
        pools,
        pool_manager: orders,
        guard,
        metrics,
        exposition: Arc::new(exposition),
        stopping: stop.accepting.clone(),
        started: crate::http::StartTime::now(),
    };
    let server = Server::new(listener, router(state.clone()), ServerLimits::default());
    tasks.spawn(server.run(stop.accepting.clone(), stop.connections.clone()));
    Ok(Running { addr, state, pool_manager, stop, tasks })
}

async fn bind(listen: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(listen).await.map_err(|error| {
        let message = match error.kind() {
            std::io::ErrorKind::AddrInUse => format!(
                "{listen} is in use by another program (`ss -ltnp 'sport = :{}'` names it); \
                 stop it, or choose another address with ORCHD_ADDR or api.listen",
                listen.port()
            ),
            _ => format!("cannot listen on {listen}: {error}"),
        };
        Fatal::new(TEMPORARY, message).into()
    })
}

fn feed(settings: &Settings, parts: FeedParts) -> Result<Feed> {
    let dir = settings.config.paths.runtime.join("engines");
    let dir =
        HandoffDir::open(&dir).with_context(|| format!("opening the handoff directory {}", dir.display()))?;
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
        ctx: pool.ctx,
        queue: pool.queue.clone(),
        deterministic: pool.deterministic,
    }
}

/// A claim may speak of a pool that no configuration names, and knows its model's name.
fn admit(dispatch: Dispatch) -> Admit {
    Arc::new(move |claim: &Claim| {
        let handoff = &claim.handoff;
        dispatch.ensure_pool(PoolSpec {
            id: handoff.pool_id.clone(),
            aliases: Vec::new(),
            model_names: Vec::new(),
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

    /// Stops in order: nothing new, running tasks for a while, then everything. `now` skips the
    /// waiting.
    pub(crate) async fn shutdown(self, now: impl Future<Output = ()>) {
        self.stop.accepting.cancel();
        self.tasks.close();
        let orderly = async {
            self.state.dispatch.drained().await;
            tokio::time::sleep(LINGER).await;
        };
        tokio::select! {
            () = orderly => {}
            () = now => tracing::info!("stopping at once"),
            () = tokio::time::sleep(DRAIN + LINGER) => tracing::warn!("tasks were still running; cutting them off"),
        }
        self.stop.connections.cancel();
        self.stop.background.cancel();
        self.tasks.wait().await;
        self.pool_manager.shutdown().await;
    }
}
