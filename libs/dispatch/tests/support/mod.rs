//! A scripted engine and a dispatch over it.
#![allow(dead_code, reason = "each test binary uses its part of it")]

pub(crate) mod life;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adapter_host::{
    AdapterHost, Binding, BoxFuture, ChatRequest, CompletionRequest, EngineItem, EngineRequest, Finished,
    ProbeError, Probed, Prompt, Sampling, SoFar, StreamFault, SubmitError, TokenStream, WorkerAdapter,
};
use dispatch::{Detach, Dispatch, Limits, Metrics, Owner, PoolSpec, Task, TaskSpec};
use registry::{Event, Registry, Up};
use task_log::Entry;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::config::{FullPolicy, QueueConfig};
use wire::event::FinishReason;
use wire::task::{OnInterrupt, Priority};
use wire::{EngineChunk, ErrorBody, ErrorCode, PoolId, ReplicaId, ReplicaKey, TaskId, TraceContext};

/// What an engine does with one generation.
#[derive(Debug, Clone)]
pub(crate) enum Script {
    /// So many tokens, so far apart, then its end.
    Speak(u32, Duration),
    /// So many tokens, then the connection breaks.
    BreakAfter(u32),
    /// So many tokens, then nothing for ever.
    HangAfter(u32),
    /// Names the role as a chat does, and the connection breaks.
    BreakAfterRole,
    /// So many tokens, then an error in these words.
    ReportAfter(u32, String),
    /// Does not take it: unreachable.
    Unreachable,
    /// Does not take it: bad request.
    Refuse(ErrorCode, String),
}

#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) script: Mutex<VecDeque<Script>>,
    pub(crate) otherwise: Script,
    pub(crate) prompts: Mutex<Vec<String>>,
    pub(crate) asked: Mutex<Vec<CompletionRequest>>,
    pub(crate) traces: Mutex<Vec<Option<TraceContext>>>,
    /// What it says, by position.
    pub(crate) says: fn(u32) -> EngineChunk,
    pub(crate) running: AtomicUsize,
    pub(crate) peak: AtomicUsize,
}

impl Engine {
    pub(crate) fn new(otherwise: Script) -> Arc<Self> {
        Arc::new(Self {
            script: Mutex::default(),
            otherwise,
            prompts: Mutex::default(),
            asked: Mutex::default(),
            traces: Mutex::default(),
            says: chunk,
            running: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        })
    }

    /// One that says something else than words.
    pub(crate) fn saying(says: fn(u32) -> EngineChunk, otherwise: Script) -> Arc<Self> {
        let engine = Self::new(otherwise);
        let mut engine = Arc::into_inner(engine).expect("nobody else holds it yet");
        engine.says = says;
        Arc::new(engine)
    }

    pub(crate) fn asked(&self) -> Vec<CompletionRequest> {
        self.asked.lock().unwrap().clone()
    }

    /// The trace of each request, in order.
    pub(crate) fn traces(&self) -> Vec<Option<TraceContext>> {
        self.traces.lock().unwrap().clone()
    }

    pub(crate) fn then(&self, script: Script) {
        self.script.lock().unwrap().push_back(script);
    }

    pub(crate) fn prompts(&self) -> Vec<String> {
        self.prompts.lock().unwrap().clone()
    }
}

struct Busy(Arc<Engine>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(crate) struct Adapter(pub(crate) Arc<Engine>);

impl WorkerAdapter for Adapter {
    fn submit(
        &self,
        request: EngineRequest,
        trace: Option<TraceContext>,
    ) -> BoxFuture<'_, Result<TokenStream, SubmitError>> {
        self.0.traces.lock().unwrap().push(trace);
        let EngineRequest::Completion(request) = request else { panic!("the tests ask for completions") };
        let Prompt::Text(prompt) = request.prompt.clone() else { panic!("the tests ask with text") };
        // It goes on where the answer so far ends.
        let from = match &request.so_far {
            SoFar::Nothing => 0,
            SoFar::Ids(ids) => ids.last().unwrap() + 1,
            SoFar::Text(text) => u32::try_from(text.chars().count()).unwrap(),
        };
        let says = self.0.says;
        self.0.asked.lock().unwrap().push(request);
        self.0.prompts.lock().unwrap().push(prompt);
        let script = self.0.script.lock().unwrap().pop_front().unwrap_or_else(|| self.0.otherwise.clone());
        let now = self.0.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.peak.fetch_max(now, Ordering::SeqCst);
        let busy = Busy(Arc::clone(&self.0));
        Box::pin(async move {
            match script {
                Script::Unreachable => Err(SubmitError::Lost("connection refused".to_owned())),
                Script::Refuse(code, why) => {
                    Err(SubmitError::Refused(Box::new(ErrorBody::new(code, why).hint("ask otherwise"))))
                }
                script => Ok(TokenStream::new(stream(script, from, says, busy))),
            }
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<Probed, ProbeError>> {
        Box::pin(async { Ok(Probed { slots_total: None, ctx: None, chat_template_sha256: None }) })
    }

    fn count_tokens<'a>(
        &'a self,
        text: &'a str,
        _: Option<&'a TraceContext>,
    ) -> BoxFuture<'a, Result<u64, SubmitError>> {
        Box::pin(async move { Ok(text.len() as u64) })
    }

    fn count_chat<'a>(
        &'a self,
        chat: &'a ChatRequest,
        _: Option<&'a TraceContext>,
    ) -> BoxFuture<'a, Result<u64, SubmitError>> {
        Box::pin(async move { Ok(chat.request.messages.len() as u64) })
    }
}

