//! The part of orchestratord's API that `run` and `verify` use.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wire::pool::PoolList;
use wire::task::Accepted;
use wire::{ErrorEnvelope, PoolView, TaskId, TaskView};

use super::events::Events;
use crate::cli::RunArgs;
use crate::credentials::Access;
use crate::exit::{CONFIG, Fatal, UNAVAILABLE};

/// What is asked on the side is answered within this time.
const SHORT: Duration = Duration::from_secs(1);
/// Keepalives come every 15 s, so a stream silent for this long is dead.
const SILENCE: Duration = Duration::from_secs(45);

/// A client of one orchestratord.
pub(crate) struct Client {
    base: String,
    access: Access,
    http: reqwest::Client,
}

impl Client {
    pub(crate) fn new(addr: SocketAddr, access: Access) -> Result<Self> {
        // Proxy variables must not send loopback traffic elsewhere.
        let http = reqwest::Client::builder().no_proxy().read_timeout(SILENCE).build();
        Ok(Self { base: format!("http://{addr}"), access, http: http.context("building an HTTP client")? })
    }

    pub(crate) async fn first_pool(&self) -> Result<String> {
        let list: PoolList = self.read(self.http.get(format!("{}/v2/pools", self.base))).await?;
        match list.pools.first() {
            Some(pool) => Ok(pool.id.to_string()),
            None => bail!("no pool is configured; add one under `pools:`"),
        }
    }

    pub(crate) async fn submit(&self, model: &str, args: &RunArgs) -> Result<TaskId> {
        let body = json!({
            "model": model,
            "messages": [{"role": "user", "content": args.prompt}],
            "max_tokens": args.max_tokens,
            "temperature": args.temperature,
            "seed": args.seed.map(|seed| seed.to_string()),
        });
        self.post_task(&body).await
    }

    /// Submits a task as `POST /v2/tasks` takes it.
    pub(crate) async fn post_task(&self, body: &impl Serialize) -> Result<TaskId> {
        let accepted: Accepted =
            self.read(self.http.post(format!("{}/v2/tasks", self.base)).json(body)).await?;
        Ok(accepted.task_id)
    }

    /// What `GET /v2/tasks/{id}` answers.
    pub(crate) async fn task(&self, id: &str) -> Result<Value> {
        self.read(self.http.get(format!("{}/v2/tasks/{id}", self.base))).await
    }

    /// An artifact that holds JSON.
    pub(crate) async fn artifact(&self, sha256: &str) -> Result<Value> {
        self.read(self.http.get(format!("{}/v2/artifacts/{sha256}", self.base))).await
    }

    pub(crate) async fn events(&self, task: &TaskId, after: Option<&str>) -> Result<Events> {
        let mut request = self.http.get(format!("{}/v2/tasks/{task}/events?verbose=true", self.base));
        if let Some(id) = after {
            request = request.header("Last-Event-ID", id);
        }
        Ok(Events::new(self.send(request).await?))
    }

    pub(crate) async fn cancel(&self, task: &TaskId) {
        let request = self.authorised(self.http.delete(format!("{}/v2/tasks/{task}", self.base)));
        let _ = request.timeout(SHORT).send().await;
    }

    /// The pool of a task as it is now.
    pub(crate) async fn pool_of(&self, task: &TaskId) -> Result<PoolView> {
        let task = self.http.get(format!("{}/v2/tasks/{task}", self.base)).timeout(SHORT);
        let task: TaskView = self.read(task).await?;
        self.read(self.http.get(format!("{}/v2/pools/{}", self.base, task.pool_id)).timeout(SHORT)).await
    }

    fn authorised(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.access.token {
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
        if status == StatusCode::UNAUTHORIZED {
            return Err(self.refused().into());
        }
        let message = match answer.json::<ErrorEnvelope>().await {
            Ok(ErrorEnvelope { error }) => {
                let hint = error.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
                format!("{}: {}{hint}", error.code.as_str(), error.message)
            }
            Err(_) => format!("the orchestratord at {} answered {status}", self.base),
        };
        Err(Fatal::new(if status.is_server_error() { UNAVAILABLE } else { 1 }, message).into())
    }

    fn refused(&self) -> Fatal {
        let token = match &self.access.file {
            Some(file) => format!("a data token, as in {}", file.display()),
            None => "one of its data tokens; `orchestratord token new` makes another".to_owned(),
        };
        let what = if self.access.token.is_some() { "does not know this token" } else { "needs a token" };
        Fatal::new(
            CONFIG,
            format!("the orchestratord at {} {what}; set LLAMA_ORCH_TOKEN to {token}", self.base),
        )
    }

    async fn read<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        self.send(request).await?.json().await.context("reading the answer")
    }
}
