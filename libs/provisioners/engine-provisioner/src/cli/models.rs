//! `models …`: the catalog of what model-provisioner holds, as a table or as JSON lines.

use std::path::Path;

use clap::Subcommand;
use provisioners_engine_provisioner::Cancel;
use provisioners_model_provisioner::{Catalog, CatalogError};
use wire::config::ModelsConfig;

use super::engines::{ago, size};
use super::{Failure, USAGE, print, print_json};

/// INTERFACES lists them: model, verification.
const MODEL: u8 = 6;
const VERIFICATION: u8 = 7;

#[derive(Subcommand)]
pub(super) enum ModelsVerb {
    /// The models of the cache, the last used first.
    List,
    /// Read models again and compare them with what was fetched.
    Verify {
        /// The beginning of a digest; without one, all.
        digest: Option<String>,
    },
    /// Make all models fit into the quota, the least recently used first; never one that is pinned or runs.
    Gc {
        /// Instead of the configuration's `models.quota_gib`.
        #[arg(long)]
        quota_gib: Option<u64>,
    },
    /// Never evict this model.
    Pin {
        /// The beginning of its digest.
        digest: String,
    },
    /// Let a pinned model be evicted again.
    Unpin {
        /// The beginning of its digest.
        digest: String,
    },
    /// Remove a model now.
    Remove {
        /// The beginning of its digest.
        digest: String,
    },
}

impl From<CatalogError> for Failure {
    fn from(error: CatalogError) -> Self {
        let cause = std::error::Error::source(&error).map(|inner| format!(": {inner}")).unwrap_or_default();
        let code = if matches!(error, CatalogError::Cancelled) { 130 } else { MODEL };
        Self { message: format!("{error}{cause}"), code }
    }
}

pub(super) fn run(
    verb: &ModelsVerb,
    cache: &Path,
    config: &ModelsConfig,
    json: bool,
    cancel: &Cancel,
) -> Result<u8, Failure> {
    let catalog = Catalog::new(cache);
    match verb {
        ModelsVerb::List => list(&catalog, cache, json),
        ModelsVerb::Verify { digest } => return verify(&catalog, digest.as_deref(), json, cancel),
        ModelsVerb::Gc { quota_gib } => gc(&catalog, quota_gib.or(config.quota_gib), json)?,
        ModelsVerb::Pin { digest } => catalog.pin(digest, true)?,
        ModelsVerb::Unpin { digest } => catalog.pin(digest, false)?,
        ModelsVerb::Remove { digest } => {
            let bytes = catalog.remove(digest)?;
            print(&format!("removed, {}\n", size(bytes)));
        }
    }
    Ok(0)
}

fn list(catalog: &Catalog, cache: &Path, json: bool) {
    let models = catalog.list();
    if models.is_empty() && !json {
        print(&format!("no model in {}\n", cache.join("models").display()));
    }
    for model in models {
        if json {
            print_json(&model);
            continue;
        }
        let mut notes = vec![match model.last_used_unix_ms {
            Some(at) => format!("last used {}", ago(at)),
            None => "not used since uses are noted".to_owned(),
        }];
        notes.extend(model.pinned.then(|| "pinned".to_owned()));
        notes.extend(model.in_use.then(|| "running".to_owned()));
        notes.extend((!model.verified_by_source).then(|| "nobody named its digest".to_owned()));
        notes.extend(model.problem);
        print(&format!(
            "{:.12}  {} ({})  {}  from {}  {}\n",
            model.digest,
            model.name,
            model.quantisation,
            size(model.size_bytes),
            model.source,
            notes.join(", ")
        ));
    }
}

fn verify(catalog: &Catalog, digest: Option<&str>, json: bool, cancel: &Cancel) -> Result<u8, Failure> {
    let models = match digest {
        Some(digest) => vec![catalog.find(digest)?],
        None => catalog.list(),
    };
    let mut code = 0;
    for model in models {
        let problem = catalog.verify(&model.digest, cancel)?;
        if json {
            print_json(
                &serde_json::json!({ "digest": model.digest, "name": model.name, "problem": problem }),
            );
        } else {
            let verdict = problem.as_deref().unwrap_or("is what was fetched");
            print(&format!("{:.12}  {}  {verdict}\n", model.digest, model.name));
        }
        if problem.is_some() {
            code = VERIFICATION;
        }
    }
    Ok(code)
}

fn gc(catalog: &Catalog, quota_gib: Option<u64>, json: bool) -> Result<(), Failure> {
    let Some(quota) = quota_gib else {
        let message = "there is no quota: set `models.quota_gib` or say --quota-gib".to_owned();
        return Err(Failure { message, code: USAGE });
    };
    for digest in catalog.make_room(quota.saturating_mul(1 << 30), 0, None)? {
        match json {
            true => print_json(&serde_json::json!({ "digest": digest, "removed": true })),
            false => print(&format!("{digest:.12}  removed\n")),
        }
    }
    Ok(())
}
