//! The head of an answer.

use super::Unanswered;
use crate::framing::Framing;

const MAX_HEADERS: usize = 64;

pub(super) struct Head {
    pub(super) length: usize,
    pub(super) status: u16,
    pub(super) framing: Framing,
    /// Whether the connection may serve another request.
    pub(super) stays: bool,
}

impl Head {
    /// Reads one; `None` while it is not all there.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Self>, Unanswered> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut head = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(length) = head.parse(bytes).map_err(|_| Unanswered::NotHttp)? else {
            return Ok(None);
        };
        let status = head.code.unwrap_or_default();
        let values = |name: &'static str| {
            let named = head.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
            named.map(|header| std::str::from_utf8(header.value).unwrap_or("").trim())
        };
        let says = |name, word: &str| {
            values(name).flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
        };
        let mut lengths = values("content-length").map(str::parse::<u64>);
        let framing = if matches!(status, 100..200 | 204 | 304) {
            Framing::Length(0)
        } else if says("transfer-encoding", "chunked") {
            Framing::chunked()
        } else if let Some(length) = lengths.next() {
            let length = length.map_err(|_| Unanswered::NotHttp)?;
            // Two that differ are two answers to whoever reads the other one.
            if lengths.any(|other| other != Ok(length)) {
                return Err(Unanswered::NotHttp);
            }
            Framing::Length(length)
        } else {
            Framing::UntilClose
        };
        let stays = head.version == Some(1) && !says("connection", "close");
        Ok(Some(Self { length, status, framing, stays }))
    }
}
