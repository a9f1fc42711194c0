//! The adapter: one engine's address and key, and the calls that dispatch may make.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use adapter_host::{
    BoxFuture, ChatRequest, CompletionRequest, EngineRequest, ProbeError, Probed, Prompt, SubmitError,
    TokenStream, WorkerAdapter,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wire::TraceContext;

use crate::http1::{Answer, Body, Connections, Unanswered, can_be_sent};
use crate::{chat, completion, once, refusal, request, stream};

/// A rendered prompt is the largest whole body there is.
const MAX_BODY_BYTES: usize = 64 << 20;

/// An engine behind llama-server's HTTP protocol.
pub struct LlamaCpp {
    engine: Connections,
}

/// Why an adapter cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// The address is not an engine's.
    #[error("{url:?} is not an engine's address; it must be http://ADDRESS:PORT with nothing after it")]
    Address {
        /// What was given.
        url: String,
    },
    /// The key cannot be sent in a header.
    #[error("the engine's API key has characters that HTTP cannot carry")]
    Key,
}

#[derive(Deserialize)]
struct Template {
    prompt: String,
}

#[derive(Deserialize)]
struct Tokens {
    tokens: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Props {
    #[serde(default)]
    total_slots: Option<u32>,
    #[serde(default)]
    default_generation_settings: Settings,
    #[serde(default)]
    chat_template: Option<String>,
}

#[derive(Default, Deserialize)]
struct Settings {
    #[serde(default)]
    n_ctx: Option<u32>,
}

impl LlamaCpp {
    /// An adapter for the engine at `url` (`http://ADDRESS:PORT`). Connects to nothing yet.
    ///
    /// Whether the address may be spoken to at all is decided where it came from.
    pub fn new(url: &str, api_key: Option<&str>) -> Result<Self, NewError> {
        let addr =
            parse_base(url).ok_or_else(|| NewError::Address { url: url.chars().take(100).collect() })?;
        if api_key.is_some_and(|key| !can_be_sent(key)) {
            return Err(NewError::Key);
        }
        Ok(Self { engine: Connections::new(addr, api_key) })
    }

    async fn complete(
        &self,
        request: CompletionRequest,
        trace: Option<&TraceContext>,
    ) -> Result<TokenStream, SubmitError> {
        let rendered;
        let prompt = match &request.prompt {
            Prompt::Text(text) => text,
            Prompt::Messages(messages) => {
                let body = request::ApplyTemplate::of_messages(messages);
                rendered = self.call::<Template>("/apply-template", &body, trace).await?.prompt;
                &rendered
            }
        };
        let body = self.post("/completion", &request::Completion::new(&request, prompt), trace).await?;
        Ok(stream::tokens(body, completion::Completion::default()))
    }

    async fn chat(
        &self,
        request: ChatRequest,
        trace: Option<&TraceContext>,
    ) -> Result<TokenStream, SubmitError> {
        let body = self.post("/v1/chat/completions", &request::Chat::new(&request), trace).await?;
        Ok(stream::tokens(body, chat::Chat::default()))
    }

    /// A request whose whole answer comes at once.
    async fn once(
        &self,
        path: &str,
        body: &impl Serialize,
        trace: Option<&TraceContext>,
    ) -> Result<TokenStream, SubmitError> {
        let body = read(self.post(path, body, trace).await?).await.map_err(SubmitError::Lost)?;
        once::answer(path, body).map_err(SubmitError::Lost)
    }

    async fn ask(&self) -> Result<Probed, ProbeError> {
        match self.get("/health").await?.status {
            200 => {}
            503 => return Err(ProbeError::Loading),
            status => return Err(ProbeError::Unreachable(format!("it answered /health with {status}"))),
        }
        let answer = self.get("/props").await?;
        if answer.status != 200 {
            let status = answer.status;
            return Err(ProbeError::Unreachable(format!("it answered /props with {status}")));
        }
        let props: Props = whole(answer.body, "/props").await.map_err(ProbeError::Unreachable)?;
        Ok(Probed {
            slots_total: props.total_slots,
            ctx: props.default_generation_settings.n_ctx,
            chat_template_sha256: props.chat_template.map(|template| sha256_hex(template.as_bytes())),
        })
    }

    async fn get(&self, path: &str) -> Result<Answer, ProbeError> {
        let answer = self.engine.get(path).await;
        answer.map_err(|error| ProbeError::Unreachable(error.to_string()))
    }

    async fn tokenize(
        &self,
        body: request::Tokenize<'_>,
        trace: Option<&TraceContext>,
    ) -> Result<u64, SubmitError> {
        let counted: Tokens = self.call("/tokenize", &body, trace).await?;
        Ok(counted.tokens.len() as u64)
    }

    /// A call whose answer is one JSON body.
    async fn call<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        trace: Option<&TraceContext>,
    ) -> Result<T, SubmitError> {
        whole(self.post(path, body, trace).await?, path).await.map_err(SubmitError::Lost)
    }

