//! The HTTP edge, logging, and the way to pool-managerd.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ConfigProblem;
use crate::operations::{self, Body, Daemon};

/// A larger body is no request but an upload.
const MOST_BODY_BYTES: u64 = 256 << 20;

/// orchestratord's listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// Address and port. Anything but loopback needs `tokens_file`.
    pub listen: SocketAddr,
    /// A file with one token per line, or `generate`: `data NAME sha256:DIGEST` or `control NAME
    /// sha256:DIGEST` as `orchestratord token new` writes them, or `data TOKEN` or `control TOKEN`.
    /// Read again when it changes.
    pub tokens_file: Option<TokensFile>,
    /// Certificate and key; null speaks plain HTTP.
    pub tls: Option<TlsConfig>,
    /// Bytes a body may have on a route, as `/v1/chat/completions: 33554432`: 1 to 268435456; 1 MiB where
    /// none is said.
    pub body_limits: BTreeMap<String, u64>,
    /// Accepted `Host` names besides literal loopback addresses.
    pub hosts: Vec<String>,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            tokens_file: None,
            tls: None,
            body_limits: BTreeMap::new(),
            hosts: vec!["localhost".to_owned()],
        }
    }
}

/// TLS of the listener. Both files are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with the certificate chain, the server's own first.
    pub cert: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// Where bearer tokens come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "PathBuf", into = "PathBuf")]
#[schemars(with = "String")]
pub enum TokensFile {
    /// The word `generate`: make one in the runtime directory at first start and print its path.
    Generate,
    /// An existing file.
    Path(PathBuf),
}

impl From<PathBuf> for TokensFile {
    fn from(path: PathBuf) -> Self {
        if path.as_os_str() == "generate" { Self::Generate } else { Self::Path(path) }
    }
}

impl From<TokensFile> for PathBuf {
    fn from(file: TokensFile) -> PathBuf {
        match file {
            TokensFile::Generate => PathBuf::from("generate"),
            TokensFile::Path(path) => path,
        }
    }
}

/// Logging to stderr.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Shape of a log line.
    pub format: LogFormat,
}

/// Shape of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", expecting = "auto, text or json")]
pub enum LogFormat {
    /// Text on a terminal, JSON lines otherwise.
    #[default]
    Auto,
    /// Text always.
    Text,
    /// JSON lines always.
    Json,
}

/// How orchestratord reaches pool-managerd, where that one listens, and how many engines it lets load at
/// once. Read at a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PoolManagerdConfig {
    /// `http://127.0.0.1:9200` of a daemon on this host; null runs pool-managerd inside orchestratord.
    pub url: Option<String>,
    /// Where the daemon listens when it runs by itself.
    pub listen: SocketAddr,
    /// File with the bearer token between the two daemons; null: `<runtime>/pool-managerd.token`,
    /// made by pool-managerd at first start.
    pub token_file: Option<PathBuf>,
    /// Engines that may load at once, of all pools together and those of a reload included; the others wait
    /// in the order in which they came. More only slow each other down, unless the disk is faster than one
    /// engine reads.
    #[schemars(range(min = 1, max = 64))]
    pub loading_at_once: u32,
}

impl Default for PoolManagerdConfig {
    fn default() -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 9200));
        Self { url: None, listen, token_file: None, loading_at_once: 2 }
    }
}

impl ApiConfig {
    pub(super) fn problems(&self, out: &mut Vec<ConfigProblem>) {
        let mut check = |ok: bool, key: &str, problem: &str| {
            if !ok {
                out.push(ConfigProblem { path: format!("api.{key}"), problem: problem.to_owned() });
            }
        };
        let named =
            |file: &TokensFile| !matches!(file, TokensFile::Path(path) if path.as_os_str().is_empty());
        check(
            self.tokens_file.as_ref().is_none_or(named),
            "tokens_file",
            "must be generate, a file, or null for no tokens; it is empty",
        );
        let is_host = |host: &String| !host.trim().is_empty() && !host.contains('/');
        check(
            self.hosts.iter().all(is_host),
            "hosts",
            "must be names of this machine as clients write them, as gpu-box.lan: no scheme, no path, none empty",
        );
        let routes = routes_with_a_body();
        for (route, bytes) in &self.body_limits {
            let key = format!("body_limits.{route}");
            let others = routes.join(", ");
            let known = routes.contains(&route.as_str());
            check(known, &key, &format!("no route {route} takes a body; these do: {others}"));
            let range = format!("must be 1 to {MOST_BODY_BYTES} bytes; leave it out for 1 MiB");
            check((1..=MOST_BODY_BYTES).contains(bytes), &key, &range);
        }
    }
}

/// Of orchestratord, each once.
fn routes_with_a_body() -> Vec<&'static str> {
    let taking = operations::of(Daemon::Orchestratord).filter(|op| op.request != Body::None);
    let mut routes: Vec<_> = taking.map(|op| op.path).collect();
    routes.sort_unstable();
    routes.dedup();
    routes
}

impl PoolManagerdConfig {
    pub(super) fn problems(&self, out: &mut Vec<ConfigProblem>) {
        let mut check = |ok: bool, key: &str, problem: &str| {
            if !ok {
                out.push(ConfigProblem { path: format!("pool_managerd.{key}"), problem: problem.to_owned() });
            }
        };
        let is_url = |url: &String| url.strip_prefix("http://").is_some_and(|rest| rest.contains(':'));
        check(
            self.url.as_ref().is_none_or(is_url),
            "url",
            "must be http:// with address and port, as http://127.0.0.1:9200, or null to run it in this process",
        );
        let named = |file: &PathBuf| !file.as_os_str().is_empty();
        check(
            self.token_file.as_ref().is_none_or(named),
            "token_file",
            "must name a file, or be null for the one in the runtime directory",
        );
        check((1..=64).contains(&self.loading_at_once), "loading_at_once", "must be 1 to 64 engines");
    }
}
