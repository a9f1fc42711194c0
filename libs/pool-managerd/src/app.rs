//! The composition: lock, reconcile, listen, one task per replica, and an orderly end.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use devices::Discover;
use handoff::{HandoffDir, HandoffError};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use wire::config::{Config, PoolConfig};

use crate::admission::Ledger;
use crate::board::Board;
use crate::cards::Cards;
use crate::determinism::Kept;
use crate::engine_http::{EngineClient, Health};
use crate::from_config::check_pools;
use crate::http::{Api, FOLLOWERS, router, serve};
use crate::manager::Manager;
use crate::metrics::Metrics;
use crate::reconcile::{Leftovers, reconcile};
use crate::record::RunDir;
use crate::shared::Shared;
use crate::{AppConfigError, AvailableMemory, InheritedEnv, PoolChange, Prepare, Timings, Token, durable};

/// The API is asked over loopback.
const API_WITHIN: Duration = Duration::from_secs(5);
/// A second manager must be told within a second.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Everything the daemon needs; nothing is read from the environment after this.
pub struct AppConfig {
    /// Handoffs, records, logs and the lock. Never shared between managers.
    pub runtime_dir: PathBuf,
    /// The pools.
    pub pools: Vec<PoolConfig>,
    /// Who holds the runtime directory, for whoever finds it locked, as "orchestratord at
    /// http://127.0.0.1:8080"; one line.
    pub holder: Option<String>,
    /// A loopback address; port 0 is any free one.
    pub listen: SocketAddr,
    /// What callers must send.
    pub token: Token,
    /// Who prepares engines.
    pub preparer: Arc<dyn Prepare>,
    /// What engines inherit of our environment.
    pub inherited: InheritedEnv,
    /// How many bytes a second engine beside one that serves may use; [`available_memory`](crate::available_memory)
    /// asks the kernel.
    pub memory: AvailableMemory,
    /// Where the results of self-tests are kept; shared between managers.
    pub self_tests: PathBuf,
    /// Who finds the machine's cards.
    pub cards: Arc<dyn Discover>,
    /// Engines that may load at once; 0 counts as 1.
    pub loading_at_once: u32,
    /// Limits and periods.
    pub timings: Timings,
}

/// Starts the daemon.
#[derive(Debug)]
pub struct App;

/// A running daemon. [`shutdown`](Running::shutdown) ends it in order; dropping it tells its tasks
/// to do so without waiting for them.
#[derive(Debug)]
pub struct Running {
    addr: SocketAddr,
    board: Arc<Board>,
    manager: Manager,
    /// How long an engine that serves may go without a look.
    unwatched_limit: Duration,
    token: Token,
    /// Replicas and operations.
    tasks: TaskTracker,
    api: TaskTracker,
    shutdown: CancellationToken,
    hurry: CancellationToken,
    _told_on_drop: DropGuard,
    /// Held for as long as this manager lives.
    _lock: File,
}

