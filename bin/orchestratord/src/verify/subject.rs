//! What is verified: a receipt, and what asks for the same again.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};
use wire::task::OnInterrupt;
use wire::{Receipt, TaskRequest};

use crate::cli::VerifyArgs;
use crate::exit::{CONFIG, Fatal};
use crate::run::client::Client;

/// What is verified.
pub(super) struct Subject {
    pub(super) receipt: Receipt,
    pub(super) request: TaskRequest,
    /// The answer of then, where it was kept.
    pub(super) text: Option<String>,
    pub(super) tokens_out: Option<u64>,
    /// What its reader should know before they compare.
    pub(super) notes: Vec<String>,
}

impl Subject {
    pub(super) async fn read(client: &Client, args: &VerifyArgs) -> Result<Self> {
        let mut document = named(client, &args.receipt).await?;
        let receipt = receipt_in(&document).ok_or_else(|| {
            Fatal::new(CONFIG, format!("{} holds no receipt: it comes with a task's `end`", args.receipt))
        })?;
        if document.get("request").is_none()
            && args.request.is_none()
            && let Some(sha256) = &receipt.transcript_sha256
        {
            document = client.artifact(sha256).await.context("reading the receipt's transcript")?;
        }
        let mut notes = Vec::new();
        let asked = match &args.request {
            Some(file) => Some(given(file, &receipt, &mut notes)?),
            None => document.get("request").cloned(),
        };
        let Some(asked) = asked else {
            let message = "a receipt does not hold what was asked; give the body that submitted the task with \
                           --request, or ask for tasks with \"transcript\": true";
            return Err(Fatal::new(CONFIG, message).into());
        };
        let asked: TaskRequest = serde_json::from_value(asked).context("reading what was asked")?;
        notes.extend(receipt.seams.iter().map(|seam| {
            format!("note     at token {} another engine went on; this time none is to", seam.from_index)
        }));
        let text = document.get("text").and_then(Value::as_str).map(str::to_owned);
        let tokens_out = document.get("tokens_out").and_then(Value::as_u64);
        let request = again(asked, &receipt);
        Ok(Self { receipt, request, text, tokens_out, notes })
    }
}

/// The same once more, as a task of its own.
fn again(asked: TaskRequest, receipt: &Receipt) -> TaskRequest {
    TaskRequest {
        seed: receipt.seed.or(asked.seed),
        task_id: None,
        session_id: None,
        deadline_ms: None,
        on_interrupt: OnInterrupt::Fail,
        transcript: false,
        ..asked
    }
}

async fn named(client: &Client, name: &str) -> Result<Value> {
    if name == "-" {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text).context("reading stdin")?;
        return serde_json::from_str(&text).context("reading stdin as JSON");
    }
    if Path::new(name).is_file() {
        return json(Path::new(name));
    }
    let digest = name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    if digest { client.artifact(name).await } else { client.task(name).await }
}

fn json(file: &Path) -> Result<Value> {
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("reading {} as JSON", file.display()))
}

fn given(file: &Path, receipt: &Receipt, notes: &mut Vec<String>) -> Result<Value> {
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if digest != receipt.request_sha256 {
        notes.push(format!("note     {} is not byte for byte what submitted the task", file.display()));
    }
    serde_json::from_slice(&bytes).with_context(|| format!("reading {} as JSON", file.display()))
}

/// The receipt of an `end`, a task's view, a transcript, or the receipt itself.
fn receipt_in(document: &Value) -> Option<Receipt> {
    let holds = |value: &Value| value.get("tokens_sha256").is_some();
    let within = [document.get("receipt"), document.pointer("/data/receipt"), Some(document)];
    let receipt = within.into_iter().flatten().find(|value| holds(value))?;
    serde_json::from_value(receipt.clone()).ok()
}
