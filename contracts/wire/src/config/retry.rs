//! How often tasks that have shown nothing yet are tried again.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfigProblem, out_of_bounds};

/// How often a task whose engine was lost, or reported an error, before its first token is tried again. All
/// tasks of a pool together have a budget besides: within each window `percent` of those that started in it,
/// or `at_least`, or `per_task` for each of those that ran at once, whichever is most. At most half of it,
/// rounded up, goes to errors, which may be the requests' own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// Times that one task is tried again; 0 is never.
    #[schemars(range(max = 10))]
    pub per_task: u32,
    /// Of the tasks that started within the window, so many in a hundred may be tried again.
    #[schemars(range(max = 100))]
    pub percent: u32,
    /// So many may be tried again in any case.
    #[schemars(range(max = 10_000))]
    pub at_least: u32,
    /// Milliseconds of the window, counted by the second.
    #[schemars(range(min = 1_000, max = 3_600_000))]
    pub window_ms: u64,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { per_task: 2, percent: 20, at_least: 10, window_ms: 60_000 }
    }
}

impl RetryConfig {
    pub(super) fn problems(&self, at: &str, out: &mut Vec<ConfigProblem>) {
        let numbers = [
            ("per_task", self.per_task.into(), (0, 10)),
            ("percent", self.percent.into(), (0, 100)),
            ("at_least", self.at_least.into(), (0, 10_000)),
            ("window_ms", self.window_ms, (1_000, 3_600_000)),
        ];
        out_of_bounds(at, numbers, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(json: &str) -> Vec<String> {
        let mut problems = Vec::new();
        serde_json::from_str::<RetryConfig>(json).unwrap().problems("limits.retry", &mut problems);
        problems.into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn numbers_have_bounds() {
        assert!(problems("{}").is_empty());
        assert!(problems(r#"{"per_task":0,"percent":0,"at_least":0,"window_ms":1000}"#).is_empty());
        assert!(problems(r#"{"per_task":10,"percent":100,"at_least":10000,"window_ms":3600000}"#).is_empty());
        let all = [
            "limits.retry.per_task",
            "limits.retry.percent",
            "limits.retry.at_least",
            "limits.retry.window_ms",
        ];
        assert_eq!(problems(r#"{"per_task":11,"percent":101,"at_least":10001,"window_ms":999}"#), all);
        assert_eq!(problems(r#"{"window_ms":3600001}"#), all[3..]);
    }
}
