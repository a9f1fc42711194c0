//! Requests to an engine over HTTP/1.1. An answer has no task and no buffer of its own: whoever reads its
//! tokens reads the socket, so that a token costs one wake-up and one read, and a stream that waits holds
//! nothing but its connection.
//!
//! Knows no redirects, no proxies, no TLS and no names: an engine is an address.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, timeout};

use crate::framing::Framing;

/// The engine is on this machine; a connection that takes longer is not coming.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Silence after which a connection is dead, seen at the latest after twice that. Only a backstop: the
/// engine pings every 30 s, and dispatch has its own, shorter limits.
const SILENCE: Duration = Duration::from_secs(120);
/// Shorter than the 5 s after which llama-server closes an idle connection, so that no request is
/// written into one that is closing.
const IDLE: Duration = Duration::from_secs(2);
/// Connections kept for the next request.
const MAX_IDLE: usize = 1024;
const MAX_HEAD_BYTES: usize = 32 << 10;
const MAX_HEADERS: usize = 64;
/// Read at once.
const READ_BYTES: usize = 8 << 10;

/// Connections to one engine. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct Connections {
    addr: SocketAddr,
    /// Behind the request line of every request.
    headers: Arc<str>,
    idle: Idle,
}

#[derive(Clone, Default)]
struct Idle(Arc<Mutex<Vec<(Instant, TcpStream)>>>);

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

/// An answer's head, and its body still to be read. Dropping it before its end closes the connection.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Body,
}

/// See [`Answer`].
pub(crate) struct Body {
    stream: Option<TcpStream>,
    framing: Framing,
    /// Came with the head.
    early: Vec<u8>,
    silence: Silence,
    /// Where the connection goes when the body is over; `None` when the engine closes it then.
    idle: Option<Idle>,
}

/// Tells a dead connection without reading a clock for each piece: the timer finds whether anything was
/// heard since it was set.
struct Silence {
    timer: Pin<Box<Sleep>>,
    heard: bool,
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
        if let Some(waited) = self.idle.take() {
            match self.ask_on(waited, &request).await {
                Err(Unanswered::Closed(_)) => {}
                answered => return answered,
            }
        }
        let new = self.connect().await?;
        self.ask_on(new, &request).await
    }

    async fn ask_on(&self, mut stream: TcpStream, request: &[u8]) -> Result<Answer, Unanswered> {
        let written = stream.write_all(request).await;
        match (written, self.head(stream).await) {
            // An engine that does not want all of a request may answer and close while it is written.
            (_, Ok(answer)) => Ok(answer),
            (Err(error), Err(Unanswered::Closed(_))) => Err(Unanswered::Closed(error)),
            (_, Err(error)) => Err(error),
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
            match read
                .and_then(|read| if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) })
            {
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
                let silence = Silence { timer: Box::pin(tokio::time::sleep(SILENCE)), heard: true };
                let mut body =
                    Body { stream: Some(stream), framing: head.framing, early: bytes, silence, idle };
                body.settle(body.early.is_empty());
                return Ok(Answer { status: head.status, body });
            }
        }
    }
}

impl Body {
    /// Whether all of it was read.
    pub(crate) fn is_over(&self) -> bool {
        self.framing.is_over()
    }

