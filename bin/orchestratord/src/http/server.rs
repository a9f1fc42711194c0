//! Our own accept loop on hyper: header limits and timeouts that really hold, small send buffers and
//! a limit on writes that wait so that a stuck reader costs little, TLS where it is configured, and a
//! shutdown that ends even with a stream open.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::counter::Counter;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::util::MapResponse;

use super::access::{Logged, logged};
use super::progress::Patient;
use super::words::{Listener, Word, Words};
use crate::reload::Current;

/// Limits of the listener. Numbers are RELIABILITY's, measured there.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Open connections; further ones wait in the kernel's backlog.
    pub(crate) connections: usize,
    /// All headers must have arrived by then.
    pub(crate) header_timeout: Duration,
    /// Headers per request.
    pub(crate) max_headers: usize,
    /// Bytes of headers per request.
    pub(crate) header_bytes: usize,
    /// A body must have arrived by then.
    pub(crate) body_timeout: Duration,
    /// Kernel send buffer per connection.
    pub(crate) send_buffer: usize,
    /// A peer that acknowledges nothing for this long is gone.
    pub(crate) unacknowledged: Duration,
    /// A peer that takes nothing of what is written for this long is let go.
    pub(crate) unread: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            header_timeout: Duration::from_secs(5),
            max_headers: 64,
            header_bytes: 32 * 1024,
            body_timeout: Duration::from_secs(30),
            send_buffer: 32 * 1024,
            unacknowledged: Duration::from_secs(30),
            // Below the kernel's limit, so that it is we who notice and count. A receiver that is never read
            // still makes room for a few bytes in its first seconds, and is to be gone after 30.
            unread: Duration::from_secs(20),
        }
    }
}

/// Connections that are accepted before the other tasks of the thread have their turn. Each of a crowd that
/// comes at once is work, and were they accepted as long as there are any, as many as tokio lets a task do in one
/// turn would stand with theirs before each step of the streams that are there already. The crowd itself waits
/// longer for that, in the kernel's backlog.
const TOGETHER: usize = 8;

/// A listener with its router.
pub(crate) struct Server {
    listener: TcpListener,
    each: Each,
}

/// What every connection is served with.
#[derive(Clone)]
struct Each {
    router: Router,
    limits: Limits,
    /// Absent where the configuration names no certificate.
    tls: Option<Current<ServerConfig>>,
    evictions: Counter,
}

impl Server {
    pub(crate) fn new(
        listener: TcpListener,
        router: Router,
        limits: Limits,
        tls: Option<Current<ServerConfig>>,
        evictions: Counter,
    ) -> Self {
        Self { listener, each: Each { router, limits, tls, evictions } }
    }

    /// Accepts until `stop`, then lets open connections finish until `kill`.
    pub(crate) async fn run(self, stop: CancellationToken, kill: CancellationToken) {
        let connections = TaskTracker::new();
        let room = Arc::new(Semaphore::new(self.each.limits.connections));
        let words = Arc::new(Words::default());
        // Since the others had their turn.
        let mut together = 0;
        loop {
            if together == TOGETHER {
                together = 0;
                tokio::task::yield_now().await;
            }
            together += 1;
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                () = kill.cancelled() => break,
                accepted = accept(&self.listener, &room) => accepted,
            };
            let Ok((stream, place)) = accepted else { continue };
            connections.spawn(self.each.clone().serve(stream, words.listen(), place));
        }
        drop(self.listener);
        words.say(Word::Stop);
        connections.close();
        tokio::select! {
            () = connections.wait() => return,
            () = kill.cancelled() => words.say(Word::Kill),
        }
        connections.wait().await;
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    match listener.accept().await {
        Ok((stream, _)) => Ok((stream, place)),
        Err(error) => {
            // Out of descriptors or the like: the peer's fault or a passing one. Do not spin on it.
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(Duration::from_millis(50)).await;
            Err(error)
        }
    }
}

fn set_up(stream: &TcpStream, limits: &Limits) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(limits.send_buffer)?;
    socket.set_tcp_user_timeout(Some(limits.unacknowledged))
}

impl Each {
    /// Until the connection is over; `_place` is held so long.
    async fn serve(self, stream: TcpStream, words: Listener, _place: OwnedSemaphorePermit) {
        if let Err(error) = set_up(&stream, &self.limits) {
            // Slower or larger than it should be, and still a connection.
            tracing::warn!(%error, "cannot set the options of a connection");
        }
        let stream = Patient::new(stream, self.limits.unread, self.evictions.clone());
        match self.tls.clone() {
            None => self.speak(stream, words).await,
            // On the heap: a TLS session is large, and a connection without one must not have its room.
            Some(tls) => Box::pin(self.shake_hands(tls, stream, words)).await,
        }
    }

    async fn shake_hands(self, tls: Current<ServerConfig>, stream: Patient<TcpStream>, mut words: Listener) {
        let handshake = TlsAcceptor::from(tls.get()).accept(stream);
        let handshake = tokio::time::timeout(self.limits.header_timeout, handshake);
        let shaken = tokio::select! {
            biased;
            _ = words.next() => return,
            shaken = handshake => shaken,
        };
        match shaken {
            Ok(Ok(stream)) => self.speak(stream, words).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake took too long"),
        }
    }

    fn speak<S: AsyncRead + AsyncWrite + Unpin + Send>(self, stream: S, words: Listener) -> Speaking<S> {
        let routes = Routes::new(self.router, logged);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_headers(self.limits.max_headers)
            .max_header_size(self.limits.header_bytes)
            // Also what is buffered of an answer that its reader does not take.
            .max_buf_size(self.limits.header_bytes)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
        Speaking { words, connection }
    }
}

