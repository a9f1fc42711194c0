//! File descriptors: the limit is raised to what the system allows, and the number of connections
//! follows from it, so that a flood of them is turned away before an engine cannot be reached.

use rustix::process::{Resource, getrlimit, setrlimit};

/// A stream holds a client's connection and an engine's.
const PER_CONNECTION: u64 = 2;
/// Files, watches, listeners, probes.
const OURS: u64 = 256;

/// Raises this process's limit as far as it may, and says how many connections that allows, at most
/// `wanted`.
pub(crate) fn connections(wanted: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    affordable(wanted, getrlimit(Resource::Nofile).current)
}

fn affordable(wanted: usize, descriptors: Option<u64>) -> usize {
    let Some(descriptors) = descriptors else { return wanted };
    let room = descriptors.saturating_sub(OURS) / PER_CONNECTION;
    usize::try_from(room).unwrap_or(wanted).clamp(1, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_the_descriptors() {
        assert_eq!(affordable(16_384, None), 16_384);
        assert_eq!(affordable(16_384, Some(1_048_576)), 16_384);
        assert_eq!(affordable(16_384, Some(1_024)), 384);
        assert_eq!(affordable(16_384, Some(10)), 1);
    }
}
