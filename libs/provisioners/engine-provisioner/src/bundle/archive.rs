//! Writing the archive: hashed while it is written, and given its name when it is whole.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use provisioners_model_provisioner::Cancel;
use sha2::{Digest as _, Sha256};

use super::export::Content;
use super::{BundleError, CONTENTS, Contents, io};
use crate::host::free_disk;
use crate::observer::Step;

/// What becomes the archive, in the directory where it will be.
pub(super) fn beside(to: &Path) -> Result<tempfile::NamedTempFile, BundleError> {
    let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if to.is_dir() {
        let source = io::Error::from(io::ErrorKind::IsADirectory);
        return Err(BundleError::Io { action: "write the bundle to", path: to.to_path_buf(), source });
    }
    if !dir.is_dir() {
        let source = io::Error::other("there is no such directory");
        return Err(BundleError::Io { action: "write the bundle in", path: dir.to_path_buf(), source });
    }
    tempfile::NamedTempFile::new_in(dir).map_err(io("write the bundle in", dir))
}

/// Returns SHA-256 and size.
pub(super) fn write(
    to: &Path,
    contents: &Contents,
    content: &[(String, Content, bool)],
    step: &Step<'_>,
    cancel: &Cancel,
) -> Result<(String, u64), BundleError> {
    let temp = beside(to)?;
    let failed = |source: io::Error| match cancel.is_cancelled() {
        true => BundleError::Cancelled,
        false => BundleError::Io { action: "write", path: to.to_path_buf(), source },
    };
    let mut archive = tar::Builder::new(Hashing { file: temp.as_file(), hasher: Sha256::new(), bytes: 0 });
    let text = serde_json::to_vec_pretty(contents).map_err(|error| failed(error.into()))?;
    append(&mut archive, CONTENTS, text.len() as u64, false, text.as_slice()).map_err(failed)?;
    let total: u64 = contents.files.iter().map(|file| file.bytes).sum();
    let free = free_disk(temp.path());
    if total > free {
        return Err(failed(io::Error::other(format!(
            "it takes {} MiB, and {} MiB are free there",
            total >> 20,
            free >> 20
        ))));
    }
    let done = Cell::new(0);
    for (packed, (path, content, executable)) in contents.files.iter().zip(content) {
        let watched = |inner: Box<dyn Read>| Watched {
            inner: inner.take(packed.bytes),
            done: &done,
            total,
            step,
            cancel,
        };
        let reader = match content {
            Content::Text(text) => watched(Box::new(io::Cursor::new(text.clone()))),
            Content::File(path) => watched(Box::new(File::open(path).map_err(io("read", path))?)),
        };
        append(&mut archive, path, packed.bytes, *executable, reader).map_err(failed)?;
    }
    let hashing = archive.into_inner().map_err(failed)?;
    let (digest, bytes) = (hashing.hasher.finalize(), hashing.bytes);
    temp.as_file().sync_all().map_err(failed)?;
    // A temporary file is private to its maker; a bundle is for somebody else.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(temp.path(), mode).map_err(failed)?;
    temp.persist(to).map_err(|error| failed(error.error))?;
    Ok((digest.iter().map(|b| format!("{b:02x}")).collect(), bytes))
}

fn append(
    archive: &mut tar::Builder<Hashing<'_>>,
    path: &str,
    bytes: u64,
    executable: bool,
    reader: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(if executable { 0o755 } else { 0o644 });
    archive.append_data(&mut header, path, reader)
}

/// Writes, and hashes what it wrote.
struct Hashing<'a> {
    file: &'a File,
    hasher: Sha256,
    bytes: u64,
}

impl Write for Hashing<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.file.write(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Reads, says how far it is, and ends when nobody wants it any more.
struct Watched<'a> {
    inner: io::Take<Box<dyn Read>>,
    done: &'a Cell<u64>,
    total: u64,
    step: &'a Step<'a>,
    cancel: &'a Cancel,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("interrupted"));
        }
        let n = self.inner.read(buffer)?;
        self.done.set(self.done.get() + n as u64);
        let (done, total) = (self.done.get(), self.total);
        self.step.progress(|| format!("packing: {} of {} MiB", done >> 20, total >> 20), done, total);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use wire::{PoolId, PreparationStep, StepKind};

    use super::super::{FORMAT, Packed};
    use super::*;
    use crate::observer::Observer;

    struct Nobody;

    impl Observer for Nobody {
        fn step(&self, _: &PreparationStep) {}
    }

    /// EPROV-037
    #[test]
    fn what_the_disk_has_no_room_for_is_not_begun() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("pool.bundle");
        let packed = |bytes: u64| Contents {
            format: FORMAT,
            architecture: "x86_64".to_owned(),
            engine_digest: String::new(),
            engine_version: String::new(),
            model_reference: String::new(),
            model_digest: String::new(),
            files: vec![Packed {
                path: "engine/a".to_owned(),
                sha256: String::new(),
                bytes,
                executable: false,
            }],
        };
        let pack = |bytes: u64| {
            let step = Step::new(&Nobody, &PoolId::try_new("p").unwrap(), StepKind::EngineProvision);
            let content = [("engine/a".to_owned(), Content::Text(b"four".to_vec()), false)];
            write(&to, &packed(bytes), &content, &step, &Cancel::new())
        };
        let refused = pack(1 << 60).unwrap_err();
        let why = std::error::Error::source(&refused).unwrap().to_string();
        assert!(
            why.starts_with("it takes 1099511627776 MiB, and ") && why.ends_with(" MiB are free there"),
            "{why}"
        );
        assert_eq!(refused.exit_code(), 4);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing of it is left");
        pack(4).unwrap();
        assert!(to.exists());
    }
}