type Routes = MapResponse<Router, fn(Response) -> Response<Logged>>;

/// A connection that speaks HTTP. One future without another in it: every event that it carries polls it.
struct Speaking<S> {
    words: Listener,
    connection: http1::Connection<TokioIo<S>, TowerToHyperService<Routes>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Speaking<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { words, connection } = self.get_mut();
        let mut connection = Pin::new(connection);
        while let Poll::Ready(word) = words.poll_next(cx) {
            match word {
                Word::Stop => connection.as_mut().graceful_shutdown(),
                Word::Kill => return Poll::Ready(()),
            }
        }
        if let Err(error) = ready!(connection.poll(cx)) {
            tracing::debug!(%error, "connection ended");
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadBuf};
    use tokio::sync::mpsc;

    use super::*;
    use crate::http::sse;

    /// STREAM-014
    #[tokio::test]
    async fn an_accepted_connection_delays_no_packet_and_buffers_no_more_than_its_limit() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (_client, accepted) = tokio::join!(client, listener.accept());
        let (stream, limits) = (accepted.unwrap().0, Limits::default());
        let socket = SockRef::from(&stream);
        let before = socket.send_buffer_size().unwrap();
        set_up(&stream, &limits).unwrap();
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(limits.unacknowledged));
        // Linux doubles what is asked for, for its own bookkeeping.
        let (least, most) = (limits.send_buffer, 2 * limits.send_buffer);
        let set = socket.send_buffer_size().unwrap();
        assert!((least..=most).contains(&set) && set != before, "{set}, and {before} before");
    }

    /// A connection that counts what is written to it.
    struct Counted(DuplexStream, Arc<AtomicUsize>);

    impl AsyncRead for Counted {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Counted {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.1.fetch_add(1, Ordering::SeqCst);
            Pin::new(&mut self.0).poll_write(cx, buf)
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[io::IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.1.fetch_add(1, Ordering::SeqCst);
            Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    /// STREAM-014
    #[tokio::test]
    async fn events_that_are_ready_together_leave_in_one_write() {
        let (events, receiver) = mpsc::unbounded_channel::<Bytes>();
        let receiver = Arc::new(std::sync::Mutex::new(Some(receiver)));
        let router = Router::new().fallback(async move || {
            let receiver = receiver.lock().unwrap().take().unwrap();
            sse::response(futures_util::stream::unfold(receiver, |mut events| async {
                Some((events.recv().await?, events))
            }))
        });
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let writes = Arc::new(AtomicUsize::new(0));
        let each = Each { router, limits: Limits::default(), tls: None, evictions: Counter::default() };
        let stream = Patient::new(Counted(ours, Arc::clone(&writes)), each.limits.unread, Counter::default());
        let words = Arc::new(Words::default());
        let serving = tokio::spawn(each.speak(stream, words.listen()));
        theirs.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut seen = Vec::new();
        for (together, last) in [("a", "a"), ("bcd", "d"), ("efghijklmno", "o")] {
            let before = writes.load(Ordering::SeqCst);
            for event in together.bytes() {
                events.send(Bytes::from(format!("data: {}\n\n", char::from(event)))).unwrap();
            }
            let end = format!("data: {last}\n\n\r\n");
            while !seen.ends_with(end.as_bytes()) {
                assert_ne!(theirs.read_buf(&mut seen).await.unwrap(), 0);
            }
            let after = writes.load(Ordering::SeqCst);
            assert!(after - before == 1 || together == "a", "{together}: {} writes", after - before);
        }
        words.say(Word::Kill);
        serving.await.unwrap();
    }

    /// STREAM-016
    #[tokio::test]
    async fn a_crowd_that_comes_at_once_is_let_in_a_few_at_a_time() {
        const CROWD: usize = 64;
        let answered = Arc::new(AtomicUsize::new(0));
        let router = Router::new().fallback({
            let answered = Arc::clone(&answered);
            async move || {
                answered.fetch_add(1, Ordering::SeqCst);
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut crowd = Vec::new();
        for _ in 0..CROWD {
            let mut client = std::net::TcpStream::connect(address).unwrap();
            io::Write::write_all(&mut client, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            crowd.push(client);
        }
        let kill = CancellationToken::new();
        let server = Server::new(listener, router, Limits::default(), None, Counter::default());
        let serving = tokio::spawn(server.run(CancellationToken::new(), kill.clone()));
        let (mut before, mut most) = (0, 0);
        let all = async {
            while before < CROWD {
                // Somebody else's turn.
                tokio::task::yield_now().await;
                let now = answered.load(Ordering::SeqCst);
                (before, most) = (now, most.max(now - before));
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
        assert!(most <= 8, "{most} were served in one turn");
        kill.cancel();
        serving.await.unwrap();
    }

    /// STREAM-016
    #[tokio::test]
    async fn a_stream_that_always_has_more_takes_two_writes_at_a_turn() {
        let piece = Bytes::from(vec![b'x'; sse::WRITE_BYTES]);
        let router =
            Router::new().fallback(async move || sse::response(futures_util::stream::repeat(piece.clone())));
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let each = Each { router, limits: Limits::default(), tls: None, evictions: Counter::default() };
        let stream = Patient::new(ours, each.limits.unread, Counter::default());
        let mut serving = each.speak(stream, Arc::new(Words::default()).listen());
        theirs.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut seen = vec![0; 1 << 20];
        for _ in 0..5 {
            assert!(futures_util::poll!(&mut serving).is_pending(), "it has no end");
            let read = theirs.read(&mut seen).await.unwrap();
            assert!((4_096..20_000).contains(&read), "{read} bytes in one turn");
        }
    }
}
