//! `GET /v2/pools/{id}/logs`: what the engines of a pool have written, and on request what they go on
//! to write, as text for people or as server-sent events.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use serde::Deserialize;
use wire::pool::LogLine;
use wire::{ErrorCode, ReplicaId, ReplicaKey};

use super::Api;
use super::pools::view;
use super::problem::Problem;
use crate::engine_log::aside;
use crate::log_tail::LogTail;
use crate::record::RunDir;

/// Lines of each replica, unless the caller says otherwise.
const TAIL_DEFAULT: usize = 200;
const TAIL_MAX: usize = 10_000;
/// A log that is followed is looked at this often.
const PERIOD: Duration = Duration::from_millis(250);
/// So many looks without a line are answered with a comment, so that proxies keep the connection and
/// a client that went away is noticed.
const QUIET_LOOKS: u32 = 60;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    tail: Option<usize>,
    #[serde(default)]
    follow: bool,
    replica: Option<ReplicaId>,
    #[serde(default)]
    engine: WhichEngine,
}

/// Whose log.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WhichEngine {
    /// The one that runs, or ran last.
    #[default]
    Current,
    /// The one whose place that one took in a reload, or what was set aside of a log that grew too long.
    Previous,
    /// The one that was tried last beside one that serves, and does not serve itself.
    Candidate,
}

impl WhichEngine {
    fn log(self, run: &RunDir, replica: &ReplicaKey) -> PathBuf {
        match self {
            Self::Current => run.log(replica),
            Self::Previous => aside(&run.log(replica)),
            Self::Candidate => run.candidate_log(replica),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text { named: bool },
    Events,
}

pub(super) async fn logs(
    State(api): State<Api>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let pool = view(&api, &id)?;
    let Query(wanted) = Query::<Wanted>::try_from_uri(&uri).map_err(|why| {
        Problem::new(ErrorCode::InvalidParams, why.body_text())
            .hint("known are tail (a number), follow (true or false), replica (as r0) and engine (current, previous or candidate)")
    })?;
    let lines = wanted.tail.unwrap_or(TAIL_DEFAULT).min(TAIL_MAX);
    let replicas: Vec<ReplicaId> = pool.replicas.into_iter().map(|r| r.id).collect();
    let shown: Vec<ReplicaId> =
        replicas.iter().filter(|id| wanted.replica.as_ref().is_none_or(|w| w == *id)).cloned().collect();
    if shown.is_empty() {
        let known: Vec<&str> = replicas.iter().map(ReplicaId::as_str).collect();
        return Err(Problem::new(ErrorCode::NotFound, format!("pool {id} has no such replica"))
            .hint(format!("its replicas are: {}", known.join(", "))));
    }
    let permit = match api.followers.clone().try_acquire_owned() {
        Ok(permit) => permit,
        Err(_) => {
            return Err(Problem::new(ErrorCode::RateLimited, "too many logs are being read at once")
                .hint("end one that is being followed"));
        }
    };
    let form = form(&headers, wanted.follow, shown.len() > 1);
    let run = &api.manager.shared().run;
    let readers = shown.into_iter().map(|replica| {
        let path = wanted.engine.log(run, &ReplicaKey { pool: pool.id.clone(), replica: replica.clone() });
        reader(replica, path, lines, wanted.follow).boxed()
    });
    let stream = stream::select_all(readers)
        .map(move |lines| Ok::<Bytes, Infallible>(render(form, &lines)))
        .take_until(api.shutdown.clone().cancelled_owned())
        .map(move |piece| {
            let _held_until_the_end = &permit;
            piece
        });
    Ok(answer(form, Body::from_stream(stream)))
}

/// Server-sent events for who accepts them, and for who follows and did not ask for text.
fn form(headers: &HeaderMap, follow: bool, several: bool) -> Form {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let events = accept.contains("text/event-stream") || (follow && !accept.contains("text/plain"));
    if events { Form::Events } else { Form::Text { named: several } }
}

/// The lines of one replica: the last ones, and when they are followed all that come, with an empty
/// piece now and then.
fn reader(replica: ReplicaId, path: PathBuf, lines: usize, follow: bool) -> impl Stream<Item = Vec<LogLine>> {
    let named = move |lines: Vec<String>| -> Vec<LogLine> {
        lines.into_iter().map(|line| LogLine { replica_id: replica.clone(), line }).collect()
    };
    stream::unfold(
        Some(Err((path, lines))),
        move |state: Option<Result<LogTail, (PathBuf, usize)>>| async move {
            match state? {
                Err((path, lines)) => {
                    let first = tokio::task::spawn_blocking(move || LogTail::last(path, lines)).await.ok()?;
                    let (lines, tail) = first.inspect_err(unreadable).ok()?;
                    Some((lines, follow.then_some(Ok(tail))))
                }
                Ok(tail) => {
                    let (lines, tail) = next(tail).await?;
                    Some((lines, Some(Ok(tail))))
                }
            }
        },
    )
    .map(named)
}

/// The next lines, or none after a long silence.
async fn next(mut tail: LogTail) -> Option<(Vec<String>, LogTail)> {
    for _ in 0..QUIET_LOOKS {
        tokio::time::sleep(PERIOD).await;
        let read = tokio::task::spawn_blocking(move || tail.more().map(|lines| (lines, tail))).await.ok()?;
        let (lines, same) = read.inspect_err(unreadable).ok()?;
        tail = same;
        if !lines.is_empty() {
            return Some((lines, tail));
        }
    }
    Some((Vec::new(), tail))
}

fn unreadable(error: &std::io::Error) {
    tracing::warn!(%error, "an engine's log cannot be read");
}

fn render(form: Form, lines: &[LogLine]) -> Bytes {
    let text: String = match form {
        Form::Text { named: false } => lines.iter().map(|l| format!("{}\n", l.line)).collect(),
        Form::Text { named: true } => {
            lines.iter().map(|l| format!("{} | {}\n", l.replica_id, l.line)).collect()
        }
        Form::Events if lines.is_empty() => ": keepalive\n\n".to_owned(),
        Form::Events => lines
            .iter()
            .filter_map(|line| serde_json::to_string(line).ok())
            .map(|json| format!("event: log\ndata: {json}\n\n"))
            .collect(),
    };
    Bytes::from(text)
}

fn answer(form: Form, body: Body) -> Response {
    let kind = match form {
        Form::Text { .. } => "text/plain; charset=utf-8",
        Form::Events => "text/event-stream; charset=utf-8",
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (StatusCode::OK, headers, body).into_response()
}