    /// Reads what there is and gives it to `take`, in pieces. False at the end.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&[u8]),
    ) -> Poll<Result<bool, Unanswered>> {
        if !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            self.unframe(&early, take)?;
            return Poll::Ready(Ok(true));
        }
        if self.framing.is_over() {
            return Poll::Ready(Ok(false));
        }
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(false)) };
        let mut space = [MaybeUninit::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut space);
        match Pin::new(stream).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Unanswered::Broken(error))),
            Poll::Pending => {
                ready!(self.silence.poll(cx));
                return Poll::Ready(Err(Unanswered::Silent));
            }
        }
        self.silence.heard = true;
        if !buffer.filled().is_empty() {
            self.unframe(buffer.filled(), &mut take)?;
            return Poll::Ready(Ok(true));
        }
        self.stream = None;
        if self.framing.may_close() {
            return Poll::Ready(Ok(false));
        }
        Poll::Ready(Err(Unanswered::Broken(io::ErrorKind::UnexpectedEof.into())))
    }

    /// Reads up to `limit` bytes to the end; `None` for a body that is larger.
    pub(crate) async fn whole(mut self, limit: usize) -> Result<Option<Vec<u8>>, Unanswered> {
        let (mut whole, mut large) = (Vec::new(), false);
        let mut keep = |bytes: &[u8]| {
            large = large || whole.len() + bytes.len() > limit;
            if !large {
                whole.extend_from_slice(bytes);
            }
            large
        };
        loop {
            let mut over = false;
            let more = poll_fn(|cx| self.poll_read(cx, |bytes| over = keep(bytes))).await?;
            if over {
                return Ok(None);
            }
            if !more {
                return Ok(Some(whole));
            }
        }
    }

    fn unframe(&mut self, mut bytes: &[u8], mut take: impl FnMut(&[u8])) -> Result<(), Unanswered> {
        while let Some(piece) = self.framing.take(&mut bytes).map_err(|_| Unanswered::NotHttp)? {
            take(piece);
        }
        self.settle(bytes.is_empty());
        Ok(())
    }

    /// Once it is over its connection is the next request's, if nothing came behind it.
    fn settle(&mut self, nothing_behind: bool) {
        if self.framing.is_over()
            && let Some(stream) = self.stream.take()
            && let Some(idle) = self.idle.take()
            && nothing_behind
        {
            idle.keep(stream);
        }
    }
}

impl Silence {
    /// Ready when nothing was heard for too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if !std::mem::take(&mut self.heard) {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(Instant::now() + SILENCE);
        }
    }
}

impl Idle {
    /// One that is still open.
    fn take(&self) -> Option<TcpStream> {
        let mut idle = self.fresh();
        // Nothing is owed on it: what can be read is its end, or nothing of ours.
        let is_open = |stream: &TcpStream| {
            let read = stream.try_read(&mut [0]);
            read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        std::iter::from_fn(|| idle.pop()).map(|(_, stream)| stream).find(is_open)
    }

    fn keep(&self, stream: TcpStream) {
        let mut idle = self.fresh();
        if idle.len() < MAX_IDLE {
            idle.push((Instant::now(), stream));
        }
    }

    /// All but those that have waited too long, the oldest first.
    fn fresh(&self) -> MutexGuard<'_, Vec<(Instant, TcpStream)>> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stale = idle.iter().take_while(|(since, _)| since.elapsed() > IDLE).count();
        idle.drain(..stale);
        idle
    }
}

struct Head {
    length: usize,
    status: u16,
    framing: Framing,
    /// Whether the connection may serve another request.
    stays: bool,
}

