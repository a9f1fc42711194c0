//! Which failures may be over when one tries again without a change: the network came back, the disk
//! has room again. Everything else waits for a person.

use provisioners_model_provisioner::{FetchError, StageError};

use crate::error::EnsureError;

impl EnsureError {
    /// Whether the same call may succeed later although nobody changed anything.
    #[must_use]
    pub fn may_heal(&self) -> bool {
        match self {
            Self::Cache { .. } => true,
            // A source that did not compile or was not what it should be is no matter of time, and a
            // named binary that is not there is a configuration that is wrong.
            Self::NoSource { attempts, .. } => {
                self.exit_code() == 4 && attempts.iter().any(|attempt| !attempt.source.starts_with("path "))
            }
            Self::Model { source, .. } => stage_may_heal(source),
            Self::Config { .. } | Self::Gpu { .. } | Self::Preflight { .. } | Self::Cancelled => false,
        }
    }
}

fn stage_may_heal(error: &StageError) -> bool {
    match error {
        StageError::Store { .. } => true,
        StageError::Fetch { source, .. } => match &**source {
            FetchError::Unreachable { .. } | FetchError::DiskFull { .. } | FetchError::Local { .. } => true,
            FetchError::Status { status, .. } => *status >= 500 || matches!(status, 408 | 429),
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use wire::PoolId;

    use super::*;
    use crate::error::{Attempt, FailureKind};
    use crate::preflight::Report;

    fn pool() -> PoolId {
        PoolId::try_new("p").unwrap()
    }

    fn no_source(attempts: &[(&str, FailureKind)]) -> EnsureError {
        let attempt = |(source, kind): &(&str, _)| Attempt {
            source: (*source).to_owned(),
            kind: *kind,
            reason: String::new(),
        };
        EnsureError::NoSource { pool: pool(), attempts: attempts.iter().map(attempt).collect() }
    }

    fn model(source: FetchError) -> EnsureError {
        let source = StageError::Fetch { reference: "hf:o/r".to_owned(), source: Box::new(source) };
        EnsureError::Model { pool: pool(), source: Box::new(source) }
    }

    #[test]
    fn network_and_disk_may_heal_and_what_a_person_must_change_does_not() {
        use FailureKind::{Build, Fetch, Verification};
        let url = || "https://host/x".to_owned();
        assert!(no_source(&[("path /x", Fetch), ("git x y", Fetch)]).may_heal());
        assert!(!no_source(&[("path /x", Fetch)]).may_heal());
        assert!(!no_source(&[("git x y", Fetch), ("archive z", Build)]).may_heal());
        assert!(!no_source(&[("git x y", Fetch), ("archive z", Verification)]).may_heal());
        assert!(model(FetchError::Status { url: url(), status: 503 }).may_heal());
        assert!(!model(FetchError::Status { url: url(), status: 404 }).may_heal());
        assert!(!model(FetchError::Gated { repo: "o/r".to_owned(), asked: String::new() }).may_heal());
        assert!(model(FetchError::DiskFull { path: "/c".into(), needed_mib: 2, free_mib: 1 }).may_heal());
        assert!(!EnsureError::Preflight { pool: pool(), report: Report::default() }.may_heal());
    }
}
