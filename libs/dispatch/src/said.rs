//! What a task has said so far: counted for its owner, hashed for its receipt, and kept as the engine
//! must be told it that goes on when this one is lost.
//!
//! Ids without text are held apart: an engine sends them while a text may still become a stop string
//! or a whole character. Nobody has seen them, so whoever goes on says them again.

use adapter_host::{EngineRequest, SoFar};
use serde_json::Value;
use sha2::{Digest, Sha256};
use wire::EngineChunk;
use wire::event::SeamBy;

#[derive(Debug, Default)]
pub(crate) struct Said {
    /// Something was generated, not only announced.
    pub(crate) spoken: bool,
    shown: Tokens,
    held: Tokens,
    text: String,
}

#[derive(Debug, Default)]
struct Tokens {
    ids: Vec<u32>,
    /// Tokens whose ids nobody said.
    unnamed: u64,
}

impl Tokens {
    fn count(&self) -> u64 {
        self.ids.len() as u64 + self.unnamed
    }

    fn take(&mut self, ids: &[u32], unnamed: u64) {
        self.ids.extend_from_slice(ids);
        self.unnamed += unnamed;
    }
}

impl Said {
    pub(crate) fn see(&mut self, chunk: &EngineChunk) {
        self.spoken = self.spoken || says_something(chunk);
        let unnamed = if chunk.tokens.is_empty() && chunk.unnamed == 0 {
            // A protocol without ids sends about one token per piece of text.
            u64::from(!chunk.text.is_empty())
        } else {
            u64::from(chunk.unnamed)
        };
        if chunk.text.is_empty() {
            self.held.take(&chunk.tokens, unnamed);
            return;
        }
        self.text.push_str(&chunk.text);
        if self.held.count() > 0 {
            let held = std::mem::take(&mut self.held);
            self.shown.take(&held.ids, held.unnamed);
        }
        self.shown.take(&chunk.tokens, unnamed);
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Every token, where the engine named all of them.
    pub(crate) fn ids(&self) -> Option<Vec<u32>> {
        let named = self.shown.unnamed + self.held.unnamed == 0;
        named.then(|| self.shown.ids.iter().chain(&self.held.ids).copied().collect())
    }

    /// Tokens so far.
    pub(crate) fn count(&self) -> u64 {
        self.shown.count() + self.held.count()
    }

    /// SHA-256 (hex) over the ids, each as four little-endian bytes; empty where there are none of
    /// `of` tokens to hash: the hash of nothing would claim that two different texts are the same.
    pub(crate) fn sha256(&self, of: u64) -> String {
        let mut ids = self.shown.ids.iter().chain(&self.held.ids).peekable();
        if ids.peek().is_none() && of > 0 {
            return String::new();
        }
        let mut digest = Sha256::new();
        ids.for_each(|id| digest.update(id.to_le_bytes()));
        hex(&digest.finalize())
    }

    /// Forgets what nobody has seen: it is said again. A task that has shown nothing begins anew.
    pub(crate) fn drop_held(&mut self) {
        self.held = Tokens::default();
        self.spoken = !self.text.is_empty();
    }

    /// What the next engine is given.
    pub(crate) fn so_far(&self) -> SoFar {
        match self.goes_on_by() {
            None => SoFar::Nothing,
            Some(SeamBy::Ids) => SoFar::Ids(self.shown.ids.clone()),
            Some(SeamBy::Text) => SoFar::Text(self.text.clone()),
        }
    }

    /// As what it is given it; `None` while there is nothing to give.
    pub(crate) fn goes_on_by(&self) -> Option<SeamBy> {
        match (self.text.is_empty(), self.shown.unnamed) {
            (true, _) => None,
            (false, 0) => Some(SeamBy::Ids),
            (false, _) => Some(SeamBy::Text),
        }
    }

    /// Tokens that may still come; `None` without a limit.
    pub(crate) fn left(&self, request: &EngineRequest) -> Option<u32> {
        let EngineRequest::Completion(completion) = request else { return None };
        let max = u64::from(completion.sampling.max_tokens?);
        Some(u32::try_from(max.saturating_sub(self.shown.count())).unwrap_or(u32::MAX))
    }
}

/// Whether a chunk holds anything generated. A chat begins with one that names only the role; it
/// has no text and no ids, and what it holds else stands in its delta.
fn says_something(chunk: &EngineChunk) -> bool {
    if !chunk.text.is_empty() || !chunk.tokens.is_empty() {
        return true;
    }
    let Ok(raw) = serde_json::from_str::<Value>(chunk.raw()) else { return true };
    let Some(choice) = raw.pointer("/choices/0") else { return false };
    let empty = |value: &Value| value.is_null() || value.as_str() == Some("");
    let announces = |(name, value): (&String, &Value)| name == "role" || empty(value);
    let delta = choice.get("delta").and_then(Value::as_object);
    let ended = choice.get("finish_reason").is_some_and(|reason| !reason.is_null());
    ended || delta.is_some_and(|delta| !delta.iter().all(announces))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('?');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use adapter_host::{CompletionRequest, Prompt, Sampling};
    use wire::RawJson;

    use super::*;

    fn chunk(text: &str, tokens: &[u32], unnamed: u32) -> EngineChunk {
        EngineChunk { text: text.to_owned(), tokens: tokens.to_vec(), unnamed, ..EngineChunk::default() }
    }

    fn said(chunks: &[(&str, &[u32], u32)]) -> Said {
        let mut said = Said::default();
        chunks.iter().for_each(|(text, ids, unnamed)| said.see(&chunk(text, ids, *unnamed)));
        said
    }

    #[test]
    fn the_hash_is_over_the_ids_as_four_little_endian_bytes() {
        let said = said(&[("a", &[1, 2], 0), ("", &[256], 0)]);
        // printf '\1\0\0\0\2\0\0\0\0\1\0\0' | sha256sum
        assert_eq!(said.sha256(3), "4cce4ffd3b07ffb2139196f2e9112a30f970eae20aa98e082c020c9118bc3a4c");
    }

    #[test]
    fn text_without_ids_is_counted_and_has_no_hash() {
        let said = said(&[("a", &[], 0)]);
        assert_eq!((said.count(), said.sha256(1).as_str()), (1, ""));
    }

    /// ORCHD-RESUME-003
    #[test]
    fn an_engine_that_goes_on_gets_the_ids_when_it_can_and_else_the_text() {
        assert_eq!(said(&[]).so_far(), SoFar::Nothing);
        assert_eq!(said(&[("a", &[1], 0), ("b", &[2], 0)]).so_far(), SoFar::Ids(vec![1, 2]));
        assert_eq!(said(&[("a", &[1], 0), ("日", &[2], 2)]).so_far(), SoFar::Text("a日".to_owned()));
        assert_eq!(said(&[("a", &[], 0)]).so_far(), SoFar::Text("a".to_owned()));
    }

    /// ORCHD-RESUME-004
    #[test]
    fn what_was_held_back_is_said_again_and_not_counted_twice() {
        let mut said = said(&[("a", &[1], 0), ("", &[2], 0), ("bc", &[3], 0), ("", &[4], 0), ("", &[5], 0)]);
        assert_eq!(said.count(), 5);
        said.drop_held();
        assert_eq!((said.count(), said.so_far()), (3, SoFar::Ids(vec![1, 2, 3])));
        let sampling = Sampling { max_tokens: Some(4), ..Sampling::default() };
        let request = EngineRequest::Completion(CompletionRequest {
            prompt: Prompt::Text(String::new()),
            sampling,
            cache_prompt: false,
            so_far: SoFar::Nothing,
        });
        assert_eq!(said.left(&request), Some(1));
    }

    #[test]
    fn what_was_only_held_back_was_never_said() {
        let mut said = said(&[("", &[1], 0)]);
        assert!(said.spoken);
        said.drop_held();
        assert!(!said.spoken);
    }

    /// ORCHD-GATE-002
    #[test]
    fn a_chunk_that_only_announces_says_nothing() {
        for (delta, says) in [
            (r#"{"role":"assistant","content":null}"#, false),
            (r#"{"role":"assistant","content":""}"#, false),
            (r#"{}"#, false),
            (r#"{"reasoning_content":"hm"}"#, true),
            (r#"{"role":"assistant","tool_calls":[{"index":0}]}"#, true),
        ] {
            let raw = format!(r#"{{"choices":[{{"index":0,"finish_reason":null,"delta":{delta}}}]}}"#);
            let raw = Some(RawJson::parse(&raw).unwrap());
            assert_eq!(says_something(&EngineChunk { raw, ..chunk("", &[], 0) }), says, "{delta}");
        }
        let raw = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
        let raw = Some(RawJson::parse(raw).unwrap());
        assert!(says_something(&EngineChunk { raw, ..chunk("", &[], 0) }));
    }
}
