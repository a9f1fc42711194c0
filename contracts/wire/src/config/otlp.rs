//! Where spans go.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ConfigProblem;

/// Export of spans (what each request and task did when, never a prompt or an answer) to a collector, as
/// OTLP over HTTP. Off unless an endpoint is named.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OtlpConfig {
    /// The collector's address, as `http://127.0.0.1:4318`; `/v1/traces` is added. Plain HTTP: a
    /// collector elsewhere is reached through one on this machine.
    pub endpoint: Option<String>,
    /// Which part of the requests begins a trace, of those that are part of none: 0 to 1. One that names
    /// its trace is told of exactly when that trace is sampled.
    #[schemars(range(min = 0, max = 1))]
    pub sample: f64,
}

impl Default for OtlpConfig {
    fn default() -> Self {
        Self { endpoint: None, sample: 1.0 }
    }
}

impl OtlpConfig {
    pub(crate) fn problems(&self, problems: &mut Vec<ConfigProblem>) {
        let mut problem = |key: &str, problem: &str| {
            problems.push(ConfigProblem { path: format!("otlp.{key}"), problem: problem.to_owned() });
        };
        let plain = |url: &str| {
            let authority =
                url.strip_prefix("http://").map(|rest| rest.split('/').next().unwrap_or_default());
            authority
                .is_some_and(|authority| !authority.is_empty() && !authority.contains(['@', '?', '#', ' ']))
        };
        if self.endpoint.as_deref().is_some_and(|url| !plain(url)) {
            problem("endpoint", "must be a plain address, as http://127.0.0.1:4318");
        }
        if !(0.0..=1.0).contains(&self.sample) {
            problem("sample", "must be 0 to 1");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn problems(text: &str) -> Vec<String> {
        let config: Config = serde_json::from_str(text).unwrap();
        config.problems().into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn only_a_plain_address_and_a_part_of_a_whole_are_taken() {
        for good in ["http://127.0.0.1:4318", "http://collector:4318/", "http://[::1]/otlp"] {
            assert_eq!(problems(&format!(r#"{{"otlp":{{"endpoint":"{good}","sample":0.1}}}}"#)), [""; 0]);
        }
        for bad in ["", "127.0.0.1:4318", "https://c:1", "http://", "http://u:p@c:1", "http:///x"] {
            let path = problems(&format!(r#"{{"otlp":{{"endpoint":"{bad}"}}}}"#));
            assert_eq!(path, ["otlp.endpoint"], "{bad}");
        }
        assert_eq!(problems(r#"{"otlp":{"sample":1.5}}"#), ["otlp.sample"]);
    }
}
