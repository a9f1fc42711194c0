//! `bundle export` and `bundle import`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use provisioners_engine_provisioner::{BundleError, Bundled, Cancel, EngineProvisioner, import_bundle};
use wire::config::PoolConfig;

use super::engines::size;
use super::progress::Progress;
use super::{Failure, notice, print, print_json, say};

#[derive(Subcommand)]
pub(super) enum BundleVerb {
    /// Prepare a pool and pack its engine and model; prints the file's SHA-256.
    Export {
        /// The file to write, a tar.
        file: PathBuf,
    },
    /// Check a bundle and take its engine and model into the cache.
    Import {
        /// The file that was exported elsewhere.
        file: PathBuf,
        /// What `export` printed. Without it nobody vouches for the bundle, and `models.trust: strict`
        /// refuses its model.
        #[arg(long, value_parser = sha256)]
        sha256: Option<String>,
    },
}

fn sha256(text: &str) -> Result<String, String> {
    let is = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    is.then(|| text.to_owned())
        .ok_or_else(|| "must be 64 hexadecimal digits, as `bundle export` prints".to_owned())
}

impl From<BundleError> for Failure {
    fn from(error: BundleError) -> Self {
        Self::with_causes(&error, error.exit_code())
    }
}

pub(super) fn export(
    provisioner: &EngineProvisioner,
    pool: &PoolConfig,
    file: &Path,
    json: bool,
    cancel: &Cancel,
) -> Result<u8, Failure> {
    let bundled = provisioner.export_bundle(pool, file, &Progress::new(json), cancel)?;
    show("packed", &bundled, json);
    Ok(0)
}

pub(super) fn import(
    cache: &Path,
    file: &Path,
    sha256: Option<&str>,
    json: bool,
    cancel: &Cancel,
) -> Result<u8, Failure> {
    let mut twentieths = 0;
    let mut on_progress = |done: u64, total: u64| {
        let now = done.saturating_mul(20) / total.max(1);
        if now > twentieths {
            twentieths = now;
            match json {
                true => {
                    let line =
                        serde_json::json!({ "id": "bundle", "bytes_done": done, "bytes_total": total });
                    say(&line.to_string());
                }
                false => say(&format!("unpacking: {} of {}", size(done), size(total))),
            }
        }
    };
    let bundled = import_bundle(cache, file, sha256, &mut on_progress, cancel)?;
    if sha256.is_none() {
        notice(
            "nobody vouches for this bundle: say --sha256 with what `bundle export` printed to check it",
            json,
        );
    }
    show("took in", &bundled, json);
    Ok(0)
}

fn show(done: &str, bundled: &Bundled, json: bool) {
    if json {
        return print_json(bundled);
    }
    bundled.notice.iter().for_each(|notice| say(notice));
    print(&format!(
        "{done} {} ({}): {} and {}\nsha256 {}\n",
        bundled.file.display(),
        size(bundled.bytes),
        bundled.engine_version,
        bundled.model_reference,
        bundled.sha256
    ));
}
