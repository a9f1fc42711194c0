//! Whether a model may be used at all: where it is from, who vouches for its bytes, and what a program
//! of the machine's owner says about the file. Whether the bytes are the right ones is checked elsewhere.

use std::path::Path;

use wire::config::{ModelsConfig, TrustPolicy};

use crate::{Cancel, ModelRef};

/// Asks somebody else about a file. Its second implementation is a test's.
pub trait VerifyFile: Send + Sync {
    /// Names who is asked: another name, and every file is asked about again.
    fn identity(&self) -> String;

    /// `Err` is the reason, for people.
    fn verify(&self, file: &Path, cancel: &Cancel) -> Result<(), String>;
}

/// Whether `reference` may be looked at; `Err` says why not. Before anything is fetched, and neither reads
/// a file nor asks the network.
///
/// # Errors
/// The rule that it breaks, for people.
pub fn admit(config: &ModelsConfig, reference: &ModelRef, pinned: Option<&str>) -> Result<(), String> {
    if config.trust == TrustPolicy::Permissive || matches!(reference, ModelRef::Builtin(_)) {
        return Ok(());
    }
    let allowed = &config.allowed_sources;
    if !allowed.is_empty() && !allowed.iter().any(|source| comes_from(reference, source)) {
        return Err(format!("it is not from one of `models.allowed_sources` ({})", allowed.join(", ")));
    }
    match reference {
        // The hub names the digest of what it has.
        ModelRef::Hub { .. } => Ok(()),
        _ if pinned.is_some() => Ok(()),
        _ => Err(NO_DIGEST.to_owned()),
    }
}

pub(crate) const NO_DIGEST: &str =
    "nobody names its SHA-256, and `models.trust` is strict; write the one you trust as `model_sha256`";

fn comes_from(reference: &ModelRef, source: &str) -> bool {
    if let (ModelRef::File(path), Some(root)) = (reference, source.strip_prefix("file:")) {
        // What the path leads to counts, not how it is written.
        let real = |path: &Path| path.canonicalize().ok();
        return real(path).zip(real(Path::new(root))).is_some_and(|(path, root)| path.starts_with(root));
    }
    let text = reference.to_string();
    let Some(rest) = text.strip_prefix(source) else { return false };
    // `hf:org` is not `hf:organisation`; nor may a path lead back up.
    let ends = rest.is_empty() || source.ends_with('/') || rest.starts_with(['/', ':', '@', '?']);
    ends && !rest.contains("..") && !rest.contains('%')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(reference: &str, sources: &[&str], pinned: bool) -> bool {
        let config = ModelsConfig {
            trust: TrustPolicy::Strict,
            allowed_sources: sources.iter().map(|source| (*source).to_owned()).collect(),
            ..ModelsConfig::default()
        };
        admit(&config, &reference.parse().unwrap(), pinned.then_some("0")).is_ok()
    }

    /// MPROV-012
    #[test]
    fn strict_asks_for_a_digest_and_an_allowed_source_and_permissive_for_neither() {
        for (reference, sources, pinned, expected) in [
            ("hf:org/repo:Q8_0", &[][..], false, true),
            ("hf:org/repo:Q8_0", &["hf:org"], false, true),
            ("hf:organisation/repo", &["hf:org"], false, false),
            ("hf:other/repo", &["hf:org/"], true, false),
            ("https://h/dir/a.gguf", &["https://h/dir/"], true, true),
            ("https://h/dir/a.gguf", &["https://h/dir/"], false, false),
            ("https://h/dir/../b.gguf", &["https://h/dir/"], true, false),
            ("https://h/dir/%2e%2e/b.gguf", &["https://h/dir/"], true, false),
            ("https://h.evil/dir/a.gguf", &["https://h"], true, false),
            ("builtin:haiku", &["hf:org/"], false, true),
        ] {
            assert_eq!(admitted(reference, sources, pinned), expected, "{reference} of {sources:?}");
        }
        let reference = "https://h/x".parse().unwrap();
        assert_eq!(admit(&ModelsConfig::default(), &reference, None), Ok(()));
    }

    /// MPROV-012
    #[test]
    fn a_link_out_of_an_allowed_directory_is_no_way_around_it() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out.gguf"));
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(&outside, "x").unwrap();
        std::fs::write(inside.join("a.gguf"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link.gguf")).unwrap();
        let source = format!("file:{}", inside.display());
        let at = |name: &str| admitted(&format!("file:{}/{name}", inside.display()), &[&source], true);
        assert!(at("a.gguf"));
        assert!(!at("link.gguf") && !at("../out.gguf") && !at("missing.gguf"));
    }
}
