//! How much each caller may ask for, and how long an answer waits: for its engine, for another one, and for
//! a process that goes down.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfigProblem, RetryConfig, out_of_bounds};

/// How much each caller may ask for: the owner of an API key, else a session, else an address. And how
/// long an answer waits for what it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// What holds for every caller.
    pub default: CallerLimits,
    /// What holds for the callers of these names in the tokens file; what one does not say is as in
    /// `default`.
    pub tokens: BTreeMap<String, CallerLimits>,
    /// Milliseconds without a word, in the middle of an answer, after which its engine counts as lost for
    /// that task. More where the prompts of other slots hold a slow engine up for longer.
    #[schemars(range(min = 1_000, max = 3_600_000))]
    pub engine_silence_ms: u64,
    /// Milliseconds that an answer waits for another engine, or for the next life of its own, after the one
    /// under it was lost. Where its engine took long to load, three times that is waited for all the same.
    #[schemars(range(min = 1_000, max = 86_400_000))]
    pub resume_within_ms: u64,
    /// How often a task is tried again that has shown nothing yet.
    pub retry: RetryConfig,
    /// Milliseconds that running tasks may go on after a stop was asked for.
    #[schemars(range(max = 3_600_000))]
    pub drain_ms: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            default: CallerLimits::default(),
            tokens: BTreeMap::new(),
            engine_silence_ms: 120_000,
            resume_within_ms: 120_000,
            retry: RetryConfig::default(),
            drain_ms: 10_000,
        }
    }
}

/// What one caller may ask for; null is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CallerLimits {
    /// Tasks admitted per minute.
    pub requests_per_minute: Option<u32>,
    /// Tokens per minute, of prompts and answers; an answer counts as what is expected of it until it
    /// has ended.
    pub tokens_per_minute: Option<u32>,
    /// Tasks that wait or run at once.
    pub concurrent_tasks: Option<u32>,
}

impl LimitsConfig {
    /// What holds for the caller of this name; `None` for one without a key.
    #[must_use]
    pub fn of(&self, name: Option<&str>) -> CallerLimits {
        let own = name.and_then(|name| self.tokens.get(name)).copied().unwrap_or_default();
        CallerLimits {
            requests_per_minute: own.requests_per_minute.or(self.default.requests_per_minute),
            tokens_per_minute: own.tokens_per_minute.or(self.default.tokens_per_minute),
            concurrent_tasks: own.concurrent_tasks.or(self.default.concurrent_tasks),
        }
    }

    pub(super) fn problems(&self, out: &mut Vec<ConfigProblem>) {
        let numbers = [
            ("engine_silence_ms", self.engine_silence_ms, (1_000, 3_600_000)),
            ("resume_within_ms", self.resume_within_ms, (1_000, 86_400_000)),
            ("drain_ms", self.drain_ms, (0, 3_600_000)),
        ];
        out_of_bounds("limits", numbers, out);
        self.retry.problems("limits.retry", out);
        let named = self.tokens.iter().map(|(name, limits)| (format!("limits.tokens.{name}"), limits));
        for (at, limits) in std::iter::once(("limits.default".to_owned(), &self.default)).chain(named) {
            for (key, limit) in [
                ("requests_per_minute", limits.requests_per_minute),
                ("tokens_per_minute", limits.tokens_per_minute),
                ("concurrent_tasks", limits.concurrent_tasks),
            ] {
                if limit == Some(0) {
                    let problem = "must be at least 1; leave it out for no limit".to_owned();
                    out.push(ConfigProblem { path: format!("{at}.{key}"), problem });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_token_does_not_say_is_as_for_everybody() {
        let json = r#"{"default":{"requests_per_minute":60,"concurrent_tasks":4},
                       "tokens":{"web":{"concurrent_tasks":16}}}"#;
        let limits: LimitsConfig = serde_json::from_str(json).unwrap();
        let web = limits.of(Some("web"));
        assert_eq!((web.requests_per_minute, web.concurrent_tasks), (Some(60), Some(16)));
        assert_eq!(limits.of(Some("other")), limits.default);
        assert_eq!(limits.of(None), limits.default);
    }

    #[test]
    fn a_limit_of_nothing_is_a_mistake() {
        let json = r#"{"tokens":{"web":{"tokens_per_minute":0}}}"#;
        let mut problems = Vec::new();
        serde_json::from_str::<LimitsConfig>(json).unwrap().problems(&mut problems);
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].path, "limits.tokens.web.tokens_per_minute");
    }

    #[test]
    fn an_engine_may_take_a_breath() {
        let problems = |json: &str| {
            let mut problems = Vec::new();
            serde_json::from_str::<LimitsConfig>(json).unwrap().problems(&mut problems);
            problems.into_iter().map(|problem| problem.path).collect::<Vec<_>>()
        };
        assert!(problems("{}").is_empty());
        assert!(problems(r#"{"engine_silence_ms":1000}"#).is_empty());
        for out_of_range in ["999", "0", "3600001"] {
            let json = format!(r#"{{"engine_silence_ms":{out_of_range}}}"#);
            assert_eq!(problems(&json), ["limits.engine_silence_ms"]);
        }
        assert!(problems(r#"{"resume_within_ms":1000,"drain_ms":0}"#).is_empty());
        let both = ["limits.resume_within_ms", "limits.drain_ms"];
        assert_eq!(problems(r#"{"resume_within_ms":999,"drain_ms":3600001}"#), both);
        assert_eq!(problems(r#"{"resume_within_ms":86400001}"#), both[..1]);
    }
}
