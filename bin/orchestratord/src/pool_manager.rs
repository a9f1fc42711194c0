//! pool-managerd as orchestratord sees it: only through its HTTP API, whether it runs inside this
//! process or as its own daemon. A follower keeps a recent view of its pools.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dispatch::{Attribute, Side};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wire::catalog::{CatalogList, CatalogRemoved, CatalogVerified};
use wire::operation::{OperationAccepted, OperationList, PreloadRequest};
use wire::pool::PoolList;
use wire::{
    CatalogModel, DeviceList, ErrorBody, ErrorCode, ErrorEnvelope, OperationId, OperationKind, OperationView,
    PoolId, PoolView, TraceContext,
};

use crate::http::{Part, Traces};

/// The views are refreshed this often: progress that a person watches moves about once a second.
const PERIOD: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(2);
/// A driver without its persistence daemon takes seconds to wake up.
const LOOK_TIMEOUT: Duration = Duration::from_secs(25);
/// A large model on a slow disk.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(1_800);

/// The pools of pool-managerd, as they were a moment ago. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct PoolViews(watch::Receiver<Arc<Vec<PoolView>>>);

impl PoolViews {
    pub(crate) fn current(&self) -> Arc<Vec<PoolView>> {
        Arc::clone(&self.0.borrow())
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Vec<PoolView>>> {
        self.0.clone()
    }
}

/// Where pool-managerd listens and what it wants to hear.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) url: String,
    pub(crate) token: String,
    /// It runs inside this process, with this process's configuration.
    pub(crate) inside: bool,
}

/// Gives pool-managerd orders. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct PoolManagerClient {
    endpoint: Endpoint,
    http: reqwest::Client,
    /// On whose account, where that is known and part of a trace.
    request: Option<(Traces, TraceContext)>,
}

/// pool-managerd did not take an order.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    /// It does not answer, or not as pool-managerd does.
    #[error("pool-managerd at {url} does not answer")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// It said no, in its own words; an unknown pool is `NOT_FOUND`.
    #[error("pool-managerd refused: {}", .0.message)]
    Refused(Box<ErrorBody>),
}

impl PoolManagerClient {
    pub(crate) fn new(endpoint: Endpoint, http: reqwest::Client) -> Self {
        Self { endpoint, http, request: None }
    }

    /// The same, on account of a request: pool-managerd is told the trace that it is part of.
    pub(crate) fn on_account_of(&self, traces: &Traces, request: Option<&TraceContext>) -> Self {
        let request = request.map(|request| (traces.clone(), request.clone()));
        Self { request, ..self.clone() }
    }

    /// Asks for a pool to run: one that failed or was stopped tries again, one that runs goes on.
    pub(crate) async fn preload(
        &self,
        pool: &PoolId,
        request: &PreloadRequest,
    ) -> Result<PoolView, OrderError> {
        self.ask(self.post(pool, "preload").json(request)).await
    }

    /// Begins an operation on a pool. What is asked for in detail depends on its kind.
    pub(crate) async fn begin(
        &self,
        pool: &PoolId,
        kind: OperationKind,
        details: &impl Serialize,
    ) -> Result<OperationAccepted, OrderError> {
        self.ask(self.post(pool, kind.as_str()).json(details)).await
    }

    pub(crate) async fn operations(&self) -> Result<OperationList, OrderError> {
        self.ask(self.http.get(format!("{}/v2/operations", self.endpoint.url))).await
    }

    pub(crate) async fn operation(&self, id: &OperationId) -> Result<OperationView, OrderError> {
        self.ask(self.http.get(format!("{}/v2/operations/{id}", self.endpoint.url))).await
    }

    /// The models that are here.
    pub(crate) async fn models(&self) -> Result<CatalogList, OrderError> {
        self.ask_within(LOOK_TIMEOUT, self.http.get(self.models_url(""))).await
    }

    /// One of them.
    pub(crate) async fn model(&self, digest: &str) -> Result<CatalogModel, OrderError> {
        self.ask_within(LOOK_TIMEOUT, self.http.get(self.models_url(&format!("/{digest}")))).await
    }