pub(crate) fn chunk(n: u32) -> EngineChunk {
    EngineChunk {
        text: format!("t{n} "),
        tokens: vec![n],
        unnamed: 0,
        raw: serde_json::value::RawValue::from_string("{}".to_owned()).unwrap(),
    }
}

fn role() -> EngineChunk {
    let raw = r#"{"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}]}"#;
    let raw = serde_json::value::RawValue::from_string(raw.to_owned()).unwrap();
    EngineChunk { text: String::new(), tokens: vec![], unnamed: 0, raw }
}

fn stream(
    script: Script,
    from: u32,
    says: fn(u32) -> EngineChunk,
    busy: Busy,
) -> impl futures_core::Stream<Item = Result<EngineItem, StreamFault>> + Send + 'static {
    let state = (from, Some(script), busy);
    futures_util::stream::unfold(state, move |(n, script, busy)| async move {
        let script = script?;
        let (tokens, pause) = match &script {
            Script::Speak(tokens, pause) => (*tokens, *pause),
            Script::BreakAfter(tokens) | Script::HangAfter(tokens) | Script::ReportAfter(tokens, _) => {
                (*tokens, Duration::ZERO)
            }
            Script::BreakAfterRole => (1, Duration::ZERO),
            Script::Unreachable | Script::Refuse(..) => (0, Duration::ZERO),
        };
        if n < tokens {
            if !pause.is_zero() {
                // How slow this engine is.
                tokio::time::sleep(pause).await;
            }
            let chunk = if matches!(script, Script::BreakAfterRole) { role() } else { says(n) };
            return Some((Ok(EngineItem::Chunk(chunk)), (n + 1, Some(script), busy)));
        }
        match script {
            Script::HangAfter(_) => std::future::pending().await,
            Script::ReportAfter(_, what) => Some((Err(StreamFault::Engine(what)), (n, None, busy))),
            Script::BreakAfter(_) | Script::BreakAfterRole => {
                Some((Err(StreamFault::Lost("connection reset".to_owned())), (n, None, busy)))
            }
            _ => {
                let reason = FinishReason::Stop;
                // One more than was shown: the end token.
                let tokens_out = u64::from(tokens.saturating_sub(from)) + 1;
                // It counts what it was given of the answer among the prompt.
                let tokens_in = 7 + u64::from(from);
                let finished = Finished { reason, tokens_in, tokens_out, sampling: None };
                Some((Ok(EngineItem::Finished(finished)), (n, None, busy)))
            }
        }
    })
}

/// A dispatch with one pool `p`.
pub(crate) struct World {
    pub(crate) registry: Registry,
    pub(crate) host: AdapterHost,
    pub(crate) dispatch: Dispatch,
    pub(crate) shutdown: CancellationToken,
    pub(crate) tracker: TaskTracker,
    pub(crate) metrics: prometheus_client::registry::Registry,
}

pub(crate) fn pool() -> PoolId {
    PoolId::try_new("p").unwrap()
}

pub(crate) fn key(n: u32) -> ReplicaKey {
    ReplicaKey { pool: pool(), replica: ReplicaId::nth(n) }
}

pub(crate) fn owner() -> Owner {
    Owner::Data("one".into())
}

pub(crate) fn spec(prompt: &str) -> TaskSpec {
    TaskSpec {
        task_id: None,
        fingerprint: [0; 32],
        owner: owner(),
        caller: dispatch::CallerId::key("one"),
        tokens_in: None,
        model: "p".to_owned(),
        request: EngineRequest::Completion(CompletionRequest {
            prompt: Prompt::Text(prompt.to_owned()),
            sampling: Sampling { seed: Some(42), ..Sampling::default() },
            cache_prompt: false,
            so_far: SoFar::Nothing,
        }),
        priority: Priority::Interactive,
        deadline: None,
        placement: None,
        detach: Detach::Never,
        on_interrupt: OnInterrupt::Fail,
        transcript: false,
        session: None,
        trace: None,
    }
}

