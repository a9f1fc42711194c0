//! Models that have to come over the network: which file a reference means, whether it is here
//! already, and else one verified download of it.
//!
//! What was staged once is found again through the index without asking anybody: a branch name is
//! resolved once and kept. Room for what comes is made within the quota, if there is one.

mod choose;
mod chunk;
mod client;
mod connections;
mod error;
mod fetch;
mod hasher;
mod hub;
mod hub_cache;
mod obtain;
mod partial;
mod patience;
mod pieces;
mod pinned;
mod settings;
mod settle;
mod size;
mod source;
mod store;
mod together;
mod token;
mod unfinished;
mod url;
mod version;

use std::path::{Path, PathBuf};

pub use connections::Connections;
pub use error::FetchError;
pub use patience::Patience;
pub use pinned::{Pinned, fetch_pinned};
pub use settings::Network;
pub use size::{Announced, announced_bytes};
pub use unfinished::Unfinished;

use crate::digest::{DigestCache, of_model};
use crate::stage::StageEvent;
use crate::trust::NO_DIGEST;
use crate::{Cancel, ModelRef};
use client::Client;
use hub::{Hub, Wanted};
use hub_cache::Local;
use source::{Source, addressed, target_of, with_pin};
use store::Entry;
pub(crate) use store::{Disk, MANIFEST, Manifest, Piece, Store, Trust, local_name};
use url::Endpoint;

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
        let patience = self.network.patience;
        let client = self.client(reference, &endpoint, patience);
        let source = self.source(&client, &endpoint, patience, reference, pinned.as_deref())?;
        let entry = self.obtain(&store, &client, &source, &name)?;
        store.record(&name, &entry, Disk::Soon)?;
        Ok(entry.path)
    }

    /// Asks with the hub's token, if there is one; what keeps it from being sent is said when the hub is asked.
    fn client(&self, reference: &ModelRef, endpoint: &Endpoint, patience: Patience) -> Client {
        let asked = self.network.token.look();
        if let (ModelRef::Hub { .. }, Some(notice)) = (reference, asked.notice()) {
            (self.on_event)(StageEvent::Notice(notice));
        }
        Client::new(endpoint, asked, patience)
    }

    /// What another program fetched from the hub, by what its cache says of it; checked like everything.
    fn without_network(&self, reference: &ModelRef, pinned: Option<&str>) -> Result<PathBuf, FetchError> {
        if let Some(found) = self.hub_cache_alone(reference, pinned)
            && let Some(first) = found.first()
            && self.all(&found, |file| self.intact(&file.path, &file.sha256, None))?
        {
            return Ok(first.path.clone());
        }
        Err(FetchError::Offline { cache: self.models.clone() })
    }

    /// What the hub's cache on this machine has of `reference` by itself; its bytes are not looked at.
    fn hub_cache_alone(&self, reference: &ModelRef, pinned: Option<&str>) -> Option<Vec<Local>> {
        let ModelRef::Hub { repo, selector, revision } = reference else { return None };
        let revision = revision.as_deref().unwrap_or(hub::DEFAULT_REVISION);
        let found = hub_cache::local(&self.network.hub_caches, repo, revision, selector)?;
        let digest = of_model(found.iter().map(|file| file.sha256.as_str()));
        pinned.is_none_or(|pinned| pinned.eq_ignore_ascii_case(&digest)).then_some(found)
    }

    /// What an earlier staging left, if it is intact. Touches no network.
    fn known(
        &self,
        store: &Store,
        reference: &ModelRef,
        pinned: Option<&str>,
    ) -> Result<Option<PathBuf>, FetchError> {
        let entry = self.remembered(store, reference, pinned)?;
        match entry {
            Some(entry) if self.intact_entry(&entry)? => {
                settle::later(&self.digests, entry.pieces().into_iter().map(|piece| piece.path));
                Ok(Some(entry.path))
            }
            _ => Ok(None),
        }
    }

    /// Whether what an earlier staging left may be used, or there is nothing; its bytes are not looked at.
    pub(crate) fn usable(&self, reference: &ModelRef, pinned: Option<&str>) -> Result<(), FetchError> {
        self.remembered(&Store::new(&self.models), reference, pinned).map(drop)
    }

    /// What an earlier staging left, if it may be used.
    fn remembered(
        &self,
        store: &Store,
        reference: &ModelRef,
        pinned: Option<&str>,
    ) -> Result<Option<Entry>, FetchError> {
        let entry = match store.recall(&reference.to_string())? {
            Some(entry) if pinned.is_none_or(|pinned| pinned == entry.sha256) => Some(entry),
            _ => {
                pinned.map_or(Ok(()), |pinned| store.refuse_later(pinned))?;
                pinned.and_then(|pinned| store.find(pinned))
            }
        };
        if let Some(entry) = &entry {
            store.refuse_later(&entry.sha256)?;
            self.vouched_for(store, entry, pinned)?;
        }
        Ok(entry)
    }

    fn intact_entry(&self, entry: &Entry) -> Result<bool, FetchError> {
        self.all(&entry.pieces(), |piece| self.intact(&piece.path, &piece.sha256, Some(piece.size)))
    }

    /// Whether all agree; the first that does not ends it.
    fn all<T>(
        &self,
        items: &[T],
        mut agrees: impl FnMut(&T) -> Result<bool, FetchError>,
    ) -> Result<bool, FetchError> {
        for item in items {
            if !agrees(item)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What was fetched when nobody asked for a digest is not good enough once somebody does.
    fn vouched_for(&self, store: &Store, entry: &Entry, pinned: Option<&str>) -> Result<(), FetchError> {
        let unverified =
            || store.held(&entry.sha256).is_some_and(|manifest| manifest.trust == Trust::UnverifiedBySource);
        if self.strict && pinned.is_none() && unverified() {
            return Err(FetchError::Untrusted { problem: NO_DIGEST.to_owned() });
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
        patience: Patience,
        reference: &ModelRef,
        pinned: Option<&str>,
    ) -> Result<Source, FetchError> {
        let source = match reference {
            ModelRef::Hub { repo, selector, revision } => {
                (self.on_event)(StageEvent::progress(format!("asking the hub about {repo}"), 0, 0));
                let hub = Hub { client, endpoint, patience, cancel: self.cancel };
                let found = hub.resolve(&Wanted { repo, selector, revision: revision.as_deref() })?;
                Source {
                    repo: Some(repo.clone()),
                    commit: found.first().map(|first| first.commit.clone()),
                    files: found.iter().map(|found| found.file.clone()).collect(),
                    targets: found.into_iter().map(target_of).collect(),
                    pinned: pinned.map(str::to_owned),
                }
            }
            other => addressed(&other.to_string(), endpoint.rule(), pinned)?,
        };
        with_pin(source)
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

/// Where an earlier staging of `reference` left its file, without checking the bytes.
pub(crate) fn staged_before(models: &Path, reference: &ModelRef) -> Result<Option<PathBuf>, FetchError> {
    let entry = Store::new(models).recall(&reference.to_string())?;
    Ok(entry.map(|entry| entry.path).filter(|path| path.is_file()))
}