    /// Has one of them read again.
    pub(crate) async fn verify_model(&self, digest: &str) -> Result<CatalogVerified, OrderError> {
        let request = self.http.post(self.models_url(&format!("/{digest}/verify")));
        self.ask_within(VERIFY_TIMEOUT, request).await
    }

    /// Removes one of them.
    pub(crate) async fn remove_model(&self, digest: &str) -> Result<CatalogRemoved, OrderError> {
        self.ask_within(LOOK_TIMEOUT, self.http.delete(self.models_url(&format!("/{digest}")))).await
    }

    fn models_url(&self, rest: &str) -> String {
        format!("{}/v2/catalog/models{rest}", self.endpoint.url)
    }

    /// The machine's cards.
    pub(crate) async fn devices(&self) -> Result<DeviceList, OrderError> {
        let request = self.http.get(format!("{}/v2/devices", self.endpoint.url));
        self.ask_within(LOOK_TIMEOUT, request).await
    }

    /// What a pool's engines write, for as long as somebody reads it. `query` and `accept` are the
    /// reader's own; pool-managerd checks them.
    pub(crate) async fn logs(
        &self,
        pool: &PoolId,
        query: &str,
        accept: Option<&http::HeaderValue>,
    ) -> Result<reqwest::Response, OrderError> {
        let request = self.http.get(format!("{}/v2/pools/{pool}/logs?{query}", self.endpoint.url));
        let request = match accept {
            Some(accept) => request.header(http::header::ACCEPT, accept),
            None => request,
        };
        // Its head comes at once; how long the rest takes is the reader's business.
        tokio::time::timeout(TIMEOUT, self.send(request)).await.unwrap_or_else(|_late| {
            let message = format!("pool-managerd at {} does not answer", self.endpoint.url);
            Err(OrderError::Refused(Box::new(
                ErrorBody::new(ErrorCode::PoolUnready, message).retry_after_ms(2_000),
            )))
        })
    }

    fn post(&self, pool: &PoolId, what: &str) -> reqwest::RequestBuilder {
        self.http.post(format!("{}/v2/pools/{pool}/{what}", self.endpoint.url))
    }

    async fn ask<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, OrderError> {
        self.ask_within(TIMEOUT, request).await
    }

    async fn ask_within<T: DeserializeOwned>(
        &self,
        limit: Duration,
        request: reqwest::RequestBuilder,
    ) -> Result<T, OrderError> {
        let unreachable = |source| OrderError::Unreachable { url: self.endpoint.url.clone(), source };
        let answer = self.send(request.timeout(limit)).await?;
        answer.json().await.map_err(unreachable)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, OrderError> {
        let part = match &self.request {
            Some((traces, request)) => traces.part(Some(request)),
            None => Part::default(),
        };
        let sent = self.send_as(request, part.context()).await;
        let (status, error) = match &sent {
            Ok(answer) => (Some(answer.status().as_u16()), None),
            Err(OrderError::Refused(body)) => (Some(body.code.status()), Some(body.code.as_str())),
            Err(OrderError::Unreachable { .. }) => (None, Some("unreachable")),
        };
        let status = status.map(|status| ("http.response.status_code", Attribute::Count(status.into())));
        part.ended("pool-managerd", Side::Client, status.into_iter().collect(), error.map(str::to_owned));
        sent
    }

    async fn send_as(
        &self,
        request: reqwest::RequestBuilder,
        trace: Option<&TraceContext>,
    ) -> Result<reqwest::Response, OrderError> {
        let unreachable = |source| OrderError::Unreachable { url: self.endpoint.url.clone(), source };
        let mut request = request.bearer_auth(&self.endpoint.token);
        if let Some(trace) = trace {
            request = request.header("traceparent", trace.traceparent());
            if let Some(state) = trace.tracestate() {
                request = request.header("tracestate", state);
            }
        }
        let answer = request.send().await.map_err(unreachable)?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let refusal: ErrorEnvelope = answer.json().await.map_err(unreachable)?;
        Err(OrderError::Refused(Box::new(refusal.error)))
    }
}

/// What is known of pool-managerd: how to give it orders and how its pools are. It may come later than
/// those who ask. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Link {
    client: Arc<OnceLock<PoolManagerClient>>,
    views: watch::Sender<Arc<Vec<PoolView>>>,
}

