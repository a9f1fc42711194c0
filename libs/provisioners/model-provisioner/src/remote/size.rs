//! What the source of a model or of an archive says before anything is fetched, for a plan: asked once and
//! briefly.

use std::path::PathBuf;
use std::time::Duration;

use super::client::{Ask, Client, Head, Problem};
use super::fetch::Target;
use super::source::Source;
use super::url::{Endpoint, Rule};
use super::{FetchError, Patience, Remote};
use crate::trust::NO_DIGEST;
use crate::{Cancel, ModelRef};

/// Whoever asks for a plan does not wait longer for an answer.
const SOON: Duration = Duration::from_secs(5);

/// What is known of a model that was not staged yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Announced {
    /// Its size; `None` where its source does not say.
    pub bytes: Option<u64>,
    /// The first of its files in the hub's own cache on this machine, where all of them are as long as they
    /// should be; they are hashed before they are used.
    pub in_hub_cache: Option<PathBuf>,
}

/// How large the file at an https address is; `None` where the server does not say.
///
/// # Errors
/// The server's refusal, or that it does not answer.
pub fn announced_bytes(url: &str, cancel: &Cancel) -> Result<Option<u64>, FetchError> {
    let url = Rule::HttpsOnly.admit(url)?;
    let client = Client::anonymous(Rule::HttpsOnly, briefly(Patience::default()));
    let target = Target { name: url.file_name(), url, size: None, sha256: None };
    Ok(announced(&asked(&client, &target, cancel)?))
}

impl Remote<'_> {
    /// What there is to fetch for `reference`.
    pub(crate) fn announced(
        &self,
        reference: &ModelRef,
        pinned: Option<&str>,
    ) -> Result<Announced, FetchError> {
        let patience = briefly(self.network.patience);
        let endpoint = Endpoint::parse(&self.network.endpoint)?;
        let client = self.client(reference, &endpoint, patience);
        let source = self.source(&client, &endpoint, patience, reference, pinned)?;
        if self.strict && source.digest().is_none() {
            return Err(FetchError::Untrusted { problem: NO_DIGEST.to_owned() });
        }
        let mut all = Some(0u64);
        for target in &source.targets {
            let size = match target.size {
                Some(size) => Some(size),
                None => announced(&asked(&client, target, self.cancel)?),
            };
            all = all.zip(size).map(|(all, size)| all.saturating_add(size));
        }
        Ok(Announced { bytes: all, in_hub_cache: self.promising(&source) })
    }

    /// What can be staged from the hub's cache without any network.
    pub(crate) fn announced_offline(
        &self,
        reference: &ModelRef,
        pinned: Option<&str>,
    ) -> Result<Announced, FetchError> {
        let found = self.hub_cache_alone(reference, pinned).unwrap_or_default();
        let sizes = found.iter().map(|file| file.path.metadata().ok().map(|meta| meta.len()));
        match (sizes.sum(), found.first()) {
            (Some(bytes), Some(first)) => {
                Ok(Announced { bytes: Some(bytes), in_hub_cache: Some(first.path.clone()) })
            }
            _ => Err(FetchError::Offline { cache: self.models.clone() }),
        }
    }

    /// The first file of a set in the hub's cache that looks as the hub says.
    fn promising(&self, source: &Source) -> Option<PathBuf> {
        let all_there = |places: &Vec<PathBuf>| {
            source.targets.iter().zip(places).all(|(target, path)| {
                let length = path.metadata().ok().filter(|meta| meta.is_file()).map(|meta| meta.len());
                target.sha256.is_some()
                    && length.is_some_and(|len| target.size.is_none_or(|size| size == len))
            })
        };
        self.hub_cache_places(source).into_iter().find(all_there)?.into_iter().next()
    }
}

fn briefly(usual: Patience) -> Patience {
    Patience { tries: 1, connect: usual.connect.min(SOON), stall: usual.stall.min(SOON), ..usual }
}

fn asked(client: &Client, target: &Target, cancel: &Cancel) -> Result<Head, FetchError> {
    let url = target.url.to_string();
    match client.ask(&target.url, Ask::HeadAnywhere, cancel) {
        // Some servers know no HEAD; what they say of its size shows when it is fetched.
        Ok((head, _)) if (200..300).contains(&head.status) || matches!(head.status, 405 | 501) => Ok(head),
        Ok((head, _)) if !head.is_transient() => Err(FetchError::Status { url, status: head.status }),
        Ok((head, _)) => {
            let problem = format!("HTTP status {}", head.status);
            Err(FetchError::Unreachable { url, tries: 1, problem })
        }
        Err(Problem::Transient(problem)) => Err(FetchError::Unreachable { url, tries: 1, problem }),
        Err(Problem::Final(error)) => Err(error),
    }
}

fn announced(head: &Head) -> Option<u64> {
    head.number("content-length").filter(|_| (200..300).contains(&head.status))
}
