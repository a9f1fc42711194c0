//! The adapter: one engine's address and key, and the calls that dispatch may make.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use adapter_host::{
    BoxFuture, ChatRequest, CompletionRequest, EngineRequest, ProbeError, Probed, Prompt, SubmitError,
    TokenStream, WorkerAdapter,
};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wire::TraceContext;

use crate::{chat, completion, once, refusal, request, stream};

/// The engine is on this machine; a connection that takes longer is not coming.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Silence after which a connection is dead. Only a backstop: the engine pings every 30 s, and
/// dispatch has its own, shorter limits.
const READ_TIMEOUT: Duration = Duration::from_secs(120);
/// Shorter than the 5 s after which llama-server closes an idle connection, so that no request is
/// written into one that is closing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// A rendered prompt is the largest whole body there is.
const MAX_BODY_BYTES: usize = 64 << 20;

/// An engine behind llama-server's HTTP protocol.
pub struct LlamaCpp {
    client: Client,
    base: Url,
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
    /// The HTTP client could not be set up.
    #[error("cannot set up an HTTP client for {url}")]
    Client {
        /// The engine.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
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
        let base =
            parse_base(url).ok_or_else(|| NewError::Address { url: url.chars().take(100).collect() })?;
        let mut headers = HeaderMap::new();
        if let Some(key) = api_key {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| NewError::Key)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let client = Client::builder()
            // A proxy variable would send even 127.0.0.1 through it, and the key with it.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true)
            .http1_only()
            .build()
            .map_err(|source| NewError::Client { url: base.to_string(), source })?;
        Ok(Self { client, base })
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
                let body = request::ApplyTemplate { messages };
                rendered = self.call::<Template>("/apply-template", &body, trace).await?.prompt;
                &rendered
            }
        };
        let response = self.post("/completion", &request::Completion::new(&request, prompt), trace).await?;
        Ok(stream::tokens(response, completion::Completion::default()))
    }

    async fn chat(
        &self,
        request: ChatRequest,
        trace: Option<&TraceContext>,
    ) -> Result<TokenStream, SubmitError> {
        let response = self.post("/v1/chat/completions", &request::Chat::new(&request), trace).await?;
        Ok(stream::tokens(response, chat::Chat::default()))
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
        let unreachable = |error: reqwest::Error| ProbeError::Unreachable(why(&error));
        let health = self.client.get(self.path("/health")).send().await.map_err(unreachable)?;
        match health.status() {
            StatusCode::OK => {}
            StatusCode::SERVICE_UNAVAILABLE => return Err(ProbeError::Loading),
            status => return Err(ProbeError::Unreachable(format!("it answered /health with {status}"))),
        }
        let response = self.client.get(self.path("/props")).send().await.map_err(unreachable)?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(ProbeError::Unreachable(format!("it answered /props with {status}")));
        }
        let props: Props = whole(response, "/props").await.map_err(ProbeError::Unreachable)?;
        Ok(Probed {
            slots_total: props.total_slots,
            ctx: props.default_generation_settings.n_ctx,
            chat_template_sha256: props.chat_template.map(|template| sha256_hex(template.as_bytes())),
        })
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
    ) -> Result<Response, SubmitError> {
        let lost = |error: reqwest::Error| SubmitError::Lost(unanswered(path, &error));
        let mut request = self.client.post(self.path(path)).json(body);
        if let Some(trace) = trace {
            request = request.header("traceparent", trace.traceparent());
            if let Some(state) = trace.tracestate() {
                request = request.header("tracestate", state);
            }
        }
        let response = request.send().await.map_err(lost)?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response);
        }
        let body = read(response).await.map_err(SubmitError::Lost)?;
        Err(refusal::read(path, status.as_u16(), &body))
    }

    fn path(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(path);
        url
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
        Box::pin(async move {
            let counted: Tokens = self.call("/tokenize", &request::Tokenize { content: text }, trace).await?;
            Ok(counted.tokens.len() as u64)
        })
    }
}

impl fmt::Debug for LlamaCpp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LlamaCpp").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

fn parse_base(url: &str) -> Option<Url> {
    let base = Url::parse(url).ok()?;
    let plain = base.scheme() == "http"
        && base.port_or_known_default().is_some()
        && base.username().is_empty()
        && base.password().is_none()
        && base.path() == "/"
        && base.query().is_none()
        && base.fragment().is_none()
        // A name would be asked of a resolver, which may answer otherwise tomorrow.
        && base.host_str()?.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    plain.then_some(base)
}

fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn whole<T: DeserializeOwned>(response: Response, path: &str) -> Result<T, String> {
    let body = read(response).await?;
    serde_json::from_slice(&body).map_err(|_| format!("its answer to {path} is not llama-server's"))
}

/// Reads a body up to a bound.
async fn read(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(bytes) = response.chunk().await.map_err(|error| broken(&error))? {
        if body.len() + bytes.len() > MAX_BODY_BYTES {
            return Err(format!("its answer is larger than {MAX_BODY_BYTES} bytes"));
        }
        body.extend_from_slice(&bytes);
    }
    Ok(body)
}

/// Why a request got no answer, for whoever waits for it: an HTTP library's own words tell them
/// nothing. Those are for whoever debugs.
fn unanswered(path: &str, error: &reqwest::Error) -> String {
    tracing::debug!(path, error = %why(error), "an engine did not answer");
    if error.is_connect() {
        "nobody answers at its address".to_owned()
    } else if error.is_timeout() {
        format!("it did not answer {path} in time")
    } else {
        format!("its connection broke before it answered {path}")
    }
}

pub(crate) fn broken(error: &reqwest::Error) -> String {
    tracing::debug!(error = %why(error), "an engine's answer broke off");
    "its connection broke in the middle of the answer".to_owned()
}

/// The whole chain of an HTTP error: reqwest keeps the cause out of its own text.
fn why(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
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
        assert!(!format!("{adapter:?} {:?}", adapter.client).contains("topsecret"));
        assert!(matches!(LlamaCpp::new("http://127.0.0.1:1", Some("a\nb")), Err(NewError::Key)));
    }
}
