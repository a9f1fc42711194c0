//! OTLP export: takes spans out of their buffer and posts them to the collector that the configuration
//! names, as OTLP over HTTP in JSON, the encoding that every collector's HTTP receiver takes.
//!
//! Nothing waits for it: what it cannot get rid of stays in the buffer, and what finds the buffer full
//! is dropped and counted. What a collector refuses is gone; what it cannot take now is tried again.

mod encode;

use std::time::Duration;

use dispatch::{Span, SpanBuffer, Spans};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use reqwest::{StatusCode, redirect};
use tokio_util::sync::CancellationToken;

/// Spans that wait for their export at most: some seconds of a busy day.
const ROOM: usize = 8_192;
/// Spans of one request.
const BATCH: usize = 512;
/// How long a first span waits for company.
const GATHER: Duration = Duration::from_secs(1);
/// For one request to the collector.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Before each further try of a batch.
const TRIES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(15)];
/// What is left at a stop has this long in all.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The exporter, and where spans are put for it.
pub(crate) struct Exporter {
    url: String,
    http: reqwest::Client,
    buffer: SpanBuffer,
    exported: Counter,
    dropped: Counter,
}

/// Why a batch did not arrive.
enum Failed {
    /// It may another time.
    Now(String),
    /// It will not.
    Ever(String),
}

impl Exporter {
    /// Exports to the collector at `endpoint` (`http://HOST:PORT`, perhaps with a path).
    pub(crate) fn new(endpoint: &str, registry: &mut Registry) -> reqwest::Result<(Spans, Self)> {
        let (exported, dropped) = (Counter::default(), Counter::default());
        registry.register("orchd_spans_exported", "Spans that the collector took", exported.clone());
        registry.register("orchd_spans_dropped", "Spans that did not reach the collector", dropped.clone());
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .timeout(TIMEOUT)
            .build()?;
        let (spans, buffer) = Spans::new(ROOM, dropped.clone());
        let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        Ok((spans, Self { url, http, buffer, exported, dropped }))
    }

    /// Exports until `stop`, and what is there then for a moment longer.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while let Some(Some(mut batch)) = stop.run_until_cancelled(self.buffer.take(BATCH)).await {
            let _either_way = stop.run_until_cancelled(tokio::time::sleep(GATHER)).await;
            batch.extend(self.buffer.take_now(BATCH - batch.len()));
            self.export(batch, &stop).await;
        }
        let rest = async {
            loop {
                let batch = self.buffer.take_now(BATCH);
                if batch.is_empty() {
                    return;
                }
                self.export(batch, &stop).await;
            }
        };
        let _either_way = tokio::time::timeout(LAST_WORDS, rest).await;
    }

    /// Posts a batch, several times if need be, but only once when `stop` has come.
    async fn export(&self, batch: Vec<Span>, stop: &CancellationToken) {
        let body = match encode::request(&batch) {
            Ok(body) => body,
            Err(error) => return self.give_up(batch.len(), &error.to_string()),
        };
        let mut tries = TRIES.iter();
        loop {
            match self.post(body.clone()).await {
                Ok(()) => {
                    self.exported.inc_by(batch.len() as u64);
                    return;
                }
                Err(Failed::Ever(why)) => return self.give_up(batch.len(), &why),
                Err(Failed::Now(why)) => {
                    let Some(pause) = tries.next() else { return self.give_up(batch.len(), &why) };
                    if stop.run_until_cancelled(tokio::time::sleep(*pause)).await.is_none() {
                        return self.give_up(batch.len(), &why);
                    }
                }
            }
        }
    }

    async fn post(&self, body: Vec<u8>) -> Result<(), Failed> {
        let request = self.http.post(&self.url).header("content-type", "application/json").body(body);
        let answer = request.send().await.map_err(|error| Failed::Now(error.to_string()))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            // As the protocol says.
            status @ (StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT) => Err(Failed::Now(format!("it answered {status}"))),
            status => Err(Failed::Ever(format!("it answered {status}"))),
        }
    }

    fn give_up(&self, spans: usize, why: &str) {
        self.dropped.inc_by(spans as u64);
        tracing::warn!(collector = self.url, spans, why, "spans did not reach the collector and are dropped");
    }
}
