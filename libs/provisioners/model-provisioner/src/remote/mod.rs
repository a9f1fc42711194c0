//! Models that have to come over the network: which file a reference means, whether it is here
//! already, and else one verified download of it.
//!
//! What was staged once is found again through the index without asking anybody: a branch name is
//! resolved once and kept. Room for what comes is made within the quota, if there is one.

mod choose;
mod client;
mod error;
mod fetch;
mod hub;
mod hub_cache;
mod partial;
mod patience;
mod settings;
mod store;
mod url;

use std::path::{Path, PathBuf};

pub use error::FetchError;
pub use patience::Patience;
pub use settings::Network;

use crate::catalog::Catalog;
use crate::digest::DigestCache;
use crate::gguf;
use crate::provenance::{self, Happened};
use crate::stage::StageEvent;
use crate::trust::NO_DIGEST;
use crate::{Cancel, ModelRef};
use client::Client;
use fetch::{Download, Target};
use hub::{Hub, Wanted};
use store::Entry;
pub(crate) use store::{Manifest, Store, Trust};
use url::{Endpoint, SafeUrl};

/// One staging of one reference.
pub(crate) struct Remote<'a> {
    pub(crate) network: &'a Network,
    pub(crate) models: PathBuf,
    pub(crate) digests: DigestCache,
    pub(crate) offline: bool,
    /// Refuse what nobody vouches for.
    pub(crate) strict: bool,
    /// Bytes that fetched models may take.
    pub(crate) quota: Option<u64>,
    pub(crate) on_event: &'a dyn Fn(StageEvent),
    pub(crate) cancel: &'a Cancel,
}

/// A file to have, and where from.
struct Source {
    target: Target,
    repo: Option<String>,
    commit: Option<String>,
    file: String,
}

