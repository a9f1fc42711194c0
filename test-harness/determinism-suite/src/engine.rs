//! One engine, asked directly: over its own protocol, with its own key, past everything of ours.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// What is asked, of whomever.
#[derive(Debug, Clone)]
pub struct Question {
    /// The prompt, as the model's tokenizer gets it.
    pub prompt: &'static str,
    /// The seed.
    pub seed: u32,
    /// 0 is greedy.
    pub temperature: f64,
    /// Where it ends at the latest.
    pub max_tokens: u32,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// SHA-256 over the token ids, as receipts have it.
    pub tokens_sha256: String,
    /// Tokens, with the end token.
    pub tokens: u64,
}

/// A running engine.
#[derive(Debug, Clone)]
pub struct Engine {
    /// Its base URL.
    pub url: String,
    /// Its API key.
    pub key: String,
    /// Its process.
    pub pid: i32,
    /// Its life.
    pub generation: u64,
    http: reqwest::Client,
}

impl Engine {
    /// The engine that a handoff names.
    pub fn of_handoff(handoff: &Value) -> Result<Self> {
        let text = |name: &str| handoff[name].as_str().map(str::to_owned);
        // A connection each: llama-server closes one after a hundred requests.
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build();
        Ok(Self {
            url: text("url").context("the handoff has no url")?,
            key: text("api_key").context("the handoff has no key")?,
            pid: i32::try_from(handoff["pid"].as_i64().context("the handoff has no pid")?)?,
            generation: handoff["generation"].as_u64().context("the handoff has no generation")?,
            http: http.context("building a client")?,
        })
    }

    /// Asks for a whole completion.
    pub async fn answer(&self, question: &Question) -> Result<Answer> {
        let body = json!({
            "prompt": question.prompt, "seed": question.seed, "temperature": question.temperature,
            "n_predict": question.max_tokens, "cache_prompt": false, "return_tokens": true, "stream": false,
        });
        let request = self.http.post(format!("{}/completion", self.url)).bearer_auth(&self.key).json(&body);
        let answer = request.send().await.context("asking the engine")?;
        let status = answer.status();
        let said: Value = answer.json().await.context("reading the engine's answer")?;
        ensure!(status.is_success(), "the engine answered {status}: {said}");
        let ids = said["tokens"].as_array().context("the engine names no tokens")?;
        let ids: Option<Vec<u32>> =
            ids.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect();
        let ids = ids.context("an id is no id")?;
        ensure!(!ids.is_empty(), "the engine names no tokens: {said}");
        Ok(Answer {
            text: said["content"].as_str().context("no content")?.to_owned(),
            tokens_sha256: crate::tokens_sha256(&ids),
            tokens: said["tokens_predicted"].as_u64().context("no count")?,
        })
    }
}
