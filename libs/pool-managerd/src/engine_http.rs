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

use crate::progress::SlotSeen;

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

/// What `/slots` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Slots {
    /// Every slot.
    Seen(Vec<SlotSeen>),
    /// No answer in time.
    Silent,
    /// An answer, but not one that is understood; asking again will not help.
    Unreadable(String),
}

/// What `/completion` says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Completed {
    /// Empty where the engine does not say.
    #[serde(default)]
    pub(crate) tokens: Vec<u32>,
    pub(crate) content: String,
    /// In the engine's own shape; null where it does not say.
    #[serde(default, rename = "completion_probabilities")]
    pub(crate) probabilities: serde_json::Value,
}

impl EngineClient {
    pub(crate) fn new(port: u16, api_key: String) -> Self {
        Self { addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), api_key }
    }

    /// Any server that has a `/health`, as the manager's own API.
    pub(crate) fn at(addr: SocketAddr) -> Self {
        Self { addr, api_key: String::new() }
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

    /// What every slot does now.
    pub(crate) async fn slots(&self, limit: Duration) -> Slots {
        let Ok(answered) = self.ask(Method::GET, "/slots", Bytes::new(), limit).await else {
            return Slots::Silent;
        };
        match understood::<Vec<SlotAnswer>>(answered) {
            Ok(slots) => Slots::Seen(slots.into_iter().map(SlotAnswer::seen).collect()),
            Err(why) => Slots::Unreadable(why),
        }
    }

    /// Slots that generate now.
    pub(crate) async fn busy_slots(&self, limit: Duration) -> Result<u32, String> {
        match self.slots(limit).await {
            Slots::Seen(slots) => {
                let busy = slots.iter().filter(|slot| slot.busy).count();
                Ok(u32::try_from(busy).unwrap_or(u32::MAX))
            }
            Slots::Silent => Err("/slots was not answered in time".to_owned()),
            Slots::Unreadable(why) => Err(why),
        }
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

    /// One real vector of a text. An engine that makes one of each token has none, and says so.
    pub(crate) async fn embed_one_text(&self, limit: Duration) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Answer {
            data: Vec<Vector>,
        }
        #[derive(Deserialize)]
        struct Vector {
            embedding: Vec<f64>,
        }
        let body = Bytes::from(serde_json::json!({"input": "a"}).to_string());
        let answer: Answer = understood(self.ask(Method::POST, "/v1/embeddings", body, limit).await?)?;
        match answer.data.first() {
            Some(vector) if !vector.embedding.is_empty() => Ok(()),
            _ => Err("its answer holds no vector".to_owned()),
        }
    }

    /// One real score of a text.
    pub(crate) async fn rank_one_text(&self, limit: Duration) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Answer {
            results: Vec<serde::de::IgnoredAny>,
        }
        let body = Bytes::from(serde_json::json!({"query": "a", "documents": ["b"]}).to_string());
        let answer: Answer = understood(self.ask(Method::POST, "/v1/rerank", body, limit).await?)?;
        if answer.results.is_empty() { Err("its answer holds no score".to_owned()) } else { Ok(()) }
    }

    /// A whole completion, with its tokens and their probabilities as far as the engine says them.
    pub(crate) async fn complete(
        &self,
        body: &serde_json::Value,
        limit: Duration,
    ) -> Result<Completed, String> {
        let body = Bytes::from(body.to_string());
        understood(self.ask(Method::POST, "/completion", body, limit).await?)
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

/// A slot in the engine's words. One that has never worked has none of the counts.
#[derive(Deserialize)]
struct SlotAnswer {
    id: u32,
    is_processing: bool,
    id_task: Option<i64>,
    #[serde(default)]
    n_prompt_tokens_processed: u32,
    #[serde(default)]
    next_token: Vec<NextToken>,
}

#[derive(Deserialize)]
struct NextToken {
    n_decoded: u32,
}

impl SlotAnswer {
    fn seen(self) -> SlotSeen {
        SlotSeen {
            id: self.id,
            busy: self.is_processing,
            task: self.id_task.unwrap_or(-1),
            processed: self.n_prompt_tokens_processed,
            decoded: self.next_token.iter().map(|next| next.n_decoded).max().unwrap_or(0),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// As llama-server 0.3.36 answers: a slot that works, and one that never has.
    #[test]
    fn slots_are_read_in_the_engines_words() {
        let answer = br#"[
            {"id":0,"n_ctx":256,"speculative":false,"is_processing":true,"id_task":7,"n_prompt_tokens":31,
             "n_prompt_tokens_processed":12,"n_prompt_tokens_cache":0,"params":{"seed":1},
             "next_token":[{"has_next_token":true,"has_new_line":false,"n_remain":81,"n_decoded":19}]},
            {"id":1,"n_ctx":256,"speculative":false,"is_processing":false}
        ]"#;
        let slots: Vec<SlotAnswer> = understood((StatusCode::OK, Bytes::from_static(answer))).unwrap();
        let seen: Vec<SlotSeen> = slots.into_iter().map(SlotAnswer::seen).collect();
        assert_eq!(seen[0], SlotSeen { id: 0, busy: true, task: 7, processed: 12, decoded: 19 });
        assert_eq!(seen[1], SlotSeen { id: 1, busy: false, task: -1, processed: 0, decoded: 0 });
    }
}
