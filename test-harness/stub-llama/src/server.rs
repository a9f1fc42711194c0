//! A stub as a running thing: in this process on its own thread and runtime, so that a test's
//! paused clock and its runtime's end do not touch it, or as the whole of a process.

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::{OnceCell, watch};
use tokio::time::Instant;

use crate::metronome::Metronome;
use crate::slots::Slots;
use crate::{Faults, Stats, StubConfig, http};

/// Who runs the stub, which decides what its death is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A process of its own: it exits or aborts.
    Process,
    /// A part of a test: its connections break and its port closes.
    InProcess,
}

pub(crate) enum Death {
    Exit(i32),
    Abort,
}

/// A request as the stub saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// `GET`, `POST`.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Null unless it was JSON.
    pub body: Value,
}

/// What every connection shares. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Inner>);

struct Inner {
    config: StubConfig,
    role: Role,
    faults: RwLock<Faults>,
    slots: Arc<Slots>,
    loaded: watch::Sender<bool>,
    stopped: watch::Sender<bool>,
    seen: Mutex<Vec<Seen>>,
    generations: AtomicU64,
    metronome: OnceCell<Arc<Metronome>>,
}

impl Shared {
    fn new(config: StubConfig, role: Role) -> Self {
        Self(Arc::new(Inner {
            role,
            faults: RwLock::new(config.faults.clone()),
            slots: Slots::new(config.parallel, config.slot_ctx()),
            loaded: watch::Sender::new(false),
            stopped: watch::Sender::new(false),
            seen: Mutex::default(),
            generations: AtomicU64::new(0),
            metronome: OnceCell::new(),
            config,
        }))
    }

    /// Waits until `due`, to the microseconds.
    pub(crate) async fn until(&self, due: Instant) -> io::Result<()> {
        let metronome = self.0.metronome.get_or_try_init(async || Metronome::start()).await?;
        metronome.until(due).await
    }

    pub(crate) fn config(&self) -> &StubConfig {
        &self.0.config
    }

    pub(crate) fn faults(&self) -> Faults {
        self.0.faults.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn slots(&self) -> Arc<Slots> {
        Arc::clone(&self.0.slots)
    }

    pub(crate) fn slot_ctx(&self) -> u32 {
        self.0.config.slot_ctx()
    }

    pub(crate) fn stats(&self) -> Stats {
        *self.0.slots.stats().borrow()
    }

    pub(crate) fn is_loaded(&self) -> bool {
        *self.0.loaded.borrow()
    }

    pub(crate) fn admits(&self, key: &str) -> bool {
        self.0.config.api_keys.is_empty() || self.0.config.api_keys.iter().any(|known| known == key)
    }

    pub(crate) fn remember(&self, seen: Seen) {
        self.seen().push(seen);
    }

    /// Counts the generations, from 1.
    pub(crate) fn next_generation(&self) -> u64 {
        self.0.generations.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Ends everything. Never returns; its type fits where a step is due.
    pub(crate) async fn die<T>(&self, death: Death) -> T {
        match (self.0.role, death) {
            (Role::Process, Death::Exit(code)) => std::process::exit(code),
            (Role::Process, Death::Abort) => std::process::abort(),
            (Role::InProcess, _) => {
                self.0.stopped.send_replace(true);
                pending().await
            }
        }
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts stubs in this process.
#[derive(Debug)]
pub struct Stub;

/// Why a stub did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its address is taken.
    #[error("cannot bind {addr}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No thread or runtime for it.
    #[error("cannot start a runtime for the stub")]
    Runtime(#[source] io::Error),
}

/// A stub in this process. Dropping it breaks its connections and closes its port.
pub struct RunningStub {
    addr: SocketAddr,
    shared: Shared,
    thread: Option<JoinHandle<()>>,
}

impl Stub {
    /// Starts one. It listens when this returns, and is loaded unless a fault says otherwise.
    pub fn start(config: StubConfig) -> Result<RunningStub, StartError> {
        let wanted = SocketAddr::new(config.host, config.port);
        let bind = |source| StartError::Bind { addr: wanted, source };
        let listener = std::net::TcpListener::bind(wanted).map_err(bind)?;
        listener.set_nonblocking(true).map_err(bind)?;
        let addr = listener.local_addr().map_err(bind)?;
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(StartError::Runtime)?;
        let at_once = config.faults.load.is_zero() && config.faults.exit_at_start.is_none();
        let shared = Shared::new(config, Role::InProcess);
        // Not left to its thread: a test that asked for no load time should meet none.
        shared.0.loaded.send_replace(at_once);
        let running = shared.clone();
        let thread = std::thread::Builder::new()
            .name("stub-llama".to_owned())
            .spawn(move || {
                let mut stopped = running.0.stopped.subscribe();
                runtime.block_on(async move {
                    let Ok(listener) = TcpListener::from_std(listener) else { return };
                    tokio::select! {
                        _ = run(listener, running, || {}) => {}
                        _ = stopped.wait_for(|stopped| *stopped) => {}
                    }
                });
                // Dropping the runtime drops every connection.
                runtime.shutdown_timeout(Duration::from_secs(1));
            })
            .map_err(StartError::Runtime)?;
        Ok(RunningStub { addr, shared, thread: Some(thread) })
    }
}

/// Serves on `listener` until the future is dropped; `on_loaded` is called once the model is.
pub async fn serve(
    listener: TcpListener,
    config: StubConfig,
    role: Role,
    on_loaded: impl FnOnce(),
) -> io::Result<()> {
    run(listener, Shared::new(config, role), on_loaded).await
}

async fn run(listener: TcpListener, shared: Shared, on_loaded: impl FnOnce()) -> io::Result<()> {
    let loading = shared.clone();
    let listener = listener.tap_io(|stream| {
        // A stream that cannot be set is one that just closed.
        let _ = stream.set_nodelay(true);
    });
    let app = http::router(shared);
    let load = async {
        let faults = loading.faults();
        tokio::time::sleep(faults.load).await;
        if let Some(code) = faults.exit_at_start {
            return loading.die(Death::Exit(code)).await;
        }
        loading.0.loaded.send_replace(true);
        on_loaded();
        pending::<io::Result<()>>().await
    };
    tokio::select! {
        served = axum::serve(listener, app).into_future() => served,
        loaded = load => loaded,
    }
}

impl RunningStub {
    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Every request so far, health checks included.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.seen().clone()
    }

    /// What it does now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Changes the faults from the next token on.
    pub fn set_faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.shared.0.faults.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until `condition` holds, for 10 s at most of real time. The error is how things
    /// stood then.
    pub async fn wait_for(&self, condition: impl Fn(&Stats) -> bool) -> Result<Stats, Stats> {
        let mut stats = self.shared.0.slots.stats();
        // Real time, whatever the test's clock: a paused clock would run out at once.
        let (out_of_time, deadline) = tokio::sync::oneshot::channel::<()>();
        let timer = std::thread::spawn(move || {
            std::thread::park_timeout(Duration::from_secs(10));
            drop(out_of_time);
        });
        let outcome = tokio::select! {
            found = stats.wait_for(|stats| condition(stats)) => found.map(|stats| *stats).ok(),
            _ = deadline => None,
        };
        timer.thread().unpark();
        outcome.ok_or_else(|| self.stats())
    }

    /// Stops it as a crash would: connections break, the port closes.
    pub fn stop(&mut self) {
        self.shared.0.stopped.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say: a panic there was printed there.
            let _ = thread.join();
        }
    }
}

impl Drop for RunningStub {
    fn drop(&mut self) {
        self.stop();
    }
}
