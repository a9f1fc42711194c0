//! Where other programs keep what they fetched from the hub. It only names candidates; whether one
//! has the right bytes is checked by whoever uses it.

use std::path::{Component, Path, PathBuf};

/// Files that may be `file` of `repo` at `commit`, best first.
pub(crate) fn candidates(caches: &[PathBuf], repo: &str, commit: &str, file: &str) -> Vec<PathBuf> {
    // The file's name comes from the hub: it must not lead out of the cache.
    let inside = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
    if !inside {
        return Vec::new();
    }
    let snapshot = format!("models--{}/snapshots/{commit}", repo.replace('/', "--"));
    let flat = format!("{}_{}", repo.replace('/', "_"), file.replace('/', "_"));
    caches.iter().flat_map(|cache| [cache.join(&snapshot).join(file), cache.join(&flat)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_are_named_and_nothing_outside_the_cache() {
        let found = candidates(&["/c".into()], "o/r", "abc", "sub/m.gguf");
        let expected =
            [PathBuf::from("/c/models--o--r/snapshots/abc/sub/m.gguf"), PathBuf::from("/c/o_r_sub_m.gguf")];
        assert_eq!(found, expected);
        assert!(candidates(&["/c".into()], "o/r", "abc", "../../m.gguf").is_empty());
    }
}
