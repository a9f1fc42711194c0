//! What pool-managerd asks an engine over HTTP: is it healthy, what does it offer, can it complete
//! one token. One connection a question, straight to the loopback address: nothing that a proxy
//! variable, a redirect or a TLS setting elsewhere in the process could change.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

/// Answers are small; anything longer is not an engine.
const ANSWER_LIMIT_BYTES: usize = 4 * 1024 * 1024;

/// The client for one life of one engine.
#[derive(Debug, Clone)]
pub(crate) struct EngineClient {
    addr: SocketAddr,
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

impl EngineClient {
    pub(crate) fn new(port: u16, api_key: String) -> Self {
        Self { addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), api_key }
    }

    pub(crate) async fn health(&self, limit: Duration) -> Health {
        match self.ask(Method::GET, "/health", Bytes::new(), limit).await {
            Ok((status, _)) if status.is_success() => Health::Ready,
            Ok((StatusCode::SERVICE_UNAVAILABLE, _)) => Health::Loading,
            Ok((status, _)) => Health::Down(format!("/health answered {status}")),
            Err(why) => Health::Down(why),
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
        let answer: Answer = understood(self.ask(Method::GET, "/props", Bytes::new(), limit).await?)?;
        let ctx = answer.default_generation_settings.and_then(|s| s.n_ctx);
        Ok(Props { slots: answer.total_slots, ctx })
    }

    /// Slots that generate now.
    pub(crate) async fn busy_slots(&self, limit: Duration) -> Result<u32, String> {
        #[derive(Deserialize)]
        struct Slot {
            is_processing: bool,
        }
        let slots: Vec<Slot> = understood(self.ask(Method::GET, "/slots", Bytes::new(), limit).await?)?;
        let busy = slots.iter().filter(|slot| slot.is_processing).count();
        Ok(u32::try_from(busy).unwrap_or(u32::MAX))
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
        let body = Bytes::from(body.to_string());
        let _answer: Answer = understood(self.ask(Method::POST, "/completion", body, limit).await?)?;
        Ok(())
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<Answered, String> {
        tokio::time::timeout(limit, self.exchange(method, path, body))
            .await
            .unwrap_or_else(|_late| Err("no answer in time".to_owned()))
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<Answered, String> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.addr.to_string())
            .header(header::AUTHORIZATION, format!("Bearer {}", self.api_key))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .body(Full::new(body))
            .map_err(|e| e.to_string())?;
        let stream = TcpStream::connect(self.addr).await.map_err(|e| e.to_string())?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_LIMIT_BYTES).collect().await;
            Ok((status, body.map_err(|e| e.to_string())?.to_bytes()))
        };
        // Both at once: the connection moves only while it is polled, and dies with this call.
        let (answer, _closed) = tokio::join!(answer, connection);
        answer
    }
}

type Answered = (StatusCode, Bytes);

fn understood<T: serde::de::DeserializeOwned>((status, body): Answered) -> Result<T, String> {
    if !status.is_success() {
        let start: String = String::from_utf8_lossy(&body).chars().take(300).collect();
        return Err(format!("it answered {status}: {start}"));
    }
    serde_json::from_slice(&body).map_err(|e| format!("its answer is not understood: {e}"))
}
