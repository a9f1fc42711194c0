//! A web server of the standard library for the tests: each connection one request, every request
//! remembered, and able to misbehave.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// One request as it came; header names in lower case.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    headers: Vec<(String, String)>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn is_get(&self) -> bool {
        self.method == "GET" && !self.path.starts_with("/api/")
    }

    /// The first byte asked for.
    pub(crate) fn from(&self) -> usize {
        self.range().0
    }

    /// The byte after the last one asked for; none where everything is.
    pub(crate) fn to(&self) -> Option<usize> {
        self.range().1
    }

    fn range(&self) -> (usize, Option<usize>) {
        let range = self.header("range").and_then(|range| range.strip_prefix("bytes="));
        let Some((from, last)) = range.and_then(|range| range.split_once('-')) else { return (0, None) };
        (from.parse().unwrap(), last.parse().ok().map(|last: usize| last + 1))
    }
}

/// One answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    sent: Option<usize>,
    hang: bool,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn body(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    /// `bytes` from where the request asks, as a server with ranges does it.
    pub(crate) fn ranged(seen: &Seen, bytes: &[u8], etag: &str) -> Self {
        let valid = seen.header("if-range").is_none_or(|validator| validator == etag);
        match seen.range() {
            (0, None) => Self::body(bytes).with("ETag", etag).with("Accept-Ranges", "bytes"),
            _ if valid => Self::rest(seen, bytes, etag),
            _ => Self::body(bytes).with("ETag", etag),
        }
    }

    /// The part of `bytes` that the request asks for, whatever validator it names.
    pub(crate) fn rest(seen: &Seen, bytes: &[u8], etag: &str) -> Self {
        let (from, to) = seen.range();
        let to = to.unwrap_or(bytes.len()).min(bytes.len());
        let range = format!("bytes {from}-{}/{}", to - 1, bytes.len());
        let reply = Self { status: 206, body: bytes[from..to].to_vec(), ..Self::default() };
        reply.with("Content-Range", &range).with("ETag", etag)
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With these bytes after the others.
    pub(crate) fn followed_by(mut self, more: &[u8]) -> Self {
        self.body.extend_from_slice(more);
        self
    }

    /// The connection closes after so many bytes of the body.
    pub(crate) fn cut_after(mut self, bytes: usize) -> Self {
        self.sent = Some(bytes);
        self
    }

    /// After so many bytes nothing more comes, and the connection stays open.
    pub(crate) fn stall_after(mut self, bytes: usize) -> Self {
        self.hang = true;
        self.cut_after(bytes)
    }

    fn send(&self, mut stream: &TcpStream, head_only: bool) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", self.status);
        head += &format!("Content-Length: {}\r\n", self.body.len());
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        if !head_only {
            stream.write_all(&self.body[..self.sent.unwrap_or(self.body.len()).min(self.body.len())])?;
        }
        if self.hang {
            // Until the client goes away.
            let _ = stream.read(&mut [0]);
        }
        Ok(())
    }
}

/// What the server answers to a request; the number counts the requests for bytes, from 0.
pub(crate) type Answer = dyn Fn(&Seen, usize) -> Reply + Send + Sync;

pub(crate) struct Server {
    pub(crate) base: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer): (_, Arc<Answer>) = (seen.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (log.clone(), answer.clone());
                std::thread::spawn(move || serve(&stream, &log, &*answer));
            }
        });
        Self { base, seen }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The requests for the bytes of a model.
    pub(crate) fn gets(&self) -> Vec<Seen> {
        self.seen().into_iter().filter(Seen::is_get).collect()
    }
}

fn serve(stream: &TcpStream, log: &Mutex<Vec<Seen>>, answer: &Answer) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let pairs = lines.take_while(|line| !line.is_empty());
    let split = |line: String| line.split_once(": ").map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned()));
    let seen = Seen { method, path, headers: pairs.filter_map(split).collect() };
    let nth = {
        let mut log = log.lock().unwrap();
        let nth = log.iter().filter(|seen| seen.is_get()).count();
        log.push(seen.clone());
        nth
    };
    // The client may be gone, which is its right.
    let _ = answer(&seen, nth).send(stream, seen.method == "HEAD");
}