impl Link {
    /// Whom to give orders; `None` while there is no pool-managerd.
    pub(crate) fn client(&self) -> Option<&PoolManagerClient> {
        self.client.get()
    }

    pub(crate) fn views(&self) -> PoolViews {
        PoolViews(self.views.subscribe())
    }

    /// There is one. The future follows its pools until `stop`; `None`: it is followed already.
    pub(crate) fn found(
        &self,
        endpoint: Endpoint,
        http: reqwest::Client,
        stop: CancellationToken,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        self.client.set(PoolManagerClient::new(endpoint.clone(), http.clone())).ok()?;
        let views = self.views.clone();
        Some(async move {
            // An answer that is late must not hold up the end.
            stop.run_until_cancelled(follow_for_ever(&endpoint, &http, &views)).await;
        })
    }
}

async fn follow_for_ever(
    endpoint: &Endpoint,
    client: &reqwest::Client,
    views: &watch::Sender<Arc<Vec<PoolView>>>,
) {
    let mut reachable = true;
    loop {
        match fetch(endpoint, client).await {
            Ok(pools) => {
                reachable = true;
                views.send_if_modified(|before| {
                    let changed = **before != pools;
                    if changed {
                        *before = Arc::new(pools);
                    }
                    changed
                });
            }
            Err(error) if reachable => {
                reachable = false;
                tracing::warn!(url = endpoint.url, %error, "pool-managerd does not answer; engines that are ready stay in use");
            }
            Err(_) => {}
        }
        tokio::time::sleep(PERIOD).await;
    }
}

async fn fetch(endpoint: &Endpoint, client: &reqwest::Client) -> Result<Vec<PoolView>, reqwest::Error> {
    let request = client.get(format!("{}/v2/pools", endpoint.url)).bearer_auth(&endpoint.token);
    let mut list: PoolList = request.timeout(TIMEOUT).send().await?.error_for_status()?.json().await?;
    for pool in &mut list.pools {
        for error in pool.replicas.iter_mut().filter_map(|replica| replica.last_error.as_mut()) {
            error.remedy = error.remedy.take().map(|remedy| our_words(&remedy, &pool.id, endpoint.inside));
        }
    }
    Ok(list.pools)
}

/// The first words of what brings a pool up again where pool-managerd runs inside.
pub(crate) const RESTART: &str = "restart orchestratord";
/// What else does: both daemons follow their configuration.
pub(crate) const SAVE: &str = "save the configuration";

/// pool-managerd's remedies end in "then preload the pool". Whoever reads them here reaches
/// pool-managerd only through us.
fn our_words(remedy: &str, pool: &PoolId, inside: bool) -> String {
    let Some((first, _)) = remedy.rsplit_once("preload") else { return remedy.to_owned() };
    let preload = format!("POST /v2/pools/{pool}/preload");
    match (inside, first.starts_with("correct ")) {
        (_, true) => format!("{first}{SAVE}"),
        (true, false) => format!("{first}{RESTART}, or {preload}"),
        (false, false) => format!("{first}{preload}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_names_what_its_reader_can_do() {
        let pool = PoolId::try_new("p").unwrap();
        let words = |remedy, inside| our_words(remedy, &pool, inside);
        let flags = "correct `flags` of the pool, then preload it";
        assert_eq!(words(flags, true), "correct `flags` of the pool, then save the configuration");
        assert_eq!(words(flags, false), "correct `flags` of the pool, then save the configuration");
        let tool = "install what is missing, then preload the pool";
        assert_eq!(
            words(tool, true),
            "install what is missing, then restart orchestratord, or POST /v2/pools/p/preload"
        );
        assert_eq!(words(tool, false), "install what is missing, then POST /v2/pools/p/preload");
        assert_eq!(words("buy memory", true), "buy memory");
    }
}