/// The daemon did not start; nothing of it runs.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another manager has the runtime directory.
    #[error(
        "the runtime directory {} is in use by {} (PID {holder}); stop that one, or set paths.runtime to another directory",
        runtime_dir.display(), who.as_deref().unwrap_or("another pool-managerd")
    )]
    Locked {
        /// The directory.
        runtime_dir: PathBuf,
        /// The other manager's PID, as it wrote it down.
        holder: String,
        /// What it is and where, if it said so.
        who: Option<String>,
    },
    /// The runtime directory cannot be used.
    #[error("cannot use the runtime directory {}; check its permissions and free space", path.display())]
    RuntimeDir {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The handoff directory cannot be used.
    #[error("cannot use the handoff directory")]
    Handoffs(#[source] HandoffError),
    /// This API drives processes; it listens on loopback only.
    #[error("pool_managerd.listen is {0}, which is not a loopback address; use 127.0.0.1 and a port")]
    NotLoopback(SocketAddr),
    /// The port is taken, or the address is not ours.
    #[error("cannot listen on {addr}{}", holder_text(holder.as_ref()))]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Who has the port, when that can be seen.
        holder: Option<child::Holder>,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A part of the start broke off.
    #[error("starting broke off")]
    Broken(#[source] tokio::task::JoinError),
}

fn holder_text(holder: Option<&child::Holder>) -> String {
    holder.map_or_else(String::new, |h| format!(": {} (PID {}) has the port", h.name, h.pid))
}

/// What the blocking part of the start finds and makes.
struct Ground {
    lock: File,
    run: RunDir,
    handoffs: HandoffDir,
    leftovers: Leftovers,
}

impl App {
    /// Locks the runtime directory, reconciles what an earlier manager left, listens, and starts
    /// every pool.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: AppConfig) -> Result<Running, StartError> {
        if !config.listen.ip().is_loopback() {
            return Err(StartError::NotLoopback(config.listen));
        }
        let pools: Vec<Arc<PoolConfig>> = config.pools.into_iter().map(Arc::new).collect();
        let (runtime_dir, who, for_ground) = (config.runtime_dir, config.holder, pools.clone());
        let prepared =
            tokio::task::spawn_blocking(move || ground(&runtime_dir, who.as_deref(), &for_ground)).await;
        let Ground { lock, run, handoffs, mut leftovers } = prepared.map_err(StartError::Broken)??;
        let listener = listen(config.listen).await?;
        let addr = listener.local_addr().map_err(|source| StartError::Listen {
            addr: config.listen,
            holder: None,
            source,
        })?;
        leftovers.end_unwanted(config.timings.stop_grace).await;

        let unwatched_limit = (config.timings.liveness_period + config.timings.liveness_timeout) * 10;
        let loading_at_once = usize::try_from(config.loading_at_once.max(1)).unwrap_or(1);
        let shared = Arc::new(Shared {
            run,
            handoffs,
            inherited: config.inherited,
            preparer: config.preparer,
            provisioning: Mutex::new(()),
            loading: Semaphore::new(loading_at_once),
            memory: config.memory,
            cards: Cards::new(config.cards),
            ledger: Ledger::new(config.memory),
            self_tests: Kept::in_dir(&config.self_tests),
            timings: config.timings,
            hurry: CancellationToken::new(),
            metrics: Metrics::new(),
        });
        let shutdown = CancellationToken::new();
        let hurry = shared.hurry.clone();
        let manager = Manager::new(shared, shutdown.clone());
        for pool in &pools {
            manager.add(pool, &mut leftovers.survivors);
        }
        let tasks = manager.tasks().clone();
        let board = manager.clone_board();
        let routes = router(Api {
            manager: manager.clone(),
            token: config.token.clone(),
            shutdown: shutdown.clone(),
            followers: Arc::new(Semaphore::new(FOLLOWERS)),
            verifying: Arc::new(Semaphore::new(1)),
        });
        let api = TaskTracker::new();
        api.spawn(serve(listener, routes, shutdown.clone()));
        api.close();
        let told_on_drop = shutdown.clone().drop_guard();
        Ok(Running {
            addr,
            board,
            manager,
            unwatched_limit,
            token: config.token,
            tasks,
            api,
            shutdown,
            hurry,
            _told_on_drop: told_on_drop,
            _lock: lock,
        })
    }
}

impl Running {
    /// Where the API listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What callers must send.
    #[must_use]
    pub fn token(&self) -> &str {
        self.token.expose()
    }

    /// Follows the pools of another configuration: only what changed moves, each pool in its own time.
    /// Says what it comes to. `config` is as a start would take it; what is not about pools changes nothing.
    ///
    /// # Errors
    /// A pool that cannot work on any machine; then nothing changes.
    pub fn configure(&self, config: &Config) -> Result<Vec<PoolChange>, AppConfigError> {
        check_pools(config)?;
        Ok(self.manager.configure(config.pools.iter().cloned().map(Arc::new).collect()))
    }

    pub(crate) fn board(&self) -> &Board {
        &self.board
    }

    /// One full round of supervision: every engine that serves was looked at a moment ago, the threads
    /// for blocking work answer, and so does the API. The error says what does not.
    pub(crate) async fn round(&self) -> Result<(), String> {
        if let Some(replica) = self.board.unwatched(self.unwatched_limit) {
            return Err(format!("nobody has looked at {replica} for {} s", self.unwatched_limit.as_secs()));
        }
        tokio::task::spawn_blocking(|| ()).await.map_err(|join| format!("blocking work fails: {join}"))?;
        match EngineClient::at(self.addr).health(API_WITHIN).await {
            Health::Ready => Ok(()),
            Health::Loading => Err("the API is not up".to_owned()),
            Health::Down(why) => Err(format!("the API does not answer: {why}")),
        }
    }

    /// Ends every replica as its pool's `on_exit` says, then the API. Takes at most the stop grace
    /// and a little.
    pub async fn shutdown(self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.api.wait().await;
    }

    /// As [`shutdown`](Self::shutdown), but without grace: engines that are to end are killed at once.
    pub async fn shutdown_now(self) {
        self.hurry.cancel();
        self.shutdown().await;
    }

    /// As [`shutdown`](Self::shutdown) until `now` resolves, from then on as
    /// [`shutdown_now`](Self::shutdown_now): patience may end in the middle of it.
    pub async fn shutdown_unless(self, now: impl Future<Output = ()>) {
        let hurry = self.hurry.clone();
        let mut ended = std::pin::pin!(self.shutdown());
        tokio::select! {
            () = &mut ended => return,
            () = now => hurry.cancel(),
        }
        ended.await;
    }
}

fn ground(runtime_dir: &Path, who: Option<&str>, pools: &[Arc<PoolConfig>]) -> Result<Ground, StartError> {
    let unusable = |source| StartError::RuntimeDir { path: runtime_dir.to_owned(), source };
    durable::private_dir(runtime_dir).map_err(unusable)?;
    let lock = lock(runtime_dir, who)?;
    let run = RunDir::open(runtime_dir).map_err(unusable)?;
    let handoffs = HandoffDir::open(runtime_dir.join("engines")).map_err(StartError::Handoffs)?;
    let leftovers = reconcile(&run, &handoffs, pools).map_err(unusable)?;
    Ok(Ground { lock, run, handoffs, leftovers })
}

/// The lock ends with the process, however that ends; engines do not inherit it.
fn lock(runtime_dir: &Path, who: Option<&str>) -> Result<File, StartError> {
    let path = runtime_dir.join("pool-managerd.lock");
    let unusable = |source| StartError::RuntimeDir { path: path.clone(), source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(unusable)?;
    match lock_soon(&file) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let _unreadable_is_unknown = file.read_to_string(&mut text);
            let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned);
            let holder = lines.next().unwrap_or_else(|| "unknown".to_owned());
            let who = lines.next();
            return Err(StartError::Locked { runtime_dir: runtime_dir.to_owned(), holder, who });
        }
        Err(TryLockError::Error(source)) => return Err(unusable(source)),
    }
    let text = format!("{}\n{}\n", std::process::id(), who.unwrap_or_default());
    file.set_len(0).and_then(|()| file.write_all(text.as_bytes())).map_err(unusable)?;
    Ok(file)
}

