//! The recipe for nginx in `docs/reaching-it.md`, as it is written there. Where nginx is installed it runs;
//! elsewhere only what the recipe must say is looked for, and that is told.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test helper fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use stub_llama::{RunningStub, Stub, StubConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

const NAME: &str = "llm.example.org";

/// The configuration between the fences.
fn recipe() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reaching-it.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, from) = page.split_once("```nginx\n").unwrap();
    from.split_once("```").unwrap().0.to_owned()
}

/// A process that ends with its owner.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct House {
    stub: RunningStub,
    root: String,
    dir: tempfile::TempDir,
    _nginx: Owned,
    _orchestratord: Owned,
}

/// One word of the recipe for another; a word that is not in it any more is a mistake in the test.
fn replace(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from} in {text}");
    text.replace(from, to)
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not within 30 s");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn orchestratord(dir: &Path, stub: &RunningStub) -> (Owned, PathBuf) {
    let config = dir.join("config.json");
    std::fs::write(&config, json!({"api": {"hosts": [NAME]}, "pools": []}).to_string()).unwrap();
    let log = dir.join("log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_orchestratord"));
    command.arg("--config").arg(config).env_remove("RUST_LOG").env_remove("LLAMA_ORCH_TOKEN");
    command.env("ORCHD_RUNTIME_DIR", dir.join("runtime")).env("ORCHD_ADDR", "127.0.0.1:0");
    command.env("ORCHD_LLAMACPP_URL", stub.url()).stdin(Stdio::null()).stdout(Stdio::null());
    (Owned(command.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap()), log)
}

/// The address that it says it listens on, once its engine is up.
async fn listening(log: &Path) -> String {
    let mut addr = None;
    until("orchestratord is up", async || {
        let text = std::fs::read_to_string(log).unwrap();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        addr = lines.clone().find_map(|line| Some(line["fields"]["addr"].as_str()?.to_owned()));
        addr.is_some() && lines.clone().any(|line| line["fields"]["message"] == "replica up")
    })
    .await;
    addr.unwrap()
}

impl House {
    async fn start(nginx: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let stub = Stub::start(StubConfig::default()).unwrap();
        let (orchestratord, log) = orchestratord(at, &stub);
        let addr = listening(&log).await;
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let (cert, key) = (at.join("cert.pem"), at.join("key.pem"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        // Only what is this machine's: where orchestratord and the certificate are, and a socket that nobody
        // else can have.
        let socket = at.join("socket");
        let recipe = replace(&recipe(), "127.0.0.1:8080", &addr);
        let recipe = replace(&recipe, "listen 443 ssl", &format!("listen unix:{} ssl", socket.display()));
        let recipe = replace(&recipe, "/etc/ssl/llm.pem", &cert.display().to_string());
        let recipe = replace(&recipe, "/etc/ssl/llm.key", &key.display().to_string());
        let dirs = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {}/{kind};\n", at.display()));
        let config = format!(
            "daemon off; master_process off; pid {0}/pid; error_log {0}/error.log;\n\
             events {{}}\nhttp {{\naccess_log off;\n{1}{recipe}}}\n",
            at.display(),
            dirs.concat()
        );
        let file = at.join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(nginx);
        command.arg("-c").arg(&file);
        let errors = std::fs::File::create(at.join("nginx.err")).unwrap();
        let nginx = Owned(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn().unwrap());
        let house = Self { stub, root: made.cert.pem(), dir, _nginx: nginx, _orchestratord: orchestratord };
        until("nginx listens", async || UnixStream::connect(&socket).await.is_ok()).await;
        house
    }

    async fn ask(&self, request: &str) -> tokio_rustls::client::TlsStream<UnixStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.root.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let socket = UnixStream::connect(self.dir.path().join("socket")).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(ServerName::try_from(NAME).unwrap(), socket).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }
}

fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian's is where only root's path leads.
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    dirs.map(|dir| dir.join("nginx")).find(|path| path.is_file())
}

/// ORCHD-PROXY-001
#[tokio::test(flavor = "multi_thread")]
async fn behind_nginx_tokens_come_as_they_are_made_and_a_hang_up_passes_on() {
    let recipe = recipe();
    for needed in ["proxy_buffering off;", "proxy_http_version 1.1;", "proxy_ignore_client_abort off;"] {
        assert!(recipe.contains(needed), "{needed} is not in the recipe");
    }
    let Some(nginx) = installed() else {
        println!("NOT RUN: there is no nginx on this machine; the recipe was read, and not run");
        return;
    };
    let house = House::start(&nginx).await;
    // Nothing comes after the third token: what is seen of the answer was not held back until there is more.
    house.stub.set_faults(|faults| faults.hang_after = Some(3));
    let body = json!({"model": "default", "stream": true, "max_tokens": 1_000_000,
        "messages": [{"role": "user", "content": "go on"}]})
    .to_string();
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nHost: {NAME}\r\n");
    let mut stream = house.ask(&format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await;
    let (mut text, mut part) = (String::new(), [0; 4096]);
    while text.matches("\"content\":\"").count() < 3 {
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut part)).await;
        let read = read.unwrap_or_else(|_| panic!("nothing more after {text}")).unwrap();
        assert!(read > 0, "the stream ended: {text}");
        text.push_str(&String::from_utf8_lossy(&part[..read]));
    }
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let head = text.to_lowercase();
    // Nginx's ids are 32 hexadecimal digits, which orchestratord takes and says.
    let id = head.lines().find_map(|line| line.strip_prefix("x-correlation-id: ")).unwrap();
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    assert_eq!(house.stub.stats().cancelled, 0);
    drop(stream);
    house.stub.wait_for(|stats| stats.cancelled == 1).await.unwrap();
}
