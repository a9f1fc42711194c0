//! A wire to an engine that breaks after so many tokens, or carries nothing more until the engine dies: a
//! loss at a place that the test chooses. Everything but a stream of tokens passes through.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How a token's frame begins.
const FRAME: &[u8] = b"data: {";

/// Where the wire ends, and how.
struct Limit {
    tokens: AtomicUsize,
    holds: AtomicBool,
}

/// The wire; cut for good when dropped.
pub struct CutWire {
    addr: SocketAddr,
    limit: Arc<Limit>,
    accepting: JoinHandle<()>,
}

impl CutWire {
    /// Lays one to `engine`, as `127.0.0.1:PORT`.
    pub async fn to(engine: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listening for the wire")?;
        let addr = listener.local_addr().context("the wire's address")?;
        let limit = Limit { tokens: AtomicUsize::new(usize::MAX), holds: AtomicBool::new(false) };
        let (engine, limit) = (engine.to_owned(), Arc::new(limit));
        let of_all = Arc::clone(&limit);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A client that finds the engine gone sees a closed connection, as it should.
                let (engine, limit) = (engine.clone(), Arc::clone(&of_all));
                tokio::spawn(async move { carry(client, &engine, &limit).await });
            }
        });
        Ok(Self { addr, limit, accepting })
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// From now on every connection breaks after so many tokens.
    pub fn cut_after(&self, tokens: usize) {
        self.limit.tokens.store(tokens, Ordering::SeqCst);
    }

    /// From now on every connection carries so many tokens, and nothing more until the engine is gone.
    pub fn hold_after(&self, tokens: usize) {
        self.limit.holds.store(true, Ordering::SeqCst);
        self.cut_after(tokens);
    }
}

impl Drop for CutWire {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Carries one connection to its end, or to its last token.
async fn carry(mut client: TcpStream, engine: &str, limit: &Limit) -> Option<()> {
    let mut engine = TcpStream::connect(engine).await.ok()?;
    let (mut asked, mut said) = (vec![0; 16 << 10], vec![0; 16 << 10]);
    let (mut seen, mut frames) = (Vec::new(), 0);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => match read.ok()? {
                0 => return None,
                n => engine.write_all(&asked[..n]).await.ok()?,
            },
            read = engine.read(&mut said) => match read.ok()? {
                0 => return None,
                n => for byte in &said[..n] {
                    seen.push(*byte);
                    if seen.ends_with(FRAME) {
                        seen.clear();
                        if frames == limit.tokens.load(Ordering::SeqCst) {
                            if limit.holds.load(Ordering::SeqCst) {
                                until_gone(&mut engine).await;
                            }
                            return None;
                        }
                        frames += 1;
                    }
                    client.write_all(std::slice::from_ref(byte)).await.ok()?;
                },
            },
        }
    }
}

/// Throws away what the engine says until it says nothing more.
async fn until_gone(engine: &mut TcpStream) {
    let mut said = vec![0; 16 << 10];
    while matches!(engine.read(&mut said).await, Ok(1..)) {}
}
