//! The built binary, as whoever runs it meets it: its log, its tokens, its certificate.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test helper fails by panicking")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use stub_llama::{RunningStub, Stub, StubConfig};
use test_harness_e2e_haiku::Client;

/// An orchestratord of its own process, bound to a stub.
struct Daemon {
    child: Child,
    stub: RunningStub,
    addr: String,
    log: Arc<Mutex<Vec<Value>>>,
    dir: tempfile::TempDir,
}

fn command(dir: &Path, config: &Value) -> Command {
    command_with(dir.join("config.json"), config)
}

fn command_with(file: PathBuf, config: &Value) -> Command {
    let dir = file.parent().unwrap().to_owned();
    std::fs::write(&file, config.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_orchestratord"));
    command.arg("--config").arg(file);
    command
        .env_remove("RUST_LOG")
        .env_remove("LLAMA_ORCH_TOKEN")
        .env("ORCHD_RUNTIME_DIR", dir.join("runtime"));
    command.stdin(Stdio::null());
    command
}

impl Daemon {
    fn start(config: Value) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), config)
    }

    fn start_in(dir: tempfile::TempDir, mut config: Value) -> Self {
        let stub = Stub::start(StubConfig::default()).unwrap();
        config["pools"] = json!([]);
        let mut command = command(dir.path(), &config);
        command.env("ORCHD_ADDR", "127.0.0.1:0").env("ORCHD_LLAMACPP_URL", stub.url());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, stderr) = (Arc::clone(&log), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or_else(|_| Value::String(line));
                lines.lock().unwrap().push(line);
            }
        });
        let mut daemon = Self { child, stub, addr: String::new(), log, dir };
        daemon.addr = daemon.wait_for_line(|line| line["fields"]["addr"].is_string())["fields"]["addr"]
            .as_str()
            .unwrap()
            .to_owned();
        daemon.wait_for_line(|line| line["fields"]["message"] == "replica up");
        daemon
    }

    fn wait_for_line(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(line) = self.log.lock().unwrap().iter().find(|line| wanted(line)) {
                return line.clone();
            }
            assert!(Instant::now() < deadline, "not logged: {:#?}", self.log.lock().unwrap());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn runtime(&self) -> PathBuf {
        self.dir.path().join("runtime")
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A killed one would leave its engines for adoption, if it had any.
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        let _ = kill_process(pid, Signal::TERM);
        let _ = self.child.wait();
    }
}

fn http() -> Client {
    Client::orchestratord()
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "not within 30 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// ORCHD-LOG-001, ORCHD-TRACE-001, SEC-004
#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_one_line_of_json_without_what_was_said() {
    let daemon = Daemon::start(json!({}));
    let body = json!({"model": "default", "stream": true, "max_tokens": 5,
        "messages": [{"role": "user", "content": "my secret prompt"}]});
    let answer = http()
        .post(daemon.url("/v1/chat/completions?key=secret"))
        .header("X-Correlation-Id", "mine")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["x-correlation-id"], "mine");
    let text = answer.text().await.unwrap();
    let line = daemon.wait_for_line(|line| line["fields"]["correlation_id"] == "mine");
    let fields = &line["fields"];
    assert_eq!(
        (&fields["method"], &fields["path"], &fields["status"], &fields["bytes"], &fields["complete"]),
        (&json!("POST"), &json!("/v1/chat/completions"), &json!(200), &json!(text.len()), &json!(true)),
        "{line}"
    );
    assert_eq!(fields["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736", "{line}");
    assert!(fields["duration_ms"].as_f64().unwrap() > 0.0, "{line}");
    // A path that nobody serves is not repeated, nor is a task's id.
    http().get(daemon.url("/secret/words")).send().await.unwrap();
    http().get(daemon.url("/v2/tasks/secret")).send().await.unwrap();
    let path = |path: &'static str| move |line: &Value| line["fields"]["path"] == path;
    assert_eq!(daemon.wait_for_line(path("unmatched"))["fields"]["status"], 404);
    assert_eq!(daemon.wait_for_line(path("/v2/tasks/{id}"))["fields"]["status"], 404);
    // A client that goes away in the middle is one too.
    daemon.stub.set_faults(|faults| faults.token = Duration::from_millis(5));
    let mut body = body;
    body["max_tokens"] = json!(1_000_000);
    let request = http().post(daemon.url("/v1/chat/completions")).header("X-Correlation-Id", "gone");
    let mut answer = request.json(&body).send().await.unwrap();
    answer.chunk().await.unwrap();
    drop(answer);
    let line = daemon.wait_for_line(|line| line["fields"]["correlation_id"] == "gone");
    assert_eq!(line["fields"]["complete"], false, "{line}");
    let log = daemon.log.lock().unwrap();
    assert!(log.iter().all(|line| line.is_object()), "{log:#?}");
    assert!(!format!("{log:?}").contains("secret"), "{log:#?}");
}

/// With a file of its own: the daemon would follow what is written into its.
fn token(dir: &Path, config: &Value, arguments: &[&str]) -> Output {
    command_with(dir.join("token.json"), config).args(["token", "new"]).args(arguments).output().unwrap()
}

