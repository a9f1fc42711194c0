//! Our own accept loop on hyper: header limits and timeouts that really hold, small send buffers and
//! a limit on writes that wait so that a stuck reader costs little, TLS where it is configured, and a
//! shutdown that ends even with a stream open.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::counter::Counter;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::progress::Patient;
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
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept(&self.listener, &room) => accepted,
            };
            let Ok((stream, place)) = accepted else { continue };
            let connection = self.each.clone().serve(stream, words(stop.clone(), kill.clone()));
            connections.spawn(async move {
                connection.await;
                drop(place);
            });
        }
        drop(self.listener);
        connections.close();
        connections.wait().await;
    }
}

/// What the server says to its connections.
#[derive(Clone, Copy)]
enum Word {
    /// Finish what you are at.
    Stop,
    /// Be gone.
    Kill,
}

/// The server's words, looked at only when one has come: a connection is polled for every event that it
/// carries, and asking the tokens each time would take locks that all connections share.
fn words(stop: CancellationToken, kill: CancellationToken) -> impl Stream<Item = Word> + Send + Unpin {
    let when = |token: CancellationToken, word| token.cancelled_owned().map(move |()| word);
    FuturesUnordered::from_iter([when(stop, Word::Stop), when(kill, Word::Kill)])
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
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

impl Each {
    async fn serve(self, stream: TcpStream, words: impl Stream<Item = Word> + Send + Unpin) {
        let socket = SockRef::from(&stream);
        let _ = socket.set_tcp_nodelay(true);
        let _ = socket.set_send_buffer_size(self.limits.send_buffer);
        let _ = socket.set_tcp_user_timeout(Some(self.limits.unacknowledged));
        let stream = Patient::new(stream, self.limits.unread, self.evictions.clone());
        match self.tls.clone() {
            None => self.speak(stream, words).await,
            // On the heap: a TLS session is large, and a connection without one must not have its room.
            Some(tls) => Box::pin(self.shake_hands(tls, stream, words)).await,
        }
    }

    async fn shake_hands(
        self,
        tls: Current<ServerConfig>,
        stream: Patient<TcpStream>,
        mut words: impl Stream<Item = Word> + Send + Unpin,
    ) {
        let handshake = TlsAcceptor::from(tls.get()).accept(stream);
        let handshake = tokio::time::timeout(self.limits.header_timeout, handshake);
        let shaken = tokio::select! {
            biased;
            Some(_) = words.next() => return,
            shaken = handshake => shaken,
        };
        match shaken {
            Ok(Ok(stream)) => self.speak(stream, words).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake took too long"),
        }
    }

    async fn speak(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send,
        mut words: impl Stream<Item = Word> + Unpin,
    ) {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_headers(self.limits.max_headers)
            .max_header_size(self.limits.header_bytes)
            // Also what is buffered of an answer that its reader does not take.
            .max_buf_size(self.limits.header_bytes)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(self.router));
        let mut connection = std::pin::pin!(connection);
        loop {
            tokio::select! {
                biased;
                Some(word) = words.next() => match word {
                    Word::Stop => connection.as_mut().graceful_shutdown(),
                    Word::Kill => return,
                },
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "connection ended");
                    }
                    return;
                }
            }
        }
    }
}
