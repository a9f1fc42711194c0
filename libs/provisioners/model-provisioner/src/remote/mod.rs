//! Models that have to come over the network: which file a reference means, whether it is here
//! already, and else one verified download of it.
//!
//! What was staged once is found again through the index without asking anybody: a branch name is
//! resolved once and kept. Room for what comes is made within the quota, if there is one.

mod choose;
mod chunk;
mod client;
mod error;
mod fetch;
mod flusher;
mod hasher;
mod hub;
mod hub_cache;
mod partial;
mod patience;
mod pinned;
mod settings;
mod store;
mod unfinished;
mod url;

use std::path::{Path, PathBuf};

pub use error::FetchError;
pub use patience::Patience;
pub use pinned::{Pinned, fetch_pinned};
pub use settings::Network;
pub use unfinished::Unfinished;

use crate::catalog::Catalog;
use crate::digest::{DigestCache, of_model};
use crate::gguf;
use crate::provenance::{self, Happened};
use crate::stage::StageEvent;
use crate::trust::NO_DIGEST;
use crate::{Cancel, ModelRef};
use client::Client;
use fetch::{Download, Target, Within};
use hub::{Found, Hub, Wanted};
use hub_cache::Local;
use store::{Entry, Ready};
pub(crate) use store::{MANIFEST, Manifest, Piece, Store, Trust, local_name};
use url::{Endpoint, Rule, SafeUrl};

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

/// A model to have, and where from.
struct Source {
    /// Its file, or all files of a split set.
    targets: Vec<Target>,
    repo: Option<String>,
    commit: Option<String>,
    /// What the targets are called there.
    files: Vec<String>,
    /// The configured digest.
    pinned: Option<String>,
}

impl Source {
    /// The model's digest, as far as somebody names it before anything is fetched.
    fn digest(&self) -> Option<String> {
        let digests: Option<Vec<&str>> = self.targets.iter().map(|target| target.sha256.as_deref()).collect();
        digests.map(|digests| of_model(digests.into_iter())).or_else(|| self.pinned.clone())
    }

    fn size(&self) -> Option<u64> {
        self.targets.iter().map(|target| target.size).sum()
    }

    fn url(&self) -> String {
        self.targets.first().map(|target| target.url.to_string()).unwrap_or_default()
    }
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
            let digest = |found: &[Local]| of_model(found.iter().map(|file| file.sha256.as_str()));
            if let Some(found) = found.filter(|found| pinned.is_none_or(|pinned| pinned == digest(found)))
                && let Some(first) = found.first()
                && self.all(&found, |file| self.intact(&file.path, &file.sha256, None))?
            {
                return Ok(first.path.clone());
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
            Some(entry) if self.intact_entry(&entry)? => Ok(Some(entry.path)),
            _ => Ok(None),
        }
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

    fn obtain(
        &self,
        store: &Store,
        client: &Client,
        source: &Source,
        reference: &str,
    ) -> Result<Entry, FetchError> {
        if let Some(entry) = self.in_hub_cache(source)? {
            let (digest, path) = ((entry.sha256.as_str(), entry.size), entry.path.to_string_lossy());
            let event = Happened::FoundInHubCache;
            provenance::note(&self.models, event, digest, reference, Some(&path), Some(true));
            return Ok(entry);
        }
        let name = source.targets.first().map_or(reference, |target| target.name.as_str());
        let _one = store.lock(&store::key(&source.url()), &self.wait_notice(name), self.cancel)?;
        let digest = source.digest();
        if let Some(entry) = digest.as_deref().and_then(|sha256| store.find(sha256))
            && self.intact_entry(&entry)?
        {
            return Ok(entry);
        }
        if self.strict && digest.is_none() {
            return Err(FetchError::Untrusted { problem: NO_DIGEST.to_owned() });
        }
        self.make_room(source.size().unwrap_or(0), None)?;
        let ready = self.fetch_all(store, client, source, digest.as_deref())?;
        let trust = if digest.is_some() { Trust::Verified } else { Trust::UnverifiedBySource };
        if trust == Trust::UnverifiedBySource {
            (self.on_event)(StageEvent::Notice(format!(
                "{reference}: the source names no SHA-256, so nobody vouches for these bytes; what was fetched has {}; \
                 write it as `model_sha256` to pin it",
                store::digest_of(&ready)
            )));
        }
        let entry = store.publish(ready, &source.targets, source.commit.as_deref(), reference, trust)?;
        for piece in entry.pieces() {
            self.digests.know(&piece.path, &piece.sha256);
        }
        let (digest, url) = ((entry.sha256.as_str(), entry.size), source.url());
        let verified = Some(trust == Trust::Verified);
        provenance::note(&self.models, Happened::Fetched, digest, reference, Some(&url), verified);
        if source.size().is_none() {
            // Its size was not known before it came.
            self.make_room(0, Some(&entry.sha256))?;
        }
        Ok(entry)
    }