pub(crate) fn batch(prompt: &str) -> TaskSpec {
    TaskSpec { priority: Priority::Batch, ..spec(prompt) }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(8, FullPolicy::Reject, Limits::default())
    }

    pub(crate) fn with(capacity: u32, full_policy: FullPolicy, limits: Limits) -> Self {
        let pool = PoolSpec {
            id: pool(),
            aliases: vec!["alias".to_owned()],
            model_names: vec![],
            model_ref: String::new(),
            ctx: 2048,
            queue: QueueConfig { capacity, full_policy },
            deterministic: true,
        };
        let (registry, host) = (Registry::default(), AdapterHost::default());
        let (shutdown, tracker) = (CancellationToken::new(), TaskTracker::new());
        let mut metrics = prometheus_client::registry::Registry::default();
        let dispatch = Dispatch::start(
            vec![pool],
            registry.clone(),
            host.clone(),
            limits,
            Metrics::register(&mut metrics),
            shutdown.clone(),
            tracker.clone(),
        );
        Self { registry, host, dispatch, shutdown, tracker, metrics }
    }

    pub(crate) fn up(&self, replica: u32, generation: u64, slots: u32, engine: &Arc<Engine>) {
        self.up_with("digest", replica, generation, slots, engine);
    }

    pub(crate) fn up_with(
        &self,
        digest: &str,
        replica: u32,
        generation: u64,
        slots: u32,
        engine: &Arc<Engine>,
    ) {
        let adapter = Arc::new(Adapter(Arc::clone(engine)));
        self.host.bind(key(replica), Binding { generation, adapter });
        self.registry.apply(Event::Up(Up {
            engine_version: format!("engine-{replica}-{generation}"),
            model_id: "model".to_owned(),
            model_digest: digest.to_owned(),
            ctx: Some(2048),
            ..Up::new(key(replica), generation, slots)
        }));
    }

    pub(crate) fn down(&self, replica: u32, generation: u64) {
        self.registry.apply(Event::Down { key: key(replica), generation, reason: "killed".to_owned() });
    }

    pub(crate) fn submit(&self, spec: TaskSpec) -> Task {
        self.dispatch.submit(spec).unwrap()
    }

    pub(crate) fn free(&self, replica: u32) -> u32 {
        self.registry.snapshot().replicas[&key(replica)].slots_free
    }

    /// Waits until `n` tasks have a slot.
    pub(crate) async fn until_free(&self, replica: u32, slots: u32) {
        let mut changed = self.registry.changed();
        let wait = async {
            while self.free(replica) != slots {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(3600), wait).await.expect("the slots come free");
    }

    pub(crate) fn metric(&self, line: &str) -> Option<f64> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.metrics).unwrap();
        text.lines().find_map(|have| have.strip_prefix(line)?.trim().parse().ok())
    }
}

/// Everything a task says, to its end; a hang is a failure.
pub(crate) async fn all(task: &Task) -> Vec<Entry> {
    let mut follower = task.log().follow(None);
    let mut entries = Vec::new();
    let read = async {
        while let Some((_, entry)) = follower.next().await {
            entries.push((*entry).clone());
        }
    };
    tokio::time::timeout(patience(), read).await.expect("every task ends");
    entries
}

/// The same in words.
pub(crate) async fn words(task: &Task) -> String {
    let said = |entry: &Entry| match entry {
        Entry::Started(started) => format!("started:{}", started.replica_id),
        Entry::Chunk { index: None, .. } => "role".to_owned(),
        Entry::Chunk { chunk, index, .. } => format!("{}={}", index.unwrap(), chunk.text.trim()),
        Entry::Resumed(resumed) => format!("resumed:{}", resumed.replica_id),
        Entry::End(end) => {
            format!("end:{}", serde_json::to_value(end.finish_reason).unwrap().as_str().unwrap())
        }
        Entry::Error(error) => format!("error:{}:{}", error.code.as_str(), error.tokens_sent),
    };
    all(task).await.iter().map(said).collect::<Vec<_>>().join(" ")
}

/// Waits until the task has so many entries.
pub(crate) async fn until_entries(task: &Task, n: u64) {
    let mut follower = task.log().follow(None);
    let read = async {
        for _ in 0..n {
            follower.next().await.expect("the entry comes");
        }
    };
    tokio::time::timeout(patience(), read).await.expect("the entries come");
}

// Paused clocks run on one thread and skip a wait; real ones must not hold up a failing test.
fn patience() -> Duration {
    match tokio::runtime::Handle::current().runtime_flavor() {
        tokio::runtime::RuntimeFlavor::CurrentThread => Duration::from_secs(36_000),
        _ => Duration::from_secs(60),
    }
}

pub(crate) fn id(text: &str) -> TaskId {
    TaskId::try_new(text).unwrap()
}