    /// Sends a request; anything but 200 is an error.
    async fn post(
        &self,
        path: &str,
        body: &impl Serialize,
        trace: Option<&TraceContext>,
    ) -> Result<Body, SubmitError> {
        let lost = |why: String| SubmitError::Lost(why);
        let json = serde_json::to_vec(body)
            .map_err(|error| lost(format!("the request to {path} cannot be written as JSON: {error}")))?;
        let traceparent = trace.map(TraceContext::traceparent);
        let headers = [
            ("traceparent", traceparent.as_deref()),
            ("tracestate", trace.and_then(|trace| trace.tracestate())),
        ];
        let answer = self.engine.post(path, &headers, &json).await;
        let answer = answer.map_err(|error| lost(unanswered(path, &error)))?;
        if answer.status == 200 {
            return Ok(answer.body);
        }
        let body = read(answer.body).await.map_err(lost)?;
        Err(refusal::read(path, answer.status, &body))
    }
}

impl WorkerAdapter for LlamaCpp {
    fn submit(
        &self,
        request: EngineRequest,
        trace: Option<TraceContext>,
    ) -> BoxFuture<'_, Result<TokenStream, SubmitError>> {
        Box::pin(async move {
            let trace = trace.as_ref();
            match request {
                EngineRequest::Completion(request) => self.complete(request, trace).await,
                EngineRequest::Chat(request) => self.chat(*request, trace).await,
                EngineRequest::Embedding(request) => {
                    self.once("/v1/embeddings", &once::Embedding::new(&request), trace).await
                }
                EngineRequest::Rerank(request) => {
                    self.once("/v1/rerank", &once::Rerank::new(&request), trace).await
                }
            }
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<Probed, ProbeError>> {
        Box::pin(self.ask())
    }

    fn count_tokens<'a>(
        &'a self,
        text: &'a str,
        trace: Option<&'a TraceContext>,
    ) -> BoxFuture<'a, Result<u64, SubmitError>> {
        Box::pin(self.tokenize(request::Tokenize { content: text, add_special: false }, trace))
    }

    fn count_chat<'a>(
        &'a self,
        chat: &'a ChatRequest,
        trace: Option<&'a TraceContext>,
    ) -> BoxFuture<'a, Result<u64, SubmitError>> {
        Box::pin(async move {
            let body = request::ApplyTemplate::of_chat(chat);
            let prompt = self.call::<Template>("/apply-template", &body, trace).await?.prompt;
            self.tokenize(request::Tokenize { content: &prompt, add_special: true }, trace).await
        })
    }
}

impl fmt::Debug for LlamaCpp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LlamaCpp").field("addr", &self.engine.addr()).finish_non_exhaustive()
    }
}

fn parse_base(url: &str) -> Option<SocketAddr> {
    let authority = url.strip_prefix("http://")?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    // A name would be asked of a resolver, which may answer otherwise tomorrow.
    let ip = || authority.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    authority.parse().ok().or_else(|| Some(SocketAddr::new(ip()?, 80)))
}

fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn whole<T: DeserializeOwned>(body: Body, path: &str) -> Result<T, String> {
    let body = read(body).await?;
    serde_json::from_slice(&body).map_err(|_| format!("its answer to {path} is not llama-server's"))
}

/// Reads a body up to a bound.
async fn read(body: Body) -> Result<Vec<u8>, String> {
    let whole = body.whole(MAX_BODY_BYTES).await.map_err(|error| broken(&error))?;
    whole.ok_or_else(|| format!("its answer is larger than {MAX_BODY_BYTES} bytes"))
}

/// Why a request got no answer, for whoever waits for it: the system's own words tell them nothing.
/// Those are for whoever debugs.
fn unanswered(path: &str, error: &Unanswered) -> String {
    tracing::debug!(path, %error, "an engine did not answer");
    match error {
        Unanswered::Connect(_) => "nobody answers at its address".to_owned(),
        Unanswered::Silent => format!("it did not answer {path} in time"),
        Unanswered::Broken(_) => format!("its connection broke before it answered {path}"),
        Unanswered::Closed(_) => format!("it closed the connection before it answered {path}"),
        Unanswered::NotHttp => format!("it answered {path} with what is not HTTP"),
    }
}

pub(crate) fn broken(error: &Unanswered) -> String {
    tracing::debug!(%error, "an engine's answer broke off");
    "its connection broke in the middle of the answer".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_http_address_is_taken() {
        for good in ["http://127.0.0.1:8080", "http://127.0.0.1:8080/", "http://[::1]:9"] {
            assert!(LlamaCpp::new(good, None).is_ok(), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1:1",
            "https://127.0.0.1:1",
            "http://localhost:1",
            "http://u@127.0.0.1:1",
            "http://127.0.0.1:1/x",
            "http://127.0.0.1:1?a",
        ] {
            assert!(matches!(LlamaCpp::new(bad, None), Err(NewError::Address { .. })), "{bad}");
        }
    }

    #[test]
    fn the_key_is_never_shown() {
        let adapter = LlamaCpp::new("http://127.0.0.1:1", Some("topsecret")).unwrap();
        assert!(!format!("{adapter:?}").contains("topsecret"));
        assert!(matches!(LlamaCpp::new("http://127.0.0.1:1", Some("a\nb")), Err(NewError::Key)));
    }
}
