//! Reads one file of the directory as if a stranger had put it there: no link is followed, no
//! fifo waited for, no more than a bound is read, and every refusal has a reason.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::Deserialize;
use wire::Handoff;
use wire::handoff::HANDOFF_SCHEMA_VERSION;

use crate::{EngineUrl, EngineUrlError};

/// A larger file is not a handoff.
pub const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Why a file is not believed. The text says what to do where that is not plain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RejectReason {
    /// A link might lead anywhere.
    #[error("is a symbolic link; handoffs must be regular files")]
    Symlink,
    /// A directory, fifo, socket or device.
    #[error("is not a regular file")]
    NotRegular,
    /// Someone else wrote it.
    #[error("belongs to user {owner}, not to user {us} who reads it")]
    ForeignOwner {
        /// The file's owner.
        owner: u32,
        /// Who reads.
        us: u32,
    },
    /// Someone else could have written it.
    #[error("may be written by others (mode {mode:04o}); chmod it to 0600")]
    WritableByOthers {
        /// Its permission bits.
        mode: u32,
    },
    /// Past [`MAX_FILE_BYTES`].
    #[error("is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    /// The operating system refused.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// Not JSON, or not of this shape.
    #[error("is not a whole handoff: {0}")]
    Malformed(String),
    /// Written by a newer version of this software.
    #[error("has schema_version {found}, this program knows up to {HANDOFF_SCHEMA_VERSION}; upgrade it")]
    TooNew {
        /// The file's version.
        found: u64,
    },
    /// It points elsewhere than to this machine.
    #[error(transparent)]
    Url(#[from] EngineUrlError),
    /// An engine without slots serves nobody.
    #[error("offers 0 slots")]
    NoSlots,
    /// Another file claims the same replica with a better right.
    #[error("claims the same replica as {by}, which wins by generation or name")]
    Superseded {
        /// The file that won.
        by: String,
    },
}

/// The part every version of the shape must have.
#[derive(Deserialize)]
struct Versioned {
    #[serde(default = "first_version")]
    schema_version: u64,
}

fn first_version() -> u64 {
    1
}

/// Reads `name` in `dir`. `Ok(None)`: it is gone, which is no fault of the file.
pub(crate) fn read(
    dir: impl AsFd,
    name: &std::ffi::CStr,
    us: u32,
) -> Result<Option<(Handoff, EngineUrl)>, RejectReason> {
    let Some(bytes) = read_checked(dir, name, us)? else { return Ok(None) };
    parse(&bytes).map(Some)
}

fn read_checked(dir: impl AsFd, name: &std::ffi::CStr, us: u32) -> Result<Option<Vec<u8>>, RejectReason> {
    // NONBLOCK: opening a fifo would wait for a writer for ever.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let fd = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(RejectReason::Symlink),
        // A socket cannot be opened at all.
        Err(Errno::NXIO) => return Err(RejectReason::NotRegular),
        Err(error) => return Err(unreadable(error.into())),
    };
    check(&fd, us)?;
    let mut bytes = Vec::with_capacity(2048);
    // The size was not asked: it may grow between the question and the read.
    File::from(fd).take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(RejectReason::TooLarge);
    }
    Ok(Some(bytes))
}

fn unreadable(error: io::Error) -> RejectReason {
    RejectReason::Unreadable(error.to_string())
}

/// Questions to the open file, not to its name: the name may be replaced meanwhile.
fn check(fd: &OwnedFd, us: u32) -> Result<(), RejectReason> {
    let stat = rustix::fs::fstat(fd).map_err(|error| unreadable(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(RejectReason::NotRegular);
    }
    if stat.st_uid != us {
        return Err(RejectReason::ForeignOwner { owner: stat.st_uid, us });
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(RejectReason::WritableByOthers { mode: stat.st_mode & 0o7777 });
    }
    Ok(())
}

pub(crate) fn parse(bytes: &[u8]) -> Result<(Handoff, EngineUrl), RejectReason> {
    let malformed = |error: serde_json::Error| RejectReason::Malformed(error.to_string());
    // The version first: a newer shape should be called newer, not malformed.
    let found = serde_json::from_slice::<Versioned>(bytes).map_err(malformed)?.schema_version;
    if found > u64::from(HANDOFF_SCHEMA_VERSION) {
        return Err(RejectReason::TooNew { found });
    }
    let handoff: Handoff = serde_json::from_slice(bytes).map_err(malformed)?;
    let url = EngineUrl::try_new(&handoff.url)?;
    if handoff.slots_total == 0 {
        return Err(RejectReason::NoSlots);
    }
    Ok((handoff, url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_schema_is_called_newer_even_when_its_shape_is_unknown() {
        let reason = parse(br#"{"schema_version":2,"endpoint":{"x":1}}"#).unwrap_err();
        assert_eq!(reason, RejectReason::TooNew { found: 2 });
        assert!(reason.to_string().contains("upgrade"), "{reason}");
    }

    #[test]
    fn a_half_written_file_is_malformed() {
        let whole = br#"{"url":"http://127.0.0.1:1","pool_id":"a"}"#;
        assert!(parse(whole).is_ok());
        for cut in 0..whole.len() {
            assert!(matches!(parse(&whole[..cut]), Err(RejectReason::Malformed(_))), "cut at {cut}");
        }
    }

    #[test]
    fn unknown_fields_are_ignored_and_bad_ids_are_not() {
        assert!(parse(br#"{"url":"http://127.0.0.1:1","colour":"red"}"#).is_ok());
        assert!(parse(br#"{"url":"http://127.0.0.1:1","pool_id":"../x"}"#).is_err());
        assert_eq!(
            parse(br#"{"url":"http://127.0.0.1:1","slots_total":0}"#).unwrap_err(),
            RejectReason::NoSlots
        );
    }
}
