//! Schemathesis against a running orchestratord with the real engine: so many cases made from the
//! OpenAPI document, valid and not, and every answer must be one that the document describes; no 5xx
//! but the documented 503.
//!
//! Names in the document that are any text by its letter (a pool, a model, a task) are narrowed to a
//! few that exist and one that does not: a random one would only ever be 404. Streams that go on for
//! as long as somebody reads them are left out, and so is removing models, because the cache is the
//! machine's.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::contracts;

/// An engine that is not in the cache yet is built first.
const READY_WITHIN: Duration = Duration::from_secs(1_800);
/// What is not there to be asked: endless streams, and what would touch the machine's models.
const LEFT_OUT: [&str; 3] = ["/v2/events$", "/v2/tasks/[^/]+/events$", "/logs$"];

/// How much is tried.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Cases, at least
    #[arg(long, default_value_t = 10_000)]
    cases: u64,
    /// Of the first round; each further one takes the next
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The program, as `pip install schemathesis` makes it
    #[arg(long, env = "SCHEMATHESIS", default_value = "schemathesis")]
    program: PathBuf,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let version = Command::new(&options.program).arg("--version").output().with_context(|| {
        format!(
            "starting {}; install it with `pip install schemathesis`, or name it with --program",
            options.program.display()
        )
    })?;
    say(&String::from_utf8_lossy(&version.stdout))?;
    let dir = tempfile::tempdir().context("making a directory")?;
    let document = dir.path().join("openapi.json");
    std::fs::write(&document, narrowed()?.to_string()).context("writing the narrowed document")?;
    let served = Served::start(dir.path())?;
    let (mut cases, mut round) = (0, 0);
    while cases < options.cases {
        let made = self::round(options, &document, served.addr, options.seed + round)?;
        ensure!(made > 0, "schemathesis made no case");
        (cases, round) = (cases + made, round + 1);
        say(&format!("{cases} of {} cases\n", options.cases))?;
    }
    say(&format!("{cases} cases in {round} rounds: every answer is one that the document describes\n"))
}

/// One run; how many cases it was.
fn round(options: &Options, document: &Path, addr: SocketAddr, seed: u64) -> Result<u64> {
    let output = Command::new(&options.program)
        .arg("run")
        .arg(document)
        .args(["--url", &format!("http://{addr}"), "--seed", &seed.to_string(), "--no-color"])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", "100", "--workers", "1"])
        .args([
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        ])
        .args(["--continue-on-failure", "--request-timeout", "60", "--suppress-health-check", "all"])
        .args(["--exclude-path-regex", &LEFT_OUT.join("|")])
        .args(["--exclude-operation-id", "delete_v2_catalog_models_id"])
        .current_dir(document.parent().unwrap_or(Path::new(".")))
        .stderr(Stdio::inherit())
        .output()
        .context("running schemathesis")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let generated = text.lines().find_map(|line| line.trim().split_once(" generated")?.0.parse().ok());
    if !output.status.success() {
        bail!("{text}\nseed {seed}: not every answer is one that the document describes");
    }
    generated.context("schemathesis did not say how many cases it made")
}

/// The document with names that exist.
fn narrowed() -> Result<Value> {
    let documents = contracts::openapi()?;
    let document = documents.iter().find(|document| document.path.ends_with("orchestratord.json"));
    let mut document: Value =
        serde_json::from_str(&document.context("there is no document of orchestratord")?.text)?;
    let paths = document["paths"].as_object_mut().context("the document has no paths")?;
    for (path, item) in paths {
        let names = match path.split('/').nth(2) {
            Some("pools") => json!(["haiku", "nobody"]),
            Some("tasks") => json!(["t1", "t2", "t3", "nobody"]),
            Some("sessions") => json!(["s1", "s2", "nobody"]),
            Some("workers") => json!(["w1", "w2", "nobody"]),
            _ => continue,
        };
        for operation in item.as_object_mut().into_iter().flat_map(|item| item.values_mut()) {
            for parameter in operation["parameters"].as_array_mut().into_iter().flatten() {
                if parameter["in"] == "path" {
                    parameter["schema"] = json!({"type": "string", "enum": names});
                }
            }
        }
    }
    let schemas = document["components"]["schemas"].as_object_mut().context("the document has no schemas")?;
    for (name, schema) in schemas.iter_mut().filter(|(name, _)| name.ends_with("Request")) {
        if let Some(model) = schema["properties"].get_mut("model").filter(|_| *name != "ReloadRequest") {
            *model = json!({"type": "string", "enum": ["haiku", "gpt-4o-mini", "nobody"]});
        }
    }
    let task = &mut schemas["TaskRequest"]["properties"];
    task["task_id"] = json!({"type": ["string", "null"], "enum": ["t1", "t2", "t3", null]});
    task["session_id"] = json!({"type": ["string", "null"], "enum": ["s1", "s2", null]});
    Ok(document)
}

/// An orchestratord of our own; stopped when dropped.
struct Served {
    child: Child,
    addr: SocketAddr,
}

impl Served {
    fn start(dir: &Path) -> Result<Self> {
        // Not a release: what a debug build asserts is asked, too.
        let built = stub_llama::cargo().args(["build", "-p", "orchestratord"]).status();
        ensure!(built.context("running cargo")?.success(), "orchestratord does not build");
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), PathBuf::from);
        let addr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr().context("choosing a port")?;
        let config = dir.join("config.yaml");
        let pool = "{ id: haiku, model: 'builtin:haiku', aliases: [gpt-4o-mini], deterministic: true }";
        let runtime = dir.join("runtime");
        let text = format!(
            "api: {{ listen: '{addr}' }}\npaths: {{ runtime: '{}' }}\npools: [{pool}]\n",
            runtime.display()
        );
        std::fs::write(&config, text).context("writing the configuration")?;
        let log = std::fs::File::create(dir.join("orchestratord.log")).context("making the log")?;
        let child = Command::new(target.join("debug/orchestratord"))
            .arg("--config")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting orchestratord")?;
        let served = Self { child, addr };
        served.until_ready()?;
        Ok(served)
    }

    fn until_ready(&self) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < READY_WITHIN {
            if answers(self.addr).is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        bail!("orchestratord is not ready after {} s", READY_WITHIN.as_secs())
    }
}

fn answers(addr: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(addr).ok()?;
    stream.write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

impl Drop for Served {
    fn drop(&mut self) {
        // In order, so that its engine goes, too.
        let asked = Command::new("kill").arg(self.child.id().to_string()).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn say(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("writing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_are_narrowed_are_in_the_document() {
        let document = narrowed().unwrap();
        let parameter = &document["paths"]["/v2/tasks/{id}"]["get"]["parameters"][0]["schema"]["enum"];
        assert_eq!(parameter[0], "t1");
        for request in ["TaskRequest", "ChatCompletionRequest", "MessagesRequest", "TextCompletionRequest"] {
            let model = &document["components"]["schemas"][request]["properties"]["model"]["enum"];
            assert_eq!(model[0], "haiku", "{request}");
        }
        assert!(
            document["paths"]
                .as_object()
                .unwrap()
                .values()
                .any(|item| item["delete"]["operationId"] == "delete_v2_catalog_models_id")
        );
    }
}
