//! Requests to an engine over HTTP/1.1. An answer has no task and no buffer of its own: whoever reads its
//! tokens reads the socket, so that a token costs one wake-up and one read, and a stream that waits holds
//! nothing but its connection.
//!
//! Knows no redirects, no proxies, no TLS and no names: an engine is an address.

mod body;
mod head;
mod idle;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) use self::body::Body;
use self::head::Head;
use self::idle::Idle;

/// The engine is on this machine; a connection that takes longer is not coming.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Silence after which a connection is dead, seen at the latest after twice that. Only a backstop: the
/// engine pings every 30 s, and dispatch has its own, shorter limits.
const SILENCE: Duration = Duration::from_secs(120);
const MAX_HEAD_BYTES: usize = 32 << 10;

/// Connections to one engine. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct Connections {
    addr: SocketAddr,
    /// Behind the request line of every request.
    headers: Arc<str>,
    idle: Idle,
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("nothing came for {} s", SILENCE.as_secs())]
    Silent,
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    /// Before a byte of an answer.
    #[error("the engine closed the connection: {0}")]
    Closed(io::Error),
    #[error("what came is not HTTP")]
    NotHttp,
}

/// An answer's status, and its body still to be read. Dropping it before its end closes the connection.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Body,
}

/// Whether a header may have this value: nothing in it ends the header.
pub(crate) fn can_be_sent(value: &str) -> bool {
    value.bytes().all(|byte| matches!(byte, 0x20..=0x7e | b'\t' | 0x80..))
}

impl Connections {
    /// To the engine at `addr`, with a key where it wants one; it must be what a header can carry.
    pub(crate) fn new(addr: SocketAddr, api_key: Option<&str>) -> Self {
        let key = api_key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
        Self { addr, headers: format!("Host: {addr}\r\nAccept: */*\r\n{key}").into(), idle: Idle::default() }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer, Unanswered> {
        self.ask(format!("GET {path} HTTP/1.1\r\n{}\r\n", self.headers).into_bytes()).await
    }

    /// Posts JSON, with these headers where they have a value.
    pub(crate) async fn post(
        &self,
        path: &str,
        more: &[(&str, Option<&str>)],
        json: &[u8],
    ) -> Result<Answer, Unanswered> {
        let (headers, length) = (&self.headers, json.len());
        let mut request = format!(
            "POST {path} HTTP/1.1\r\n{headers}Content-Type: application/json\r\nContent-Length: {length}\r\n"
        )
        .into_bytes();
        for (name, value) in more {
            if let Some(value) = value.filter(|value| can_be_sent(value)) {
                request.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
        }
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(json);
        self.ask(request).await
    }

    /// On a connection that has waited, if there is one. The engine may close it while the request is on
    /// its way, which says nothing of the request: it is asked once more, on a new one.
    async fn ask(&self, request: Vec<u8>) -> Result<Answer, Unanswered> {
        if let Some(mut waited) = self.idle.take() {
            let written = waited.write_all(&request).await;
            match self.answer(waited, written).await {
                Err(Unanswered::Closed(_)) => {}
                answered => return answered,
            }
        }
        let mut new = self.connect().await?;
        let written = new.write_all(&request).await;
        drop(request);
        self.answer(new, written).await
    }

    async fn answer(&self, stream: TcpStream, written: io::Result<()>) -> Result<Answer, Unanswered> {
        match (self.head(stream).await, written) {
            (Err(Unanswered::Closed(_)), Err(error)) => Err(Unanswered::Closed(error)),
            // An engine that does not want all of a request may answer and close while it is written.
            (answered, _) => answered,
        }
    }

    async fn connect(&self) -> Result<TcpStream, Unanswered> {
        let connecting = timeout(CONNECT_TIMEOUT, TcpStream::connect(self.addr));
        let connected = connecting.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let stream = connected.map_err(Unanswered::Connect)?;
        stream.set_nodelay(true).map_err(Unanswered::Connect)?;
        Ok(stream)
    }

    async fn head(&self, mut stream: TcpStream) -> Result<Answer, Unanswered> {
        let mut bytes = Vec::with_capacity(1 << 10);
        loop {
            let read = timeout(SILENCE, stream.read_buf(&mut bytes)).await.map_err(|_| Unanswered::Silent)?;
            let came =
                read.and_then(|n| if n > 0 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) });
            match came {
                Err(error) if bytes.is_empty() => return Err(Unanswered::Closed(error)),
                Err(error) => return Err(Unanswered::Broken(error)),
                Ok(()) if bytes.len() > MAX_HEAD_BYTES => return Err(Unanswered::NotHttp),
                Ok(()) => {}
            }
            while let Some(head) = Head::read(&bytes)? {
                bytes.drain(..head.length);
                // Not the answer yet.
                if (100..200).contains(&head.status) {
                    continue;
                }
                let idle = head.stays.then(|| self.idle.clone());
                return Ok(Answer {
                    status: head.status,
                    body: Body::new(stream, head.framing, bytes, idle),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
