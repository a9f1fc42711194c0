//! One generation: what was asked, and the steps that answer it, faults included. It holds its
//! slot; dropping it frees the slot.

use std::future::pending;

use serde_json::Value;
use tokio::time::Instant;

use crate::Faults;
use crate::frames::{self, Dialect};
use crate::server::{Death, Shared};
use crate::slots::Lease;
use crate::words::{Continuation, EOS, tokenize};

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) dialect: Dialect,
    pub(crate) id: String,
    pub(crate) model: String,
    pub(crate) prompt: Vec<u32>,
    pub(crate) prompt_text: String,
    pub(crate) seed: u32,
    pub(crate) limit: Option<u64>,
    pub(crate) stop: Vec<String>,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) return_tokens: bool,
    pub(crate) logprobs: bool,
}

/// One token.
pub(crate) struct Piece {
    pub(crate) id: u32,
    pub(crate) text: String,
    pub(crate) count: u64,
    pub(crate) slot: usize,
}

/// How it ended.
pub(crate) struct End {
    pub(crate) stop_type: &'static str,
    pub(crate) stopping_word: String,
    pub(crate) truncated: bool,
    pub(crate) count: u64,
    pub(crate) slot: usize,
}

/// What comes next.
pub(crate) enum Step {
    Piece(Piece),
    End(End),
    /// Bytes as they are, out of protocol.
    Raw(Vec<u8>),
    /// An `error` event; nothing comes after it.
    Error(Value),
    /// The connection breaks.
    Break,
}

pub(crate) struct Generation {
    pub(crate) plan: Plan,
    shared: Shared,
    lease: Lease,
    words: Continuation,
    text: String,
    /// Bytes of it that were sent.
    sent: usize,
    count: u64,
    ending: Option<(&'static str, String, bool)>,
    garbled: bool,
    /// Which generation of this engine it is, from 1.
    nth: u64,
    /// When the last token was due, where they come to the microsecond.
    due: Option<Instant>,
}

impl Plan {
    /// Reads a request body; the error is the message for a 400.
    pub(crate) fn read(dialect: Dialect, body: &Value, model: &str) -> Result<Self, String> {
        let (prompt, prompt_text) = match dialect {
            Dialect::Native => read_prompt(body.get("prompt").ok_or("key 'prompt' not found")?)?,
            Dialect::Chat => {
                let text = apply_template(body)?;
                (tokenize(&text), text)
            }
        };
        let number = |names: &[&str]| names.iter().find_map(|name| body.get(*name)?.as_i64());
        let greedy = body.get("temperature").and_then(Value::as_f64) == Some(0.0);
        let limit = number(&["n_predict", "max_tokens", "max_completion_tokens"]);
        let stop = match body.get("stop") {
            Some(Value::String(word)) => vec![word.clone()],
            Some(Value::Array(words)) => words.iter().filter_map(|w| w.as_str().map(str::to_owned)).collect(),
            _ => Vec::new(),
        };
        let flag = |value: Option<&Value>| value.and_then(Value::as_bool).unwrap_or(false);
        Ok(Self {
            dialect,
            id: format!("chatcmpl-stub{}", prompt.len()),
            model: model.to_owned(),
            prompt,
            prompt_text,
            // Who always takes the likeliest draws nothing.
            seed: if greedy { 0 } else { number(&["seed"]).unwrap_or(0) as u32 },
            limit: limit.and_then(|n| u64::try_from(n).ok()),
            stop: stop.into_iter().filter(|word| !word.is_empty()).collect(),
            stream: flag(body.get("stream")),
            include_usage: flag(body.pointer("/stream_options/include_usage")),
            return_tokens: flag(body.get("return_tokens")),
            logprobs: flag(body.get("logprobs")),
        })
    }
}

fn read_prompt(prompt: &Value) -> Result<(Vec<u32>, String), String> {
    match prompt {
        Value::String(text) => Ok((tokenize(text), text.clone())),
        Value::Array(parts) => {
            let mut ids = Vec::new();
            for part in parts {
                match part {
                    Value::String(text) => ids.extend(tokenize(text)),
                    Value::Number(_) => {
                        let id = part.as_u64().and_then(|id| u32::try_from(id).ok());
                        ids.push(id.ok_or("\"prompt\" has an invalid token id")?);
                    }
                    _ => return Err("\"prompt\" elements must be strings or token ids".to_owned()),
                }
            }
            Ok((ids, String::new()))
        }
        _ => Err("\"prompt\" must be a string or an array".to_owned()),
    }
}

/// The chat template: plain, and its output is what `/apply-template` shows.
pub(crate) fn apply_template(body: &Value) -> Result<String, String> {
    let messages = body.get("messages").and_then(Value::as_array).ok_or("'messages' is required")?;
    let mut text = String::new();
    for message in messages {
        let role = message.get("role").and_then(Value::as_str).ok_or("Missing 'role' in a message")?;
        text.push_str(&format!("<|{role}|> "));
        match &message["content"] {
            Value::String(content) => text.push_str(content),
            Value::Array(parts) => {
                parts.iter().filter_map(|part| part["text"].as_str()).for_each(|part| text.push_str(part));
            }
            _ => {}
        }
        text.push_str(" \n");
    }
    text.push_str("<|assistant|>");
    Ok(text)
}

impl Generation {
    pub(crate) fn new(plan: Plan, shared: Shared, lease: Lease) -> Self {
        let words = Continuation::new(&plan.prompt, plan.seed);
        let (text, nth) = (String::new(), shared.next_generation());
        Self {
            plan,
            shared,
            lease,
            words,
            text,
            sent: 0,
            count: 0,
            ending: None,
            garbled: false,
            nth,
            due: None,
        }
    }

