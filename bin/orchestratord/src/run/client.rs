//! The part of orchestratord's API that `run` uses.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{RequestBuilder, Response};
use serde::de::DeserializeOwned;
use serde_json::json;
use wire::pool::PoolList;
use wire::task::Accepted;
use wire::{ErrorEnvelope, Health, PoolView, TaskId};

use super::events::Events;
use crate::cli::RunArgs;
use crate::exit::{Fatal, UNAVAILABLE};
use crate::http::SERVICE;

/// Whether anybody listens is known within this time.
const PROBE: Duration = Duration::from_secs(1);
/// Keepalives come every 15 s, so a stream silent for this long is dead.
const SILENCE: Duration = Duration::from_secs(45);

/// A client of one orchestratord.
pub(super) struct Client {
    base: String,
    token: Option<String>,
    http: reqwest::Client,
}

impl Client {
    pub(super) fn new(addr: SocketAddr, token: Option<String>) -> Result<Self> {
        // Proxy variables must not send loopback traffic elsewhere.
        let http = reqwest::Client::builder().no_proxy().read_timeout(SILENCE).build();
        Ok(Self { base: format!("http://{addr}"), token, http: http.context("building an HTTP client")? })
    }

    pub(super) async fn is_orchestratord(&self) -> bool {
        let answer = self.http.get(format!("{}/health", self.base)).timeout(PROBE).send().await;
        let Ok(answer) = answer else { return false };
        answer.json::<Health>().await.is_ok_and(|health| health.service == SERVICE)
    }

    pub(super) async fn first_pool(&self) -> Result<String> {
        let list: PoolList = self.read(self.http.get(format!("{}/v2/pools", self.base))).await?;
        match list.pools.first() {
            Some(pool) => Ok(pool.id.to_string()),
            None => bail!("no pool is configured; add one under `pools:`"),
        }
    }

    pub(super) async fn submit(&self, model: &str, args: &RunArgs) -> Result<TaskId> {
        let body = json!({
            "model": model,
            "messages": [{"role": "user", "content": args.prompt}],
            "max_tokens": args.max_tokens,
            "temperature": args.temperature,
            "seed": args.seed.map(|seed| seed.to_string()),
        });
        let accepted: Accepted =
            self.read(self.http.post(format!("{}/v2/tasks", self.base)).json(&body)).await?;
        Ok(accepted.task_id)
    }

    pub(super) async fn events(&self, task: &TaskId, after: Option<&str>) -> Result<Events> {
        let mut request = self.http.get(format!("{}/v2/tasks/{task}/events?verbose=true", self.base));
        if let Some(id) = after {
            request = request.header("Last-Event-ID", id);
        }
        Ok(Events::new(self.send(request).await?))
    }

    pub(super) async fn cancel(&self, task: &TaskId) {
        let request = self.authorised(self.http.delete(format!("{}/v2/tasks/{task}", self.base)));
        let _ = request.timeout(PROBE).send().await;
    }

    /// Why a pool cannot run, in its own words.
    pub(super) async fn failure_of(&self, pool: &str) -> Option<String> {
        let view: PoolView = self.read(self.http.get(format!("{}/v2/pools/{pool}", self.base))).await.ok()?;
        let error = view.replicas.into_iter().find_map(|replica| replica.last_error)?;
        let tail: String = error.log_tail.iter().map(|line| format!("\n  | {line}")).collect();
        let remedy = error.remedy.map(|remedy| format!("\n  what to do: {remedy}")).unwrap_or_default();
        Some(format!("{}{remedy}{tail}", error.message))
    }

    fn authorised(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let answer = self.authorised(request).send().await;
        let answer = answer.with_context(|| format!("asking the orchestratord at {}", self.base))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let message = match answer.json::<ErrorEnvelope>().await {
            Ok(ErrorEnvelope { error }) => {
                let hint = error.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
                format!("{}: {}{hint}", error.code.as_str(), error.message)
            }
            Err(_) => format!("the orchestratord at {} answered {status}", self.base),
        };
        Err(Fatal::new(if status.is_server_error() { UNAVAILABLE } else { 1 }, message).into())
    }

    async fn read<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        self.send(request).await?.json().await.context("reading the answer")
    }
}
