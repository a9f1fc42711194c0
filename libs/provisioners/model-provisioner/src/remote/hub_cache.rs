//! Where other programs keep what they fetched from the hub. It only names candidates; whether one
//! has the right bytes is checked by whoever uses it.

use std::path::{Component, Path, PathBuf};

use super::choose::{choose, set_of};
use crate::Selector;

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

/// What a cache knows of a reference by itself: the file, and the digest it is stored under there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Local {
    pub(crate) path: PathBuf,
    pub(crate) sha256: String,
}

/// The wanted files of `repo` at `revision` without asking the hub: by the commit that the cache resolved
/// the revision to, and the digests that their blobs are named by.
pub(crate) fn local(
    caches: &[PathBuf],
    repo: &str,
    revision: &str,
    selector: &Selector,
) -> Option<Vec<Local>> {
    caches.iter().find_map(|cache| {
        let home = cache.join(format!("models--{}", repo.replace('/', "--")));
        let resolved = std::fs::read_to_string(home.join("refs").join(revision)).ok();
        let commit = resolved.as_deref().map_or(revision, str::trim);
        if commit.len() != 40 || !commit.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let snapshot = home.join("snapshots").join(commit);
        let present = files_below(&snapshot);
        let chosen = set_of(choose(repo, &present, selector).ok()?).ok()?;
        chosen.iter().map(|file| blob_of(snapshot.join(file))).collect()
    })
}

fn blob_of(path: PathBuf) -> Option<Local> {
    let blob = std::fs::read_link(&path).ok()?.file_name()?.to_str()?.to_owned();
    let is_sha256 = blob.len() == 64 && blob.bytes().all(|b| b.is_ascii_hexdigit());
    is_sha256.then_some(Local { path, sha256: blob })
}

/// Directories below which nobody puts a model.
const MAX_DEPTH: usize = 8;

/// All files of a snapshot, by their paths in it.
fn files_below(snapshot: &Path) -> Vec<String> {
    fn walk(dir: &Path, prefix: &str, depth: usize, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let name = format!("{prefix}{name}");
            // The files are links and the directories are none: no link is followed into another tree.
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth < MAX_DEPTH => {
                    walk(&entry.path(), &format!("{name}/"), depth + 1, found);
                }
                Ok(kind) if !kind.is_dir() => found.push(name),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    walk(snapshot, "", 0, &mut found);
    found
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
    /// MPROV-009
    #[test]
    fn a_file_in_a_directory_of_a_directory_is_found_and_a_link_to_a_directory_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (commit, blob) = ("1".repeat(40), "2".repeat(64));
        let snapshot = dir.path().join("models--o--r/snapshots").join(&commit);
        std::fs::create_dir_all(snapshot.join("a/b")).unwrap();
        std::os::unix::fs::symlink(format!("../../../../blobs/{blob}"), snapshot.join("a/b/m-q8_0.gguf"))
            .unwrap();
        std::os::unix::fs::symlink("a", snapshot.join("again")).unwrap();
        let found = local(&[dir.path().to_path_buf()], "o/r", &commit, &Selector::Quant("Q8_0".into()));
        let expected = Local { path: snapshot.join("a/b/m-q8_0.gguf"), sha256: blob };
        assert_eq!(found, Some(vec![expected]));
        // What a branch was resolved to is a commit, or nothing.
        let refs = dir.path().join("models--o--r/refs");
        std::fs::create_dir(&refs).unwrap();
        let (other, short) = ("z".repeat(40), "a1".to_owned());
        for (resolved, found) in [(&commit, true), (&other, false), (&short, false)] {
            std::fs::write(refs.join("main"), resolved).unwrap();
            std::fs::create_dir_all(dir.path().join("models--o--r/snapshots").join(resolved)).unwrap();
            let link = dir.path().join("models--o--r/snapshots").join(resolved).join("m-q4_0.gguf");
            std::os::unix::fs::symlink(format!("../../blobs/{}", "3".repeat(64)), link).unwrap();
            let quant = Selector::Quant("Q4_0".into());
            assert_eq!(
                local(&[dir.path().to_path_buf()], "o/r", "main", &quant).is_some(),
                found,
                "{resolved}"
            );
        }
        std::fs::remove_file(snapshot.join("m-q4_0.gguf")).unwrap();
        let mut files = files_below(&snapshot);
        files.sort();
        assert_eq!(files, ["a/b/m-q8_0.gguf", "again"]);
    }
}
