//! A stream as it comes, for those who look at when something was said, or leave in the middle.

use anyhow::{Context, Result, ensure};

use crate::api::parse;
use crate::{Api, Contract, Event};

/// A task's stream that is being read. Dropping it hangs up.
pub struct Reader {
    answer: reqwest::Response,
    path: String,
    unread: Vec<u8>,
}

impl Reader {
    /// Begins to read the stream at `path`, behind `last_event_id` where there is one.
    pub async fn open(api: &Api, path: &str, last_event_id: Option<&str>) -> Result<Self> {
        let mut request = api.http().get(api.url(path));
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        let answer = request.send().await.with_context(|| format!("GET {path}"))?;
        let status = answer.status();
        ensure!(status.is_success(), "GET {path} answered {status}");
        Ok(Self { answer, path: path.to_owned(), unread: Vec::new() })
    }

    /// The next event, held against the contract; `None` when the stream has ended in order. A
    /// connection that breaks is an error.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            while let Some(end) = self.unread.windows(2).position(|pair| pair == b"\n\n") {
                let frame: Vec<u8> = self.unread.drain(..end + 2).collect();
                let frame = String::from_utf8(frame).context("a frame is not UTF-8")?;
                Contract::orchestratord()?.check("GET", &self.path, 200, "text/event-stream", &frame)?;
                if let Some(event) = parse(frame.trim_end_matches('\n'))? {
                    return Ok(Some(event));
                }
            }
            let read = self.answer.chunk().await.with_context(|| format!("reading {}", self.path))?;
            let Some(bytes) = read else {
                ensure!(self.unread.is_empty(), "the stream of {} ended within a frame", self.path);
                return Ok(None);
            };
            self.unread.extend_from_slice(&bytes);
        }
    }

    /// Reads on until an event is as wanted, which is returned; the end of the stream is an error.
    pub async fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Result<Event> {
        loop {
            let event = self.next().await?.with_context(|| format!("{} ended before", self.path))?;
            if wanted(&event) {
                return Ok(event);
            }
        }
    }
}