impl Remote<'_> {
    /// The verified local file of `reference`. `pinned` is the configured SHA-256.
    pub(crate) fn stage(&self, reference: &ModelRef, pinned: Option<&str>) -> Result<PathBuf, FetchError> {
        let store = Store::new(&self.models);
        let pinned = pinned.map(str::to_ascii_lowercase);
        if let Some(path) = self.known(&store, reference, pinned.as_deref())? {
            return Ok(path);
        }
        let name = reference.to_string();
        if self.offline {
            return self.without_network(reference, pinned.as_deref());
        }
        let _one =
            store.lock(&format!("ref-{}", store::key(&name)), &self.wait_notice(&name), self.cancel)?;
        // Whoever held the lock may just have fetched it.
        if let Some(path) = self.known(&store, reference, pinned.as_deref())? {
            return Ok(path);
        }
        let endpoint = Endpoint::parse(&self.network.endpoint)?;
        let client = Client::new(&endpoint, self.network.token.clone(), self.network.patience);
        let source = self.source(&client, &endpoint, reference, pinned.as_deref())?;
        let entry = self.obtain(&store, &client, &source, &name)?;
        store.record(&name, &entry)?;
        Ok(entry.path)
    }

    /// What another program fetched from the hub, by what its cache says of it; checked like everything.
    fn without_network(&self, reference: &ModelRef, pinned: Option<&str>) -> Result<PathBuf, FetchError> {
        if let ModelRef::Hub { repo, selector, revision } = reference {
            let revision = revision.as_deref().unwrap_or(hub::DEFAULT_REVISION);
            let found = hub_cache::local(&self.network.hub_caches, repo, revision, selector);
            if let Some(found) = found.filter(|found| pinned.is_none_or(|pinned| pinned == found.sha256))
                && self.intact(&found.path, &found.sha256, None)?
            {
                return Ok(found.path);
            }
        }
        Err(FetchError::Offline { cache: self.models.clone() })
    }

    /// What an earlier staging left, if it is intact. Touches no network.
    fn known(
        &self,
        store: &Store,
        reference: &ModelRef,
        pinned: Option<&str>,
    ) -> Result<Option<PathBuf>, FetchError> {
        let entry = match store.recall(&reference.to_string()) {
            Some(entry) if pinned.is_none_or(|pinned| pinned == entry.sha256) => Some(entry),
            _ => pinned.and_then(|pinned| store.find(pinned)),
        };
        if let Some(entry) = &entry {
            self.vouched_for(store, entry, pinned)?;
        }
        match entry {
            Some(entry) if self.intact(&entry.path, &entry.sha256, Some(entry.size))? => Ok(Some(entry.path)),
            _ => Ok(None),
        }
    }

    /// What was fetched when nobody asked for a digest is not good enough once somebody does.
    fn vouched_for(&self, store: &Store, entry: &Entry, pinned: Option<&str>) -> Result<(), FetchError> {
        let unverified = || {
            store.held(&entry.sha256).is_some_and(|(_, manifest)| manifest.trust == Trust::UnverifiedBySource)
        };
        if self.strict && pinned.is_none() && unverified() {
            return Err(FetchError::Untrusted { problem: NO_DIGEST.to_owned() });
        }
        Ok(())
    }

    /// Within the quota, before the bytes come; nothing goes for what is here already.
    fn make_room(&self, needed: u64, keep: Option<&str>) -> Result<(), FetchError> {
        let Some(quota) = self.quota else { return Ok(()) };
        let cache = self.models.parent().unwrap_or(&self.models);
        let gone = Catalog::new(cache)
            .make_room(quota, needed, keep)
            .map_err(|source| FetchError::Quota { source })?;
        for digest in gone {
            (self.on_event)(StageEvent::Notice(format!("the model {digest} was evicted to make room")));
        }
        Ok(())
    }

    fn intact(&self, path: &Path, sha256: &str, size: Option<u64>) -> Result<bool, FetchError> {
        let plain = path.metadata().is_ok_and(|meta| meta.is_file() && size.is_none_or(|s| s == meta.len()));
        if !plain {
            return Ok(false);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut report = |done| {
            (self.on_event)(StageEvent::progress(
                format!("checking the SHA-256 of {name}"),
                done,
                size.unwrap_or(done),
            ));
        };
        let computed = self.digests.digest(path, &mut report, self.cancel);
        if self.cancel.is_cancelled() {
            return Err(FetchError::Cancelled);
        }
        // A file that cannot be read is not intact; the fetch that follows replaces it.
        Ok(computed.is_ok_and(|actual| actual == sha256))
    }

    fn source(
        &self,
        client: &Client,
        endpoint: &Endpoint,
        reference: &ModelRef,
        pinned: Option<&str>,
    ) -> Result<Source, FetchError> {
        let source = match reference {
            ModelRef::Hub { repo, selector, revision } => {
                (self.on_event)(StageEvent::progress(format!("asking the hub about {repo}"), 0, 0));
                let hub = Hub { client, endpoint, patience: self.network.patience, cancel: self.cancel };
                let found = hub.resolve(&Wanted { repo, selector, revision: revision.as_deref() })?;
                Source {
                    target: Target {
                        name: store::local_name(&found.file),
                        url: found.url,
                        size: found.size,
                        sha256: found.sha256,
                    },
                    repo: Some(repo.clone()),
                    commit: Some(found.commit),
                    file: found.file,
                }
            }
            other => {
                let url: SafeUrl = endpoint.rule().admit(&other.to_string())?;
                let file = url.file_name();
                let target = Target { name: store::local_name(&file), url, size: None, sha256: None };
                Source { target, repo: None, commit: None, file }
            }
        };
        choose::refuse_split(&source.file)?;
        with_pin(source, pinned)
    }

    fn obtain(
        &self,
        store: &Store,
        client: &Client,
        source: &Source,
        reference: &str,
    ) -> Result<Entry, FetchError> {
        let Source { target, .. } = source;
        if let Some(entry) = self.in_hub_cache(source)? {
            let (digest, path) = ((entry.sha256.as_str(), entry.size), entry.path.to_string_lossy());
            provenance::note(
                &self.models,
                Happened::FoundInHubCache,
                digest,
                reference,
                Some(&path),
                Some(true),
            );
            return Ok(entry);
        }
        let key = store::key(&target.url.to_string());
        let _one = store.lock(&key, &self.wait_notice(&target.name), self.cancel)?;
        if let Some(entry) = target.sha256.as_deref().and_then(|sha256| store.find(sha256))
            && self.intact(&entry.path, &entry.sha256, Some(entry.size))?
        {
            return Ok(entry);
        }
        if self.strict && target.sha256.is_none() {
            return Err(FetchError::Untrusted { problem: NO_DIGEST.to_owned() });
        }
        self.make_room(target.size.unwrap_or(0), None)?;
        let download = Download {
            client,
            target,
            patience: self.network.patience,
            on_event: self.on_event,
            cancel: self.cancel,
        };
        let partial = download.run(&store.partial(&key))?;
        if let Err(source) = gguf::read_header(partial.path()) {
            partial.discard()?;
            return Err(FetchError::NotAModel { url: target.url.to_string(), source });
        }
        let trust = if target.sha256.is_some() { Trust::Verified } else { Trust::UnverifiedBySource };
        if trust == Trust::UnverifiedBySource {
            (self.on_event)(StageEvent::Notice(format!(
                "{reference}: the source names no SHA-256, so nobody vouches for these bytes; what was fetched has {}; \
                 write it as `model_sha256` to pin it",
                partial.sha256()
            )));
        }
        let entry = store.publish(partial, target, source.commit.as_deref(), reference, trust)?;
        self.digests.know(&entry.path, &entry.sha256);
        let (digest, url) = ((entry.sha256.as_str(), entry.size), target.url.to_string());
        let verified = Some(trust == Trust::Verified);
        provenance::note(&self.models, Happened::Fetched, digest, reference, Some(&url), verified);
        if target.size.is_none() {
            // Its size was not known before it came.
            self.make_room(0, Some(&entry.sha256))?;
        }
        Ok(entry)
    }

    fn in_hub_cache(&self, source: &Source) -> Result<Option<Entry>, FetchError> {
        let (Some(repo), Some(commit), Some(sha256)) = (&source.repo, &source.commit, &source.target.sha256)
        else {
            return Ok(None);
        };
        for path in hub_cache::candidates(&self.network.hub_caches, repo, commit, &source.file) {
            if self.intact(&path, sha256, source.target.size)? && gguf::read_header(&path).is_ok() {
                let size = path.metadata().map_or(0, |meta| meta.len());
                return Ok(Some(Entry { path, sha256: sha256.clone(), size }));
            }
        }
        Ok(None)
    }

    fn wait_notice<'b>(&'b self, what: &'b str) -> impl Fn() + 'b {
        move || {
            (self.on_event)(StageEvent::progress(
                format!("waiting for another download of {what} to end"),
                0,
                0,
            ));
        }
    }
}

/// The configured digest wins; one that contradicts the hub's can never be satisfied.
fn with_pin(mut source: Source, pinned: Option<&str>) -> Result<Source, FetchError> {
    match (pinned, &source.target.sha256) {
        (Some(pinned), Some(hub)) if pinned != hub => Err(FetchError::WrongDigest {
            url: source.target.url.to_string(),
            expected: pinned.to_owned(),
            actual: hub.clone(),
        }),
        (Some(pinned), None) => {
            source.target.sha256 = Some(pinned.to_owned());
            Ok(source)
        }
        _ => Ok(source),
    }
}

/// Where an earlier staging of `reference` left its file, without checking the bytes.
pub(crate) fn staged_before(models: &Path, reference: &ModelRef) -> Option<PathBuf> {
    Store::new(models).recall(&reference.to_string()).map(|entry| entry.path).filter(|path| path.is_file())
}