    /// Every file of the model, verified, each with the bytes it had before an interruption.
    fn fetch_all(
        &self,
        store: &Store,
        client: &Client,
        source: &Source,
        digest: Option<&str>,
    ) -> Result<Vec<Ready>, FetchError> {
        let many = source.targets.len() > 1;
        if let (true, Some(all)) = (many, source.size()) {
            let partials = source.targets.iter().map(|t| store.partial(&store::key(&t.url.to_string())));
            let there: u64 = partials.map(|path| path.metadata().map_or(0, |meta| meta.len())).sum();
            fetch::room(&self.models.join(".partial"), all.saturating_sub(there))?;
        }
        let mut ready = Vec::new();
        let mut before = 0;
        for target in &source.targets {
            if let Some(piece) = digest.filter(|_| many).and_then(|digest| in_place(store, digest, target))
                && self.intact(&piece.path, &piece.sha256, Some(piece.size))?
            {
                before += piece.size;
                ready.push(Ready::InPlace(piece));
                continue;
            }
            let within = Within { before, all: source.size().filter(|_| many) };
            let (patience, on_event, cancel) = (self.network.patience, self.on_event, self.cancel);
            let download = Download { client, target, within, patience, on_event, cancel };
            let file = download.run(&store.partial(&store::key(&target.url.to_string())))?;
            before += file.len();
            ready.push(Ready::Fetched(file));
        }
        let paths: Vec<PathBuf> = ready.iter().map(|file| file.path().to_path_buf()).collect();
        let header = gguf::read_files(&paths);
        let actual = store::digest_of(&ready);
        match (header, &source.pinned) {
            (Err(problem), _) => {
                discard(ready)?;
                Err(FetchError::NotAModel { url: source.url(), source: problem })
            }
            (Ok(_), Some(pinned)) if *pinned != actual => {
                discard(ready)?;
                Err(FetchError::WrongDigest { url: source.url(), expected: pinned.clone(), actual })
            }
            _ => Ok(ready),
        }
    }

    /// All files of the model in one cache of another program, the engine finding the others beside the
    /// first.
    fn in_hub_cache(&self, source: &Source) -> Result<Option<Entry>, FetchError> {
        let (Some(repo), Some(commit)) = (&source.repo, &source.commit) else { return Ok(None) };
        let places: Vec<Vec<PathBuf>> = source
            .files
            .iter()
            .map(|file| hub_cache::candidates(&self.network.hub_caches, repo, commit, file))
            .collect();
        for place in 0..places.first().map_or(0, Vec::len) {
            let mut pieces = Vec::new();
            for (target, places) in source.targets.iter().zip(&places) {
                let (Some(sha256), Some(path)) = (&target.sha256, places.get(place)) else { break };
                if !self.intact(path, sha256, target.size)? {
                    break;
                }
                let size = path.metadata().map_or(0, |meta| meta.len());
                pieces.push(Piece { path: path.clone(), sha256: sha256.clone(), size });
            }
            let paths: Vec<PathBuf> = pieces.iter().map(|piece| piece.path.clone()).collect();
            if pieces.len() == source.targets.len() && gguf::read_files(&paths).is_ok() {
                return Ok(Entry::of(pieces));
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

fn target_of(found: Found) -> Target {
    Target { name: store::local_name(&found.file), url: found.url, size: found.size, sha256: found.sha256 }
}

/// A model at an address; the other files of a split set are beside the first.
fn addressed(address: &str, rule: Rule, pinned: Option<&str>) -> Result<Source, FetchError> {
    let first: SafeUrl = rule.admit(address)?;
    let files = choose::set_of(&first.file_name())?;
    let mut targets = Vec::new();
    for file in &files {
        let url = first.beside(file, rule)?;
        targets.push(Target { name: store::local_name(file), url, size: None, sha256: None });
    }
    Ok(Source { targets, repo: None, commit: None, files, pinned: pinned.map(str::to_owned) })
}

/// The configured digest wins; one that contradicts the hub's can never be satisfied.
fn with_pin(mut source: Source) -> Result<Source, FetchError> {
    let Some(pinned) = source.pinned.take() else { return Ok(source) };
    if let Some(hub) = source.digest().filter(|hub| *hub != pinned) {
        return Err(FetchError::WrongDigest { url: source.url(), expected: pinned, actual: hub });
    }
    if let [only] = source.targets.as_mut_slice() {
        only.sha256.get_or_insert_with(|| pinned.clone());
    }
    source.pinned = Some(pinned);
    Ok(source)
}

/// A file of a set that an interrupted publication has moved to its place already.
fn in_place(store: &Store, digest: &str, target: &Target) -> Option<Piece> {
    let (sha256, size) = (target.sha256.clone()?, target.size?);
    let path = store.dir(digest).join(&target.name);
    path.is_file().then_some(Piece { path, sha256, size })
}

/// Nothing of it is any good.
fn discard(ready: Vec<Ready>) -> Result<(), FetchError> {
    for file in ready {
        if let Ready::Fetched(file) = file {
            file.discard()?;
        }
    }
    Ok(())
}

/// Where an earlier staging of `reference` left its file, without checking the bytes.
pub(crate) fn staged_before(models: &Path, reference: &ModelRef) -> Option<PathBuf> {
    Store::new(models).recall(&reference.to_string()).map(|entry| entry.path).filter(|path| path.is_file())
}
