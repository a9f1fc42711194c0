//! A plain client of orchestratord's API for tests: what it receives is what a user would.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{Client, Contract};

/// No stream in these tests is silent for longer.
const SILENCE: Duration = Duration::from_secs(60);

/// A client.
#[derive(Debug, Clone)]
pub struct Api {
    base: String,
    http: Client,
}

/// One server-sent event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// `id:`, where there is one.
    pub id: Option<String>,
    /// `event:`.
    pub name: String,
    /// `data:`.
    pub data: Value,
}

/// A stream that was read to its end.
#[derive(Debug, Clone)]
pub struct Followed {
    /// All events in order.
    pub events: Vec<Event>,
}

impl Followed {
    /// The joined text.
    #[must_use]
    pub fn text(&self) -> String {
        self.named("token").filter_map(|event| event.data["t"].as_str()).collect()
    }

    /// Events of one name.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Event> {
        self.events.iter().filter(move |event| event.name == name)
    }

    /// The last event's data, which must be an `end`.
    pub fn end(&self) -> Result<&Value> {
        match self.events.last() {
            Some(event) if event.name == "end" => Ok(&event.data),
            other => bail!("the stream ended with {other:?}"),
        }
    }

    /// Checks `started`, gapless tokens, one terminal event, in this order.
    pub fn check_order(&self) -> Result<()> {
        let names: Vec<&str> = self.events.iter().map(|event| event.name.as_str()).collect();
        ensure!(names.first() == Some(&"started"), "the first event is not started: {names:?}");
        ensure!(names.last() == Some(&"end"), "the last event is not end: {names:?}");
        let middle = &names[1..names.len() - 1];
        ensure!(
            !middle.is_empty() && middle.iter().all(|name| *name == "token"),
            "not only tokens: {names:?}"
        );
        for (expected, event) in self.named("token").enumerate() {
            ensure!(event.data["i"] == expected as u64, "token {expected} carries i = {}", event.data["i"]);
            ensure!(event.data["t"].as_str().is_some_and(|t| !t.is_empty()), "token {expected} has no text");
        }
        Ok(())
    }
}

impl Api {
    /// A client of the daemon at `base`.
    pub fn new(base: &str) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().read_timeout(SILENCE).build();
        let http = Client::with(http.context("building a client")?, Contract::orchestratord()?);
        Ok(Self { base: base.to_owned(), http })
    }

    /// The underlying client, which holds every answer against the contract.
    #[must_use]
    pub fn http(&self) -> &Client {
        &self.http
    }

    /// `base` + `path`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// A GET that must succeed.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.http.get(self.url(path)).send().await.with_context(|| format!("GET {path}"))?;
        let (status, text) = checked("GET", path, answer).await?;
        ensure!(status.is_success(), "GET {path} answered {status}: {text}");
        serde_json::from_str(&text).with_context(|| format!("GET {path} is not JSON: {text}"))
    }

    /// A POST with a JSON body; the answer's status and body, held against the contract.
    pub async fn post(&self, path: &str, body: &Value) -> Result<(u16, Value)> {
        let answer = self.http.post(self.url(path)).json(body).send().await;
        let answer = answer.with_context(|| format!("POST {path}"))?;
        let (status, text) = checked("POST", path, answer).await?;
        let body = serde_json::from_str(&text).with_context(|| format!("POST {path} is not JSON: {text}"))?;
        Ok((status.as_u16(), body))
    }

    /// Submits a chat task at temperature 0 and returns the 202's body.
    pub async fn submit(&self, prompt: &str, more: Value) -> Result<Value> {
        let mut body = json!({
            "model": "haiku",
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": 256, "temperature": 0, "seed": "7",
        });
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        let answer =
            self.http.post(self.url("/v2/tasks")).json(&body).send().await.context("POST /v2/tasks")?;
        let (status, text) = checked("POST", "/v2/tasks", answer).await?;
        ensure!(status.as_u16() == 202, "POST /v2/tasks answered {status}: {text}");
        serde_json::from_str(&text).context("the 202 is not JSON")
    }

    /// Follows a stream to its end.
    pub async fn follow(&self, path: &str, last_event_id: Option<&str>) -> Result<Followed> {
        let mut request = self.http.get(self.url(path));
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        Self::read(path, request.send().await.with_context(|| format!("GET {path}"))?).await
    }

    /// Reads a stream to its end that was asked for at this path.
    pub async fn read(path: &str, answer: reqwest::Response) -> Result<Followed> {
        let (status, text) = checked("GET", path, answer).await?;
        ensure!(status.is_success(), "GET {path} answered {status}: {text}");
        text.split_terminator("\n\n")
            .filter_map(|frame| parse(frame).transpose())
            .collect::<Result<_>>()
            .map(|events| Followed { events })
    }

    /// Follows a stream until it has told so many tokens, and goes away.
    pub async fn follow_until(&self, path: &str, tokens: usize) -> Result<Followed> {
        let mut answer = self.http.get(self.url(path)).send().await.with_context(|| format!("GET {path}"))?;
        ensure!(answer.status().is_success(), "GET {path} answered {}", answer.status());
        let (mut bytes, mut events) = (Vec::new(), Vec::new());
        let told = |events: &[Event]| events.iter().filter(|event| event.name == "token").count();
        while told(&events) < tokens {
            let chunk = answer.chunk().await.with_context(|| format!("reading {path}"))?;
            let chunk = chunk.with_context(|| format!("the stream ended with {events:?}"))?;
            bytes.extend_from_slice(&chunk);
            while let Some(end) = bytes.windows(2).position(|pair| pair == b"\n\n") {
                let frame: Vec<u8> = bytes.drain(..end + 2).collect();
                events.extend(parse(std::str::from_utf8(&frame[..end]).context("a frame is not UTF-8")?)?);
            }
        }
        Ok(Followed { events })
    }

    /// The value of a counter, summed over its labels; 0 when it was never counted.
    pub async fn counter(&self, name: &str) -> Result<f64> {
        let text = self.metrics().await?;
        let values = text
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        Ok(values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// The metrics page.
    pub async fn metrics(&self) -> Result<String> {
        let answer = self.http.get(self.url("/metrics")).send().await.context("GET /metrics")?;
        answer.text().await.context("reading /metrics")
    }
}

/// Reads an answer to its end and holds it against the contract.
pub async fn checked(
    method: &str,
    path: &str,
    answer: reqwest::Response,
) -> Result<(reqwest::StatusCode, String)> {
    let status = answer.status();
    let media = answer.headers().get("content-type").and_then(|value| value.to_str().ok());
    let media = media.unwrap_or_default().to_owned();
    let text = answer.text().await.with_context(|| format!("reading {method} {path}"))?;
    Contract::orchestratord()?.check(method, path, status.as_u16(), &media, &text)?;
    Ok((status, text))
}

/// One frame; a comment is none.
pub(crate) fn parse(frame: &str) -> Result<Option<Event>> {
    let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let (Some(name), Some(data)) = (field("event"), field("data")) else {
        ensure!(frame.lines().all(|line| line.starts_with(':')), "neither event nor comment: {frame:?}");
        return Ok(None);
    };
    let data = serde_json::from_str(data).with_context(|| format!("not JSON: {data}"))?;
    Ok(Some(Event { id: field("id").map(str::to_owned), name: name.to_owned(), data }))
}
