//! A small https server with a certificate of its own: one file under several paths, some of which
//! misbehave.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring};

#[derive(Clone)]
pub(crate) struct Https {
    pub(crate) base: String,
    /// What a client has to trust.
    pub(crate) authority: PathBuf,
    ranges: Arc<Mutex<Vec<Option<usize>>>>,
}

impl Https {
    pub(crate) fn start(authority: &Path, file: Vec<u8>) -> Self {
        let issuer_key = rcgen::KeyPair::generate().unwrap();
        let mut issuer = rcgen::CertificateParams::new(Vec::new()).unwrap();
        issuer.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer_certificate = issuer.self_signed(&issuer_key).unwrap();
        std::fs::write(authority, issuer_certificate.pem()).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let own = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let own = own.signed_by(&key, &rcgen::Issuer::new(issuer, issuer_key)).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let (log, config) = (ranges.clone(), Arc::new(config));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = ServerConnection::new(config.clone()).unwrap();
                // A client that refuses to go on is what some tests want.
                let _ = answer(StreamOwned::new(connection, stream), &file, &log);
            }
        });
        Self { base, authority: authority.to_owned(), ranges }
    }

    /// The first byte each request for the file asked for.
    pub(crate) fn ranges(&self) -> Vec<Option<usize>> {
        self.ranges.lock().unwrap().clone()
    }
}

fn answer(
    stream: StreamOwned<ServerConnection, TcpStream>,
    file: &[u8],
    log: &Mutex<Vec<Option<usize>>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut from) = (String::new(), None);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        let range = line.to_ascii_lowercase();
        let range = range.trim_end().strip_prefix("range: bytes=").map(str::to_owned);
        from = from.or(range.and_then(|range| range.trim_end_matches('-').parse::<usize>().ok()));
    }
    log.lock().unwrap().push(from);
    let stream = reader.get_mut();
    let rest = &file[from.unwrap_or(0)..];
    let mut head = String::from("HTTP/1.1 200 x\r\n");
    if first.contains("/to-plain-http") {
        head = "HTTP/1.1 302 x\r\nLocation: http://localhost/x\r\n".to_owned();
    } else if let Some(from) = from {
        head = format!("HTTP/1.1 206 x\r\nContent-Range: bytes {from}-{}/{}\r\n", file.len() - 1, file.len());
    }
    head += &format!("Connection: close\r\nETag: \"v1\"\r\nContent-Length: {}\r\n\r\n", rest.len());
    stream.write_all(head.as_bytes())?;
    let rest = if first.starts_with("HEAD ") { &[] } else { rest };
    let cut = first.contains("/cut-once") && from.is_none();
    let sent = if cut { rest.len() / 2 } else { rest.len() };
    stream.write_all(&rest[..sent])?;
    stream.flush()?;
    stream.conn.send_close_notify();
    stream.flush()?;
    // Until the client has read it all and goes away.
    let _ = stream.sock.shutdown(std::net::Shutdown::Write);
    let _ = stream.sock.read(&mut [0; 64]);
    Ok(())
}

/// A proxy for https: it notes where it is asked to lead, and leads there.
pub(crate) struct Proxy {
    pub(crate) base: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = log.clone();
                // Whoever hangs up in the middle is done.
                std::thread::spawn(move || drop(lead(stream, &log)));
            }
        });
        Self { base, asked }
    }

    /// What it was asked for, as `CONNECT host:port`.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn lead(mut client: TcpStream, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split(' ');
    let (method, place) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    log.lock().unwrap().push(format!("{method} {place}"));
    let mut server = TcpStream::connect(place.replace("localhost", "127.0.0.1"))?;
    client.write_all(b"HTTP/1.1 200 x\r\n\r\n")?;
    let (mut up, mut down) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut up, &mut server);
        let _ = server.shutdown(std::net::Shutdown::Write);
    });
    std::io::copy(&mut down, &mut client)?;
    client.shutdown(std::net::Shutdown::Both)
}
