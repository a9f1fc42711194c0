//! Reading our own event stream: frames of `id`, `event` and one line of `data`.

use anyhow::{Context, Result, ensure};
use bytes::BytesMut;
use reqwest::Response;
use serde_json::json;
use wire::event::TaskEvent;

/// No frame of ours comes near this size.
const MAX_FRAME: usize = 1024 * 1024;

/// A stream of task events.
pub(crate) struct Events {
    response: Response,
    buffer: BytesMut,
}

/// One event and its position.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) id: Option<String>,
    pub(crate) event: TaskEvent,
}

impl Events {
    pub(crate) fn new(response: Response) -> Self {
        Self { response, buffer: BytesMut::new() }
    }

    /// The next event; `None` when the connection ended. Comments and unknown events are skipped.
    pub(crate) async fn next(&mut self) -> Result<Option<Received>> {
        loop {
            while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let frame = self.buffer.split_to(end + 2);
                if let Some(received) =
                    parse(std::str::from_utf8(&frame).context("reading the event stream")?)
                {
                    return Ok(Some(received));
                }
            }
            ensure!(
                self.buffer.len() <= MAX_FRAME,
                "the event stream holds a frame of over {MAX_FRAME} bytes"
            );
            match self.response.chunk().await.context("reading the event stream")? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
    }
}

fn parse(frame: &str) -> Option<Received> {
    let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let data: serde_json::Value = serde_json::from_str(field("data")?).ok()?;
    let event = serde_json::from_value(json!({"event": field("event")?, "data": data})).ok()?;
    Some(Received { id: field("id").map(str::to_owned), event })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_and_a_comment_is_not() {
        let received = parse("id: 7\nevent: token\ndata: {\"t\":\"a\\nb\",\"i\":3}\n\n").unwrap();
        assert_eq!(received.id.as_deref(), Some("7"));
        assert!(matches!(received.event, TaskEvent::Token(token) if token.t == "a\nb" && token.i == 3));
        assert!(parse(": keepalive\n\n").is_none());
        assert!(parse("event: later\ndata: {}\n\n").is_none());
    }
}