impl Head {
    /// Reads one; `None` while it is not all there.
    fn read(bytes: &[u8]) -> Result<Option<Self>, Unanswered> {
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

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// An engine that gives each request the next of these answers, on as many connections as it is
    /// asked on; returns how many those were.
    async fn engine(answers: Vec<&'static str>) -> (Connections, tokio::task::JoinHandle<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connections = Connections::new(listener.local_addr().unwrap(), Some("k"));
        let serve = async move {
            let (mut answers, mut accepted) = (answers.into_iter(), 0);
            let mut answer = answers.next();
            while answer.is_some() {
                let (mut stream, _) = listener.accept().await.unwrap();
                accepted += 1;
                let mut request = Vec::new();
                while let Some(text) = answer {
                    request.clear();
                    while !request.ends_with(b"\r\n\r\n{}") {
                        if stream.read_buf(&mut request).await.unwrap() == 0 {
                            break;
                        }
                    }
                    if request.is_empty() {
                        break;
                    }
                    let request = String::from_utf8_lossy(&request);
                    assert!(request.contains("\r\nAuthorization: Bearer k\r\n"), "{request}");
                    stream.write_all(text.as_bytes()).await.unwrap();
                    answer = answers.next();
                    if text.contains("close") || !text.contains("gth") && !text.contains("chunked") {
                        break;
                    }
                }
            }
            accepted
        };
        (connections, tokio::spawn(serve))
    }

    async fn ask(connections: &Connections) -> Result<(u16, String), Unanswered> {
        let answer = connections.post("/x", &[], b"{}").await?;
        let whole = answer.body.whole(100).await?.unwrap();
        Ok((answer.status, String::from_utf8(whole).unwrap()))
    }

    #[tokio::test]
    async fn answers_of_every_framing_are_read_and_a_connection_serves_again_until_it_says_close() {
        let (connections, engine) = engine(vec![
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\nf",
            "HTTP/1.0 200 OK\r\n\r\nall of it",
        ])
        .await;
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(ask(&connections).await.unwrap());
        }
        let expected = [(200, "abc"), (503, "de"), (200, "f"), (200, "all of it")];
        assert_eq!(seen, expected.map(|(status, text)| (status, text.to_owned())));
        assert_eq!(engine.await.unwrap(), 2, "the first connection served three requests");
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_or_is_none_is_an_error() {
        for (bytes, broken) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nconnection: close\r\n\r\nab", true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nconnection: close\r\n\r\n2\r\nab\r\n", true),
            ("HTTP/1.1 200 OK\r\nconnection: close\r\n", true),
            ("close", false),
            ("SSH-2.0-close\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\nx: close\r\n\r\nabcd", false),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\nx: close\r\n\r\n", false),
        ] {
            let (connections, engine) = engine(vec![bytes]).await;
            let error = ask(&connections).await.unwrap_err();
            assert_eq!(matches!(error, Unanswered::Broken(_)), broken, "{bytes:?}: {error}");
            engine.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_not_kept() {
        let long = "HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n".to_owned() + &"x".repeat(101);
        let (connections, _engine) = engine(vec![String::leak(long)]).await;
        let answer = connections.post("/x", &[], b"{}").await.unwrap();
        assert_eq!(answer.body.whole(100).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_connection_that_the_engine_has_closed_is_not_used_again() {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nx: close\r\n\r\na";
        let (connections, engine) = engine(vec![answer, answer]).await;
        ask(&connections).await.unwrap();
        // The engine's side says when it has closed: by listening for the next.
        while connections.idle.take().is_some_and(|stream| {
            connections.idle.keep(stream);
            true
        }) {
            tokio::task::yield_now().await;
        }
        ask(&connections).await.unwrap();
        assert_eq!(engine.await.unwrap(), 2);
    }

    /// Reads a request to its end.
    async fn heard(stream: &mut TcpStream) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n{}") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "the request broke off");
        }
    }

    /// LCPP-014.
    #[tokio::test]
    async fn a_request_on_a_connection_that_closes_under_it_is_asked_once_more_on_a_new_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connections = Connections::new(listener.local_addr().unwrap(), None);
        let engine = async {
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n";
            let (mut kept, _) = listener.accept().await.unwrap();
            heard(&mut kept).await;
            kept.write_all(format!("{answer}a").as_bytes()).await.unwrap();
            heard(&mut kept).await;
            drop(kept);
            let (mut second, _) = listener.accept().await.unwrap();
            heard(&mut second).await;
            second.write_all(format!("{answer}b").as_bytes()).await.unwrap();
            // The next breaks off in its answer: the engine has worked on it, so that it is not asked again.
            heard(&mut second).await;
            second.write_all(b"HTTP/1.1 200").await.unwrap();
            drop(second);
            // Nor is one that a new connection closed on.
            let (mut third, _) = listener.accept().await.unwrap();
            heard(&mut third).await;
        };
        let client = async {
            assert_eq!(ask(&connections).await.unwrap(), (200, "a".to_owned()));
            assert_eq!(ask(&connections).await.unwrap(), (200, "b".to_owned()));
            let error = ask(&connections).await.unwrap_err();
            assert!(matches!(error, Unanswered::Broken(_)), "{error}");
            let error = ask(&connections).await.unwrap_err();
            assert!(matches!(error, Unanswered::Closed(_)), "{error}");
        };
        tokio::join!(engine, client);
    }

    #[tokio::test]
    async fn an_engine_that_falls_silent_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connections = Connections::new(listener.local_addr().unwrap(), None);
        let accept = async { listener.accept().await.unwrap().0 };
        let (stream, mut engine) = tokio::join!(connections.connect(), accept);
        engine.write_all(b"HTTP/1.1 200 OK\r\n\r\na").await.unwrap();
        let mut answer = connections.head(stream.unwrap()).await.unwrap();
        let mut text = Vec::new();
        while text.is_empty() {
            poll_fn(|cx| answer.body.poll_read(cx, |piece| text.extend_from_slice(piece))).await.unwrap();
        }
        tokio::time::pause();
        let since = Instant::now();
        let error = poll_fn(|cx| answer.body.poll_read(cx, |_| {})).await.unwrap_err();
        assert!(matches!(error, Unanswered::Silent), "{error}");
        assert!((SILENCE..3 * SILENCE).contains(&since.elapsed()), "{:?}", since.elapsed());
    }
}
