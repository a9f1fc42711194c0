//! How long sessions live and how much they may use.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ConfigProblem;

/// How long sessions live and how much each may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SessionsConfig {
    /// A session is forgotten so long after its last task came or ended.
    pub ttl_ms: u64,
    /// Sessions that are known at once; of more, the one that was not used longest is forgotten.
    pub capacity: usize,
    /// Tasks of one session; null is no limit.
    pub turns: Option<u64>,
    /// Tokens of one session, of prompts and answers; null is no limit.
    pub tokens: Option<u64>,
}

impl Default for SessionsConfig {
    fn default() -> Self {
        Self { ttl_ms: 600_000, capacity: 10_000, turns: None, tokens: None }
    }
}

impl SessionsConfig {
    pub(super) fn problems(&self, out: &mut Vec<ConfigProblem>) {
        let mut check = |ok: bool, key: &str, problem: &str| {
            if !ok {
                out.push(ConfigProblem { path: format!("sessions.{key}"), problem: problem.to_owned() });
            }
        };
        check((1_000..=604_800_000).contains(&self.ttl_ms), "ttl_ms", "must be 1000 to 604800000");
        check((1..=1_000_000).contains(&self.capacity), "capacity", "must be 1 to 1000000");
        let some = |limit: Option<u64>| limit != Some(0);
        check(some(self.turns), "turns", "must be at least 1; leave it out for no limit");
        check(some(self.tokens), "tokens", "must be at least 1; leave it out for no limit");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_could_do_nothing_is_a_mistake() {
        let mut problems = Vec::new();
        SessionsConfig { turns: Some(0), ttl_ms: 0, ..SessionsConfig::default() }.problems(&mut problems);
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["sessions.ttl_ms", "sessions.turns"]);
    }
}
