//! What would stop a run, as data and as the last words of a plan. A plan ends with the code that the run would
//! end with, so that a program that plans first needs no list of its own.

use std::fmt;

use serde::Serialize;
use wire::PoolId;

use super::Plan;
use crate::error::EnsureError;

/// One thing that would stop a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blocker {
    /// What `engine-provisioner` would end with for it alone.
    pub exit_code: u8,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// The plans of all pools, in the order in which a run prepares them.
#[derive(Debug, Default)]
pub struct Verdict<'a> {
    blockers: Vec<(&'a PoolId, &'a Blocker)>,
}

impl Blocker {
    /// What a run would say, without the pool, which stands beside it.
    pub(super) fn of(pool: &PoolId, error: &EnsureError) -> Self {
        let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
        let text = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
        let problem = text.strip_prefix(&format!("pool {pool}: ")).unwrap_or(&text).to_owned();
        Self { exit_code: error.exit_code(), problem }
    }
}

impl<'a> Verdict<'a> {
    /// Everything that would stop something.
    #[must_use]
    pub fn of(plans: &'a [Plan]) -> Self {
        let each = plans.iter().flat_map(|plan| plan.stopped_by.iter().map(|blocker| (&plan.pool, blocker)));
        Self { blockers: each.collect() }
    }

    /// What a run would end with: it stops at the first.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.blockers.first().map_or(0, |(_, first)| first.exit_code)
    }
}

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.blockers.is_empty() {
            return writeln!(f, "nothing that shows from here would stop a run");
        }
        writeln!(f, "a run would stop with exit code {}, because", self.exit_code())?;
        for (pool, Blocker { problem, .. }) in &self.blockers {
            writeln!(f, "  - pool {pool}: {}", problem.replace('\n', "\n    "))?;
        }
        Ok(())
    }
}
