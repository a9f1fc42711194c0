//! A model on its way to a machine without any network: which files and which manifest go with it, and how
//! they are taken into the other machine's store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use wire::{ModelPart, ModelRecord};

use crate::catalog::{Catalog, CatalogError};
use crate::digest::{DigestCache, of_model};
use crate::gguf;
use crate::provenance::{self, Happened};
use crate::remote::{Disk, MANIFEST, Manifest, Trust, local_name};

/// What belongs to a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedModel {
    /// The text of its `manifest.json`.
    pub manifest: Vec<u8>,
    /// Each file and the plain name it has beside the manifest.
    pub files: Vec<(String, PathBuf)>,
}

impl Catalog {
    /// Packs the model that was staged as `record`.
    pub fn pack(&self, record: &ModelRecord) -> Result<PackedModel, CatalogError> {
        let whole = || ModelPart {
            path: record.path.clone(),
            size_bytes: record.size_bytes,
            digest: record.digest.clone(),
        };
        let parts = if record.parts.is_empty() { vec![whole()] } else { record.parts.clone() };
        let manifest = Manifest::packed(record, self.store.held(&record.digest).as_ref(), &parts);
        let manifest = serde_json::to_vec_pretty(&manifest).map_err(|error| CatalogError::Io {
            action: "describe",
            path: record.path.clone(),
            source: error.into(),
        })?;
        let name =
            |part: &ModelPart| local_name(&part.path.file_name().unwrap_or_default().to_string_lossy());
        let files = parts.iter().map(|part| (name(part), part.path.clone())).collect();
        Ok(PackedModel { manifest, files })
    }

    /// Takes in what [`Catalog::pack`] packed and somebody unpacked into `dir`, on the same file system.
    /// `digests` are the SHA-256 of the files there, computed while they were written. Unless somebody
    /// vouches for them, nobody does: the model counts as one whose source names no digest. It
    /// must be the model `announced`.
    pub fn adopt(
        &self,
        dir: &Path,
        digests: &BTreeMap<String, String>,
        announced: &str,
        vouched: bool,
    ) -> Result<(), CatalogError> {
        let refuse = |problem: String| CatalogError::NotAModel { path: dir.to_path_buf(), problem };
        let io = |action, path: &Path| {
            let path = path.to_path_buf();
            move |source| CatalogError::Io { action, path, source }
        };
        let path = dir.join(MANIFEST);
        let text = std::fs::read(&path).map_err(io("read", &path))?;
        let mut manifest: Manifest =
            serde_json::from_slice(&text).map_err(|error| refuse(format!("its manifest: {error}")))?;
        let pieces = manifest.pieces(dir);
        for piece in &pieces {
            let name = piece.path.file_name().unwrap_or_default().to_string_lossy();
            if digests.get(name.as_ref()) != Some(&piece.sha256) {
                return Err(refuse(format!("{name} is not the file that its manifest describes")));
            }
        }
        let digest = of_model(pieces.iter().map(|piece| piece.sha256.as_str()));
        if digest != manifest.sha256 {
            return Err(refuse(format!(
                "its files have the digest {digest} together, not {}",
                manifest.sha256
            )));
        }
        if digest != announced {
            return Err(refuse(format!("it is the model {digest}, announced is {announced}")));
        }
        let files: Vec<PathBuf> = pieces.iter().map(|piece| piece.path.clone()).collect();
        gguf::read_files(&files).map_err(|error| refuse(error.to_string()))?;
        if !vouched {
            manifest.trust = Trust::UnverifiedBySource;
        }
        self.store.refuse_later(&digest).map_err(|error| refuse(error.to_string()))?;
        if self.store.held(&digest).is_none() {
            let target = self.store.dir(&digest);
            std::fs::write(&path, serde_json::to_vec_pretty(&manifest).unwrap_or(text))
                .map_err(io("write", &path))?;
            let take = || -> std::io::Result<()> {
                std::fs::create_dir_all(&self.models)?;
                if target.exists() {
                    // Half of an interrupted publication.
                    std::fs::remove_dir_all(&target)?;
                }
                std::fs::rename(dir, &target)?;
                std::fs::File::open(&self.models)?.sync_all()
            };
            take().map_err(io("store the model in", &target))?;
        }
        let Some(entry) = self.store.find(&digest) else {
            return Err(refuse("it is not in the store after it was put there".to_owned()));
        };
        let remembered = DigestCache::new(self.models.join("digests"));
        entry.pieces().iter().for_each(|piece| remembered.know(&piece.path, &piece.sha256));
        self.store
            .record(&manifest.reference, &entry, Disk::Now)
            .map_err(|error| refuse(error.to_string()))?;
        let whole = (digest.as_str(), entry.size);
        let from = Some(manifest.url.as_str());
        provenance::note(&self.models, Happened::Imported, whole, &manifest.reference, from, Some(vouched));
        Ok(())
    }
}
