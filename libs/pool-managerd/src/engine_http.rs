//! What pool-managerd asks an engine over HTTP: is it healthy, what does it offer, can it complete
//! one token. Straight to the loopback address: no proxy, no redirect.

use std::time::Duration;

use serde::Deserialize;

/// Answers are small; anything longer is not an engine.
const ANSWER_LIMIT_BYTES: usize = 4 * 1024 * 1024;

/// The client for all engines. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct EngineClients(reqwest::Client);

/// The client for one life of one engine.
#[derive(Debug, Clone)]
pub(crate) struct EngineClient {
    http: reqwest::Client,
    url: String,
    api_key: String,
}

/// What `/health` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    /// 200.
    Ready,
    /// 503: it loads its model.
    Loading,
    /// No answer, or another one.
    Down(String),
}

/// What `/props` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Props {
    pub(crate) slots: Option<u32>,
    pub(crate) ctx: Option<u32>,
}

impl EngineClients {
    pub(crate) fn new() -> Result<Self, reqwest::Error> {
        let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        Ok(Self(builder.pool_max_idle_per_host(1).build()?))
    }

    pub(crate) fn of(&self, url: String, api_key: String) -> EngineClient {
        EngineClient { http: self.0.clone(), url, api_key }
    }
}

impl EngineClient {
    pub(crate) async fn health(&self, limit: Duration) -> Health {
        match self.http.get(format!("{}/health", self.url)).timeout(limit).send().await {
            Ok(answer) if answer.status().is_success() => Health::Ready,
            Ok(answer) if answer.status() == reqwest::StatusCode::SERVICE_UNAVAILABLE => Health::Loading,
            Ok(answer) => Health::Down(format!("/health answered {}", answer.status())),
            Err(error) => Health::Down(plain(&error)),
        }
    }

    pub(crate) async fn props(&self, limit: Duration) -> Result<Props, String> {
        #[derive(Deserialize)]
        struct Answer {
            total_slots: Option<u32>,
            default_generation_settings: Option<Settings>,
        }
        #[derive(Deserialize)]
        struct Settings {
            n_ctx: Option<u32>,
        }
        let request = self.http.get(format!("{}/props", self.url)).bearer_auth(&self.api_key);
        let answer: Answer = json(request.timeout(limit)).await?;
        let ctx = answer.default_generation_settings.and_then(|s| s.n_ctx);
        Ok(Props { slots: answer.total_slots, ctx })
    }

    /// One real token. The text is not looked at: a model may begin with anything.
    pub(crate) async fn complete_one_token(&self, limit: Duration) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(rename = "content")]
            _content: String,
        }
        let body = serde_json::json!({
            "prompt": " ", "n_predict": 1, "cache_prompt": false, "stream": false, "temperature": 0.0,
        });
        let request = self.http.post(format!("{}/completion", self.url)).bearer_auth(&self.api_key);
        let _answer: Answer = json(request.json(&body).timeout(limit)).await?;
        Ok(())
    }
}

async fn json<T: serde::de::DeserializeOwned>(request: reqwest::RequestBuilder) -> Result<T, String> {
    let mut answer = request.send().await.map_err(|e| plain(&e))?;
    let status = answer.status();
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|e| plain(&e))? {
        body.extend_from_slice(&piece);
        if body.len() > ANSWER_LIMIT_BYTES {
            return Err(format!("the answer is longer than {ANSWER_LIMIT_BYTES} bytes"));
        }
    }
    if !status.is_success() {
        let start: String = String::from_utf8_lossy(&body).chars().take(300).collect();
        return Err(format!("it answered {status}: {start}"));
    }
    serde_json::from_slice(&body).map_err(|e| format!("its answer is not understood: {e}"))
}

/// The error with its causes and without the URL, which the reader knows.
fn plain(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut text = String::new();
    let mut next: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(cause) = next {
        text = cause.to_string();
        next = cause.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}
