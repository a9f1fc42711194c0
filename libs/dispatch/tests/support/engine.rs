//! An engine that does what a script says.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adapter_host::{
    BoxFuture, ChatRequest, CompletionRequest, EngineItem, EngineRequest, Finished, ProbeError, Probed,
    Prompt, SoFar, StreamFault, SubmitError, TokenStream, WorkerAdapter,
};
use wire::event::FinishReason;
use wire::{EngineChunk, ErrorBody, ErrorCode, TraceContext};

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
    EngineChunk { text: format!("t{n} "), tokens: vec![n], ..EngineChunk::default() }
}

fn role() -> EngineChunk {
    let raw = r#"{"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}]}"#;
    EngineChunk { raw: Some(wire::RawJson::parse(raw).unwrap()), ..EngineChunk::default() }
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
