//! Where models came from and where they went, one line of JSON each, in `models/provenance.jsonl`.
//! It is for people who have to answer for what a machine ran; nothing reads it back.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// What happened.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Happened {
    Fetched,
    FoundInHubCache,
    Imported,
    Evicted,
    Removed,
}

#[derive(Serialize)]
struct Line<'a> {
    at_unix_ms: u64,
    event: Happened,
    digest: &'a str,
    size_bytes: u64,
    reference: &'a str,
    /// Where the bytes came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified_by_source: Option<bool>,
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Appends one line. A disk that does not take it has worse problems; they show elsewhere.
pub(crate) fn note(
    models: &Path,
    event: Happened,
    (digest, size_bytes): (&str, u64),
    reference: &str,
    from: Option<&str>,
    verified_by_source: Option<bool>,
) {
    let line = Line {
        at_unix_ms: unix_ms(SystemTime::now()),
        event,
        digest,
        size_bytes,
        reference,
        from,
        verified_by_source,
    };
    let append = || -> std::io::Result<()> {
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        // One write of one line: two processes do not mix.
        File::options().create(true).append(true).open(models.join("provenance.jsonl"))?.write_all(&text)
    };
    if let Err(error) = append() {
        tracing::debug!(models = %models.display(), %error, "the provenance is not noted");
    }
}
