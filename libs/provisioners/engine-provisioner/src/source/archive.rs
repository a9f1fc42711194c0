//! A tarball from `https:` or `file:`, hashed while it streams, used only when the hash is the pinned one.

use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use wire::config::ArchiveSource;

use super::{Fetch, mismatch, unpack, verify};
use crate::error::{EnsureError, SourceFailure};

const MAX_BYTES: u64 = 1024 * 1024 * 1024;

pub(super) fn fetch(
    source: &ArchiveSource,
    temp: &Path,
    tree: &Path,
    fetch: &Fetch<'_>,
) -> Result<(), SourceFailure> {
    let file = if let Some(path) = source.url.strip_prefix("file:") {
        let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
        if !path.is_file() {
            return Err(SourceFailure::fetch(format!("{} does not exist or is not a file", path.display())));
        }
        verify(&path, &source.sha256, fetch.cancel)?;
        path
    } else if source.url.starts_with("https://") {
        let path = temp.join("archive.tar.gz");
        download(source, &path, fetch)?;
        path
    } else {
        return Err(SourceFailure::fetch("only https:// and file: are fetched"));
    };
    fetch.step.doing("unpacking the source".to_owned());
    unpack::tar_gz(&file, tree, fetch.cancel).map_err(|problem| unpack_failed(problem, fetch))
}

pub(super) fn unpack_failed(problem: String, fetch: &Fetch<'_>) -> SourceFailure {
    if fetch.cancel.is_cancelled() {
        return EnsureError::Cancelled.into();
    }
    SourceFailure::verification(format!("the archive was not unpacked: {problem}"))
}

fn download(source: &ArchiveSource, to: &Path, fetch: &Fetch<'_>) -> Result<(), SourceFailure> {
    let name = source.url.rsplit('/').next().unwrap_or("archive");
    fetch.step.doing(format!("downloading {name}"));
    let (mut body, total) = https::open(&source.url).map_err(SourceFailure::fetch)?;
    let mut file = std::fs::File::create(to).map_err(SourceFailure::cache("write", to))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut done = 0u64;
    loop {
        if fetch.cancel.is_cancelled() {
            return Err(EnsureError::Cancelled.into());
        }
        let n = body
            .read(&mut buffer)
            .map_err(|e| SourceFailure::fetch(format!("the download broke off: {e}")))?;
        if n == 0 {
            break;
        }
        done += n as u64;
        if done > MAX_BYTES {
            return Err(SourceFailure::fetch(format!("the archive is larger than {MAX_BYTES} bytes")));
        }
        hasher.update(&buffer[..n]);
        file.write_all(&buffer[..n]).map_err(SourceFailure::cache("write", to))?;
        if let Some(total) = total {
            fetch.step.progress(
                || format!("downloading {name}: {} of {} KiB", done >> 10, total >> 10),
                done,
                total,
            );
        }
    }
    let actual: String = hasher.finalize().iter().map(|b| format!("{b:02x}")).collect();
    if actual.eq_ignore_ascii_case(&source.sha256) { Ok(()) } else { Err(mismatch(&actual, &source.sha256)) }
}

/// The one network client of this crate. Blocking like everything here, with a TLS stack of its own
/// that no other client in the process depends on; proxy variables are honoured.
mod https {
    use std::io::Read;
    use std::time::Duration;

    use ureq::tls::{RootCerts, TlsConfig};
    use ureq::{Agent, ResponseExt as _};

    /// The body and its length. https only, also after redirects.
    pub(super) fn open(url: &str) -> Result<(Box<dyn Read>, Option<u64>), String> {
        let agent: Agent = Agent::config_builder()
            .https_only(true)
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            // A tarball of this size takes minutes on a slow line, not hours.
            .timeout_recv_body(Some(Duration::from_secs(3600)))
            .build()
            .into();
        let response = agent.get(url).call().map_err(|error| format!("{url}: {error}"))?;
        if response.get_uri().scheme_str() != Some("https") {
            return Err(format!("{url} led to {}, which is not https", response.get_uri()));
        }
        let body = response.into_body();
        let length = body.content_length();
        Ok((Box::new(body.into_reader()), length))
    }
}
