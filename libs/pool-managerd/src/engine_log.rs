//! The file an engine writes to: rotated before a start, set aside when another engine takes its writer's
//! place, cut while it runs, and read back for the last lines when the engine is lost. All calls block.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A log longer than this is set aside as `.1` before a start.
const ROTATE_ABOVE_BYTES: u64 = 16 * 1024 * 1024;
/// What the name of a log that was set aside ends with.
const ASIDE: &str = "1";
/// How much of the end is read for the last lines.
const TAIL_BYTES: u64 = 64 * 1024;
/// How much of one line is shown.
const LINE_CHARS: usize = 500;

/// The log of one life.
#[derive(Debug, Clone)]
pub(crate) struct EngineLog {
    path: PathBuf,
    /// Where this life begins in the file.
    begin: u64,
}

impl EngineLog {
    /// Opens the log for a new life, setting a long one aside.
    pub(crate) fn open(path: PathBuf) -> io::Result<(Self, File)> {
        if fs::metadata(&path).is_ok_and(|m| m.len() > ROTATE_ABOVE_BYTES) {
            fs::rename(&path, aside(&path))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)?;
        let begin = file.metadata()?.len();
        Ok((Self { path, begin }, file))
    }

    /// The log of an adopted engine, whose life began there.
    pub(crate) fn existing(path: PathBuf, begin: u64) -> Self {
        Self { path, begin }
    }

    /// Where this life begins in the file.
    pub(crate) fn begin(&self) -> u64 {
        self.begin
    }

    /// Gives the file the name of another, which is set aside as `.1`; whoever writes to either goes on.
    pub(crate) fn take_place(&mut self, path: PathBuf) -> io::Result<()> {
        match fs::rename(&path, aside(&path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _there_or_not => {}
        }
        fs::rename(&self.path, &path)?;
        self.path = path;
        Ok(())
    }

    /// Follows the file to where it was set aside, if `other` has taken its place.
    pub(crate) fn yielded_to(&mut self, other: &Self) {
        if self.path == other.path {
            self.path = aside(&self.path);
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The last lines of this life, oldest first. An unreadable log has none.
    pub(crate) fn tail(&self, lines: usize) -> Vec<String> {
        let bytes = self.read_tail().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].iter().map(|l| l.chars().take(LINE_CHARS).collect()).collect()
    }

    fn read_tail(&self) -> io::Result<Vec<u8>> {
        let mut file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        // A file shorter than where this life began was cut since; then all of it is ours.
        let begin = if length < self.begin { 0 } else { self.begin };
        file.seek(SeekFrom::Start(begin.max(length.saturating_sub(TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Copies a log that has grown beyond `cap_bytes` to `.1` and cuts it; one that was set aside itself is
    /// only cut. The engine appends, so it goes on at the new end; what it writes between copy and cut is
    /// lost.
    pub(crate) fn cap(&self, cap_bytes: u64) -> io::Result<()> {
        if fs::metadata(&self.path)?.len() > cap_bytes {
            if self.path.extension().is_none_or(|extension| extension != ASIDE) {
                fs::copy(&self.path, aside(&self.path))?;
            }
            OpenOptions::new().write(true).open(&self.path)?.set_len(0)?;
        }
        Ok(())
    }
}

/// Where a log is set aside.
pub(crate) fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ASIDE);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const CAP: u64 = 1 << 20;

    #[test]
    fn the_tail_holds_only_lines_of_this_life() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (_, mut file) = EngineLog::open(path.clone()).unwrap();
        writeln!(file, "of the first life").unwrap();
        let (log, mut file) = EngineLog::open(path).unwrap();
        assert_eq!(log.tail(40), Vec::<String>::new());
        writeln!(file, "one\ntwo\nthree").unwrap();
        assert_eq!(log.tail(2), ["two", "three"]);
    }

    #[test]
    fn a_log_that_grew_too_long_is_cut_and_its_writer_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (log, mut file) = EngineLog::open(path.clone()).unwrap();
        file.set_len(CAP).unwrap();
        log.cap(CAP).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), CAP, "not yet too long");
        writeln!(file, "x").unwrap();
        log.cap(CAP).unwrap();
        writeln!(file, "after the cut").unwrap();
        assert_eq!(log.tail(40), ["after the cut"]);
        assert!(fs::metadata(dir.path().join("log.1")).unwrap().len() > CAP);
    }

    /// POOLD-LOGS-002
    #[test]
    fn a_log_whose_place_is_taken_is_kept_aside_and_cut_there() {
        let dir = tempfile::tempdir().unwrap();
        let (mut old, mut old_file) = EngineLog::open(dir.path().join("log")).unwrap();
        let (mut new, mut new_file) = EngineLog::open(dir.path().join("next")).unwrap();
        writeln!(old_file, "of the old").unwrap();
        writeln!(new_file, "of the new").unwrap();
        new.take_place(old.path().to_owned()).unwrap();
        old.yielded_to(&new);
        writeln!(old_file, "and more").unwrap();
        assert_eq!(
            (old.tail(40), new.tail(40)),
            (vec!["of the old".into(), "and more".into()], vec!["of the new".into()])
        );
        old.cap(1).unwrap();
        assert_eq!(old.tail(40), Vec::<String>::new());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is kept of what was set aside");
    }

    #[test]
    fn a_long_log_is_set_aside_before_a_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        File::create(&path).unwrap().set_len(ROTATE_ABOVE_BYTES + 1).unwrap();
        EngineLog::open(path.clone()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    }
}