/// A manager that was killed while it started an engine leaves its lock, for some milliseconds, to
/// a process that has forked and not yet executed. So a lock is refused only when it stays taken.
fn lock_soon(file: &File) -> Result<(), TryLockError> {
    let end = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(LOCK_PAUSE),
            settled => return settled,
        }
    }
}

async fn listen(addr: SocketAddr) -> Result<TcpListener, StartError> {
    match TcpListener::bind(addr).await {
        Ok(listener) => Ok(listener),
        Err(source) => {
            let port = addr.port();
            let holder = tokio::task::spawn_blocking(move || child::holder_of_port(port)).await;
            Err(StartError::Listen { addr, holder: holder.unwrap_or_default(), source })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use wire::{Phase, ReplicaId};

    use super::*;
    use crate::prepare::Nothing;

    async fn started(dir: &Path) -> Running {
        let timings = Timings {
            liveness_period: Duration::from_millis(50),
            liveness_timeout: Duration::from_millis(50),
            ..Timings::default()
        };
        let config = AppConfig {
            runtime_dir: dir.to_owned(),
            pools: vec![PoolConfig::haiku()],
            holder: None,
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            token: Token::generate().unwrap(),
            preparer: Arc::new(Nothing),
            inherited: InheritedEnv::default(),
            memory: || None,
            self_tests: dir.join("self-tests"),
            cards: Arc::new(|| devices::Inventory::NoCard),
            loading_at_once: 2,
            timings,
        };
        App::start(config).await.unwrap()
    }

    /// POOLD-SERVICE-001
    #[tokio::test]
    async fn a_round_is_whole_only_if_every_engine_was_looked_at_and_the_api_answers() {
        let dir = tempfile::tempdir().unwrap();
        let running = started(dir.path()).await;
        let id = PoolConfig::haiku().id;
        let seat = running.board.seat(&id, &ReplicaId::nth(0)).unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        while running.board.replicas(&id, |replica| replica.stands()) != [Phase::Failed] {
            assert!(Instant::now() < end, "it never failed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        running.round().await.unwrap();

        // As if the task that watches it had ended.
        seat.update(|replica| replica.phase(Phase::Ready));
        let neglected = loop {
            match running.round().await {
                Ok(()) => assert!(Instant::now() < end, "nobody notices that nobody looks"),
                Err(why) => break why,
            }
        };
        assert!(neglected.contains("nobody has looked at haiku/r0"), "{neglected}");
        seat.update(|replica| replica.phase(Phase::Failed));
        running.round().await.unwrap();

        running.shutdown.cancel();
        running.api.wait().await;
        let silent = running.round().await.unwrap_err();
        assert!(silent.contains("the API"), "{silent}");
    }
}
