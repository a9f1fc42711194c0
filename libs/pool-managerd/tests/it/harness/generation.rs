//! Engines, asked directly: a client of them, and a generation on one.

use wire::Handoff;

use super::DEADLINE;

/// A client of engines; what the manager answers is held against its contract.
pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// A generation that runs on an engine, read to its end by a task.
pub(crate) struct Generation {
    text: tokio::task::JoinHandle<String>,
}

impl Generation {
    /// Returns when its first token is there.
    pub(crate) async fn begin(handoff: &Handoff, tokens: u32) -> Self {
        let body = serde_json::json!({"prompt": "x", "n_predict": tokens, "stream": true});
        let request = client().post(format!("{}/completion", handoff.url)).json(&body);
        let request = request.bearer_auth(handoff.api_key.as_ref().unwrap());
        let mut answer = request.send().await.unwrap().error_for_status().unwrap();
        let mut text = String::new();
        while !text.contains("data:") {
            text.push_str(&String::from_utf8_lossy(&answer.chunk().await.unwrap().unwrap()));
        }
        let text = tokio::spawn(async move {
            while let Ok(Some(bytes)) = answer.chunk().await {
                text.push_str(&String::from_utf8_lossy(&bytes));
            }
            text
        });
        Self { text }
    }

    pub(crate) fn runs(&self) -> bool {
        !self.text.is_finished()
    }

    /// Whether the engine ended it in order, once it has ended.
    pub(crate) async fn was_whole(self) -> bool {
        tokio::time::timeout(DEADLINE, self.text).await.unwrap().unwrap().contains("\"stop\":true")
    }
}