    pub(crate) fn faults(&self) -> Faults {
        self.shared.faults()
    }

    /// The next step. After `End`, `Error` and `Break` there is none.
    pub(crate) async fn next(&mut self) -> Step {
        let faults = self.shared.faults();
        if self.count == 0 {
            tokio::time::sleep(faults.prefill).await;
            if faults.mute || faults.mute_after.is_some_and(|after| self.nth > after) {
                return pending().await;
            }
        }
        if let Some((stop_type, stopping_word, truncated)) = self.ending.take() {
            self.lease.finish();
            let (count, slot) = (self.count, self.lease.id);
            return Step::End(End { stop_type, stopping_word, truncated, count, slot });
        }
        self.pause(&faults).await;
        if let Some(step) = self.fault().await {
            return step;
        }
        let mut piece = self.token(faults.eos_after == Some(self.count));
        if faults.stamp {
            piece.text = format!("@{} ", frames::micros());
        }
        self.lease.decoded();
        Step::Piece(piece)
    }

    /// The time before a token.
    async fn pause(&mut self, faults: &Faults) {
        if !faults.stamp {
            return tokio::time::sleep(faults.token).await;
        }
        let now = Instant::now();
        // What was not taken in time is not made up for.
        let due = self.due.filter(|last| *last + faults.token > now).unwrap_or(now) + faults.token;
        self.due = Some(due);
        if self.shared.until(due).await.is_err() {
            tokio::time::sleep_until(due).await;
        }
    }

    /// The fault that is due at this token, if any.
    async fn fault(&mut self) -> Option<Step> {
        let faults = self.shared.faults();
        let due = |at: Option<u64>| at == Some(self.count);
        if due(faults.exit_after) {
            return self.shared.die(Death::Exit(1)).await;
        }
        if due(faults.crash_after) {
            return self.shared.die(Death::Abort).await;
        }
        if due(faults.hang_after) {
            return pending().await;
        }
        if due(faults.drop_after) {
            return Some(Step::Break);
        }
        if due(faults.error_after) {
            return Some(Step::Error(frames::error(500, "server_error", "decode: failed, ret = -3")));
        }
        if self.garbled {
            return None;
        }
        if due(faults.invalid_utf8_after) {
            self.garbled = true;
            return Some(Step::Raw(b"data: {\"index\":0,\"content\":\"\xe6\",\"tokens\":[1]}\n\n".to_vec()));
        }
        if due(faults.giant_line_after) {
            self.garbled = true;
            let length = faults.giant_line_bytes.unwrap_or(16 << 20) as usize;
            let text = "x".repeat(length);
            return Some(Step::Raw(format!("data: {{\"content\":\"{text}\",\"stop\":false}}\n\n").into()));
        }
        None
    }

    fn token(&mut self, eos: bool) -> Piece {
        self.count += 1;
        let (id, word) = match self.words.next() {
            Some(word) if !eos => word,
            _ => (EOS, String::new()),
        };
        if self.shared.faults().char_tokens && !word.is_ascii() {
            // Two tokens before this one made no whole character, so nothing was sent of them.
            self.count += 2;
        }
        self.text.push_str(&word);
        let unsent = &self.text[self.sent..];
        let found = self.plan.stop.iter().filter_map(|w| Some((unsent.find(w.as_str())?, w))).min();
        let used = self.plan.prompt.len() as u64 + self.count;
        let send = match found {
            Some((at, _)) => at,
            // As the real server: what may become a stop string is held back, and all before it too.
            None if self.plan.stop.iter().any(|word| may_become(unsent, word)) => 0,
            None => unsent.len(),
        };
        let text = unsent[..send].to_owned();
        self.sent += send;
        if eos {
            self.ending = Some(("eos", String::new(), false));
        } else if let Some((_, word)) = found {
            self.ending = Some(("word", word.clone(), false));
        } else if self.plan.limit.is_some_and(|limit| self.count >= limit) {
            self.ending = Some(("limit", String::new(), false));
        } else if used + 1 >= u64::from(self.shared.slot_ctx()) {
            self.ending = Some(("limit", String::new(), true));
        }
        Piece { id, text, count: self.count, slot: self.lease.id }
    }
}

/// Whether a text ends with the beginning of a stop string.
fn may_become(text: &str, stop: &str) -> bool {
    stop.char_indices().skip(1).any(|(at, _)| text.ends_with(&stop[..at]))
}
