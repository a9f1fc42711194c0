//! `models …`: the catalog of what model-provisioner holds, as a table or as JSON lines.

use std::path::Path;
use std::time::Duration;

use clap::Subcommand;
use provisioners_engine_provisioner::Cancel;
use provisioners_model_provisioner::{Catalog, CatalogError, Unfinished};
use wire::config::ModelsConfig;

use super::engines::{ago, size};
use super::{Failure, VERIFICATION, notice, print, print_json};

/// INTERFACES lists it: model.
const MODEL: u8 = 6;

#[derive(Subcommand)]
pub(super) enum ModelsVerb {
    /// The models of the cache, the last used first.
    List,
    /// Read models again and compare them with what was fetched.
    Verify {
        /// The beginning of a digest; without one, all.
        digest: Option<String>,
    },
    /// Remove downloads that nobody continued, and make all models fit into the quota, if there is one, the
    /// least recently used first; never one that is pinned, runs or is being fetched.
    Gc {
        /// Instead of the configuration's `models.quota_gib`.
        #[arg(long)]
        quota_gib: Option<u64>,
        /// For so many days.
        #[arg(long, default_value_t = 7)]
        unfinished_days: u64,
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
        ModelsVerb::Gc { quota_gib, unfinished_days } => {
            let days = Duration::from_secs(unfinished_days.saturating_mul(24 * 3600));
            gc(&catalog, quota_gib.or(config.quota_gib), days, json)?;
        }
        ModelsVerb::Pin { digest } => pin(&catalog, digest, true, json)?,
        ModelsVerb::Unpin { digest } => pin(&catalog, digest, false, json)?,
        ModelsVerb::Remove { digest } => {
            let digest = catalog.find(digest)?.digest;
            let bytes = catalog.remove(&digest)?;
            match json {
                true => print_json(&serde_json::json!({ "digest": digest, "removed": true, "bytes": bytes })),
                false => print(&format!("{digest:.12}  removed, {}\n", size(bytes))),
            }
        }
    }
    Ok(0)
}

fn pin(catalog: &Catalog, digest: &str, pinned: bool, json: bool) -> Result<(), Failure> {
    catalog.pin(digest, pinned)?;
    let model = catalog.find(digest)?;
    match json {
        true => print_json(&model),
        false => {
            print(&format!(
                "{:.12}  {}  {}pinned\n",
                model.digest,
                model.name,
                if pinned { "" } else { "un" }
            ));
        }
    }
    Ok(())
}

fn list(catalog: &Catalog, cache: &Path, json: bool) {
    let (models, unfinished) = (catalog.list(), catalog.unfinished());
    if models.is_empty() && unfinished.is_empty() && !json {
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
    for download in unfinished {
        show_unfinished(&download, "unfinished", json);
    }
}

/// One line of a download that is not finished.
pub(super) fn show_unfinished(download: &Unfinished, what: &str, json: bool) {
    if json {
        return print_json(&serde_json::json!({ what: download }));
    }
    let total = download.bytes_total.map_or_else(|| "an unknown size".to_owned(), size);
    let now = if download.in_use { ", being fetched" } else { "" };
    print(&format!(
        "{}  {} of {total}{now}  from {}  last written {}\n",
        what.replace('_', " "),
        size(download.bytes),
        if download.url.is_empty() { "an unknown place" } else { &download.url },
        ago(download.last_written_unix_ms)
    ));
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

fn gc(catalog: &Catalog, quota_gib: Option<u64>, days: Duration, json: bool) -> Result<(), Failure> {
    let unfinished = catalog.collect_unfinished(days)?;
    for download in &unfinished {
        show_unfinished(download, "removed_unfinished", json);
    }
    let Some(quota) = quota_gib else {
        notice("there is no quota for models: set `models.quota_gib` or say --quota-gib", json);
        return Ok(());
    };
    let removed = catalog.make_room(quota.saturating_mul(1 << 30), 0, None)?;
    if unfinished.is_empty() && removed.is_empty() && !json {
        print(&format!("nothing to remove: the models fit into {quota} GiB\n"));
    }
    for digest in removed {
        match json {
            true => print_json(&serde_json::json!({ "digest": digest, "removed": true })),
            false => print(&format!("{digest:.12}  removed\n")),
        }
    }
    Ok(())
}