/// SEC-009, SEC-010
#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_is_let_in_and_a_revoked_one_is_not_without_a_restart() {
    let config = json!({"api": {"tokens_file": "generate"}});
    let daemon = Daemon::start(config.clone());
    let asked = async |path: &str, token: &str| {
        http().get(daemon.url(path)).bearer_auth(token).send().await.unwrap().status().as_u16()
    };
    let generated = std::fs::read_to_string(daemon.runtime().join("token.control")).unwrap();
    assert_eq!(asked("/metrics", generated.trim()).await, 200);

    let made = token(daemon.dir.path(), &config, &["--scope", "data", "--name", "web"]);
    assert!(made.status.success(), "{made:?}");
    let mine = String::from_utf8(made.stdout).unwrap();
    let mine = mine.trim();
    until(async || asked("/v2/pools", mine).await == 200).await;
    assert_eq!(asked("/metrics", mine).await, 403);
    daemon.wait_for_line(|line| line["fields"]["caller"] == "web");
    let file = daemon.runtime().join("tokens");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains(mine), "{text}");
    // A file that cannot be used changes nothing.
    std::fs::write(&file, format!("{text}nonsense\n")).unwrap();
    daemon.wait_for_line(|line| line["level"] == "ERROR");
    assert_eq!(asked("/v2/pools", mine).await, 200);
    let without: String =
        text.lines().filter(|line| !line.contains(" web ")).map(|l| format!("{l}\n")).collect();
    std::fs::write(&file, without).unwrap();
    until(async || asked("/v2/pools", mine).await == 401).await;
    assert_eq!(asked("/metrics", generated.trim()).await, 200);

    let refused = token(daemon.dir.path(), &json!({}), &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("tokens_file: generate"), "{refused:?}");
}

/// SEC-013
#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_read_again_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let first = certify(&cert, &key);
    let daemon = Daemon::start_in(dir, json!({"api": {"tls": {"cert": cert, "key": key}}}));
    let addr = daemon.addr.clone();
    assert_eq!(health(&addr, &first).await.unwrap(), "HTTP/1.1 200 OK");
    let mut open = connected(&addr, &first).await.unwrap();
    assert_eq!(asked(&mut open, "keep-alive").await.unwrap(), "HTTP/1.1 200 OK");
    let second = certify(&cert, &key);
    until(async || health(&addr, &second).await.is_ok()).await;
    assert!(health(&addr, &first).await.is_err(), "the old certificate is still offered");
    // Who was connected before stays so.
    assert_eq!(asked(&mut open, "close").await.unwrap(), "HTTP/1.1 200 OK");
    // A certificate without its key keeps the one before.
    std::fs::write(&cert, &first).unwrap();
    daemon.wait_for_line(|line| line["level"] == "ERROR");
    assert!(health(&addr, &second).await.is_ok());
    // Who speaks no TLS gets no answer.
    assert!(http().get(daemon.url("/health")).send().await.is_err());
}

/// Writes a certificate for localhost; says it in PEM.
fn certify(cert: &Path, key: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(key, made.signing_key.serialize_pem()).unwrap();
    std::fs::write(cert, made.cert.pem()).unwrap();
    made.cert.pem()
}

/// The status line of `/health` over TLS, trusting `root` only.
async fn health(addr: &str, root: &str) -> Result<String, std::io::Error> {
    asked(&mut connected(addr, root).await?, "close").await
}

async fn connected(
    addr: &str,
    root: &str,
) -> Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>, std::io::Error> {
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(addr).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// The status line of one more request, whose answer has a body of one line.
async fn asked(
    stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin),
    connection: &str,
) -> Result<String, std::io::Error> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let request = format!("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let (mut text, mut part) = (String::new(), [0; 1024]);
    while !text.ends_with('}') {
        let read = stream.read(&mut part).await?;
        if read == 0 {
            return Err(std::io::Error::other(format!("closed after {text:?}")));
        }
        text.push_str(&String::from_utf8_lossy(&part[..read]));
    }
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// OV-008
#[test]
fn the_configuration_is_explained_without_starting_anything() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path(), &json!({"journal": {"keep_tasks": 7}}));
    let output =
        command.args(["config", "explain", "--json"]).env("ORCHD_ADDR", "127.0.0.1:9").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |key: &str| lines.iter().find(|line| line["key"] == key).unwrap();
    assert_eq!(
        *of("api.listen"),
        json!({"key": "api.listen", "value": "127.0.0.1:9", "from": "$ORCHD_ADDR"})
    );
    assert_eq!(of("journal.keep_tasks")["value"], 7);
    let from = of("journal.keep_tasks")["from"].as_str().unwrap();
    assert!(from.ends_with("config.json:1:14"), "{from}");
    assert_eq!(of("journal.keep_minutes")["from"], "default");
    assert!(!dir.path().join("runtime").exists(), "nothing is created");
}

/// ORCHD-RUN-002
#[test]
fn what_run_warns_of_is_a_line_for_people_also_where_nobody_has_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let stub = stub_llama::binary().unwrap();
    let config = json!({"paths": {"cache": dir.path().join("cache")}, "pools": [{
        "id": "p", "model": "builtin:haiku", "provisioning": {"sources": [{"path": {"binary": stub}}]},
    }]});
    let mut run = command(dir.path(), &config);
    run.env("ORCHD_ADDR", "127.0.0.1:0").env("LLAMA_ORCH_DEVICES", "none");
    let Output { status, stdout, stderr } =
        run.args(["run", "--max-tokens", "3", "a word"]).output().unwrap();
    let told = String::from_utf8(stderr).unwrap();
    assert!(status.success() && !stdout.is_empty(), "{told}");
    let warning = told.lines().find(|line| line.contains("no NVIDIA card found")).unwrap_or_default();
    assert!(warning.trim_start().starts_with("WARN ") && warning.contains("runs on the CPU"), "{told}");
    assert!(!told.lines().any(|line| line.starts_with('{')), "{told}");
}
