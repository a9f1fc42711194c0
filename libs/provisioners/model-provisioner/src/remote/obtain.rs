//! Getting the files of a resolved model: from another program's cache, from the store, or over the network,
//! within the quota, and published only when all of them are verified.

use std::path::PathBuf;

use super::client::Client;
use super::fetch::{self, Download, Target, Within};
use super::source::Source;
use super::store::{self, Entry, Piece, Ready, Store, Trust};
use super::{FetchError, Remote, hub_cache, partial, settle};
use crate::catalog::Catalog;
use crate::gguf;
use crate::provenance::{self, Happened};
use crate::stage::StageEvent;
use crate::trust::NO_DIGEST;

impl Remote<'_> {
    pub(super) fn obtain(
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
        digest.as_deref().map_or(Ok(()), |sha256| store.refuse_later(sha256))?;
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
            self.digests.know_until_down(&piece.path, &piece.sha256);
        }
        settle::later(&self.digests, entry.pieces().into_iter().map(|piece| piece.path));
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
            let there: u64 = partials.map(|path| partial::bytes_at(&path)).sum();
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
            let connections = self.network.connections;
            let download = Download { client, target, within, patience, connections, on_event, cancel };
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

    /// All files of the model in one cache of another program, the engine finding the others beside the
    /// first.
    fn in_hub_cache(&self, source: &Source) -> Result<Option<Entry>, FetchError> {
        for places in self.hub_cache_places(source) {
            let mut pieces = Vec::new();
            for (target, path) in source.targets.iter().zip(&places) {
                let Some(sha256) = &target.sha256 else { break };
                if !self.intact(path, sha256, target.size)? {
                    break;
                }
                let size = path.metadata().map_or(0, |meta| meta.len());
                pieces.push(Piece { path: path.clone(), sha256: sha256.clone(), size });
            }
            if pieces.len() == source.targets.len() && gguf::read_files(&places).is_ok() {
                return Ok(Entry::of(pieces));
            }
        }
        Ok(None)
    }

    /// Where each cache of another program would have all files of the model, in order; nothing is looked at.
    pub(super) fn hub_cache_places(&self, source: &Source) -> Vec<Vec<PathBuf>> {
        let (Some(repo), Some(commit)) = (&source.repo, &source.commit) else { return Vec::new() };
        let of_each: Vec<Vec<PathBuf>> = source
            .files
            .iter()
            .map(|file| hub_cache::candidates(&self.network.hub_caches, repo, commit, file))
            .collect();
        let places = of_each.iter().map(Vec::len).min().unwrap_or(0);
        (0..places)
            .map(|place| of_each.iter().filter_map(|each| each.get(place).cloned()).collect())
            .collect()
    }
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
