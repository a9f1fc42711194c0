//! Unpacking a tarball that a stranger may have made: nothing outside the target directory, no
//! devices, no links that leave, a limit on the size.

use std::io::Read;
use std::path::{Component, Path};

use provisioners_model_provisioner::Cancel;
use tar::EntryType;

/// The pinned tree is 0.2 GB; a bomb is not.
const MAX_BYTES: u64 = 4 * 1024 * 1024 * 1024;
const MAX_ENTRIES: usize = 500_000;

/// Unpacks into `target`, which must not exist yet. The text of the error is for people.
pub(super) fn tar_gz(archive: &Path, target: &Path, cancel: &Cancel) -> Result<(), String> {
    let file = std::fs::File::open(archive).map_err(|e| format!("cannot open {}: {e}", archive.display()))?;
    std::fs::create_dir_all(target).map_err(|e| format!("cannot create {}: {e}", target.display()))?;
    tar(flate2::read::GzDecoder::new(std::io::BufReader::new(file)), target, cancel)
}

fn tar(input: impl Read, target: &Path, cancel: &Cancel) -> Result<(), String> {
    let mut archive = tar::Archive::new(input);
    archive.set_preserve_mtime(false);
    let damaged = |e: std::io::Error| format!("the archive is damaged: {e}");
    let mut bytes = 0u64;
    for (count, entry) in archive.entries().map_err(damaged)?.enumerate() {
        let mut entry = entry.map_err(damaged)?;
        let path = entry.path().map_err(damaged)?.into_owned();
        bytes = bytes.saturating_add(entry.size());
        if bytes > MAX_BYTES || count > MAX_ENTRIES {
            return Err(format!("the archive unpacks to more than {MAX_BYTES} bytes or {MAX_ENTRIES} files"));
        }
        if cancel.is_cancelled() {
            return Err("interrupted".to_owned());
        }
        check_inside(&path, Path::new(""))?;
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Directory | EntryType::Continuous => {}
            EntryType::Symlink => {
                let link = entry.link_name().map_err(damaged)?.ok_or("a symbolic link without a target")?;
                check_inside(&link, path.parent().unwrap_or(Path::new("")))?;
            }
            EntryType::XGlobalHeader | EntryType::XHeader => continue,
            other => return Err(format!("{} is of a kind that is not unpacked ({other:?})", path.display())),
        }
        // `unpack_in` also refuses to write through a link that an earlier entry made.
        if !entry.unpack_in(target).map_err(|e| format!("cannot unpack {}: {e}", path.display()))? {
            return Err(format!("{} would be unpacked outside its directory", path.display()));
        }
    }
    Ok(())
}

/// Whether `path`, seen from `base`, stays inside at every step.
fn check_inside(path: &Path, base: &Path) -> Result<(), String> {
    let mut depth = base.components().filter(|c| matches!(c, Component::Normal(_))).count();
    for component in path.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 && base != Path::new("") => depth -= 1,
            _ => return Err(format!("{} would leave the directory it is unpacked into", path.display())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(builder: &mut tar::Builder<Vec<u8>>, kind: EntryType, name: &str, link: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(if kind == EntryType::Regular { 2 } else { 0 });
        // The safe setters refuse what a hostile archive has.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        let data: &[u8] = if kind == EntryType::Regular { b"hi" } else { b"" };
        builder.append(&header, data).unwrap();
    }

    fn unpack(entries: &[(EntryType, &str, &str)]) -> (tempfile::TempDir, Result<(), String>) {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, name, link) in entries {
            entry(&mut builder, *kind, name, link);
        }
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("in");
        std::fs::create_dir(&target).unwrap();
        let result = tar(&builder.into_inner().unwrap()[..], &target, &Cancel::new());
        (dir, result)
    }

    #[test]
    fn an_ordinary_tree_with_inner_links_is_unpacked() {
        let (dir, result) = unpack(&[
            (EntryType::Regular, "top/a/file", ""),
            (EntryType::Symlink, "top/a/link", "../a/file"),
        ]);
        result.unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("in/top/a/link")).unwrap(), "hi");
    }

    #[test]
    fn nothing_leaves_the_directory() {
        let hostile: &[&[(EntryType, &str, &str)]] = &[
            &[(EntryType::Regular, "../out", "")],
            &[(EntryType::Regular, "a/../../out", "")],
            &[(EntryType::Regular, "/tmp/llama-orch-test-out", "")],
            &[(EntryType::Symlink, "a/link", "../../out")],
            &[(EntryType::Symlink, "link", "..")],
            &[(EntryType::Symlink, "link", "/etc")],
            &[(EntryType::Link, "hard", "/etc/passwd")],
            &[(EntryType::Char, "dev", "")],
            &[(EntryType::Fifo, "fifo", "")],
        ];
        for entries in hostile {
            let (dir, result) = unpack(entries);
            assert!(result.is_err(), "{entries:?} must be refused");
            let outside: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
            assert_eq!(outside.len(), 1, "only the target directory is there: {entries:?}");
        }
    }
}
