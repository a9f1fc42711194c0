//! Reading an engine's log from outside: its last lines, and then whatever comes, also after the file
//! was cut or set aside under its writer. Each call blocks, reads a bounded piece, and holds no file
//! open in between.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::engine_log::aside;

/// At most so much is read at a time; a line that is longer is cut there.
const PIECE_BYTES: u64 = 256 * 1024;

/// A place in a log that may grow, shrink and be replaced.
#[derive(Debug)]
pub(crate) struct LogTail {
    path: PathBuf,
    /// Which file the offset is in.
    inode: u64,
    offset: u64,
    /// Where the log that was set aside ends, for as long as the rest of it is read.
    aside_ends: Option<u64>,
}

impl LogTail {
    /// The last `lines` of a log, of as many of its bytes as are read at a time, and the place after
    /// them. A log that is not there yet has none.
    pub(crate) fn last(path: PathBuf, lines: usize) -> io::Result<(Vec<String>, Self)> {
        let mut tail = Self { path, inode: 0, offset: 0, aside_ends: None };
        let Some((mut file, meta)) = tail.open()? else { return Ok((Vec::new(), tail)) };
        tail.inode = meta.ino();
        tail.offset = meta.len().saturating_sub(PIECE_BYTES);
        let begins_inside_a_line = tail.offset > 0;
        let mut found = tail.read(&mut file, PIECE_BYTES)?;
        if begins_inside_a_line && !found.is_empty() {
            found.remove(0);
        }
        found.drain(..found.len().saturating_sub(lines));
        Ok((found, tail))
    }

    /// The whole lines that came since, oldest first; more may be there when it returns some.
    pub(crate) fn more(&mut self) -> io::Result<Vec<String>> {
        let Some((mut file, meta)) = self.open()? else { return Ok(Vec::new()) };
        let replaced = meta.ino() != self.inode;
        if replaced || meta.len() < self.offset {
            // Set aside or cut: first what was not read of it, then what is there now, from its beginning.
            let rest = self.rest(replaced)?;
            if !rest.is_empty() {
                return Ok(rest);
            }
            (self.inode, self.offset, self.aside_ends) = (meta.ino(), 0, None);
        }
        self.read(&mut file, PIECE_BYTES)
    }

    /// What was not read yet of a log when it was set aside (the same file) or copied there and cut. What is
    /// written to it afterwards is not waited for: that writer's place is another's.
    fn rest(&mut self, replaced: bool) -> io::Result<Vec<String>> {
        let aside = Self { path: aside(&self.path), inode: 0, offset: 0, aside_ends: None };
        let Some((mut file, meta)) = aside.open()? else { return Ok(Vec::new()) };
        if replaced && meta.ino() != self.inode {
            return Ok(Vec::new());
        }
        let end = *self.aside_ends.get_or_insert(meta.len());
        self.read(&mut file, PIECE_BYTES.min(end.saturating_sub(self.offset)))
    }

    fn open(&self) -> io::Result<Option<(File, Metadata)>> {
        match File::open(&self.path) {
            Ok(file) => {
                let meta = file.metadata()?;
                Ok(Some((file, meta)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read(&mut self, file: &mut File, at_most: u64) -> io::Result<Vec<String>> {
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.take(at_most).read_to_end(&mut bytes)?;
        let whole = match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if bytes.len() as u64 == PIECE_BYTES => bytes.len(),
            None => 0,
        };
        self.offset += whole as u64;
        Ok(String::from_utf8_lossy(&bytes[..whole]).lines().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    /// POOLD-LOGS-002
    #[test]
    fn lines_are_read_whole_and_once_also_when_the_log_is_cut_or_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (none, mut tail) = LogTail::last(path.clone(), 5).unwrap();
        assert!(none.is_empty(), "it is not there yet");
        let mut file = File::options().create(true).append(true).open(&path).unwrap();
        write!(file, "one\ntwo\nthr").unwrap();
        assert_eq!(tail.more().unwrap(), ["one", "two"]);
        writeln!(file, "ee").unwrap();
        assert_eq!(tail.more().unwrap(), ["three"]);
        assert!(tail.more().unwrap().is_empty());

        file.set_len(0).unwrap();
        writeln!(file, "cut").unwrap();
        assert_eq!(tail.more().unwrap(), ["cut"]);
        writeln!(file, "unread").unwrap();
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        fs::write(&path, "new\n").unwrap();
        assert_eq!(tail.more().unwrap(), ["unread"]);
        writeln!(file, "of an engine whose place is taken").unwrap();
        assert_eq!(tail.more().unwrap(), ["new"]);

        let mut file = File::options().append(true).open(&path).unwrap();
        writeln!(file, "before the copy").unwrap();
        fs::copy(&path, dir.path().join("log.1")).unwrap();
        file.set_len(0).unwrap();
        writeln!(file, "x").unwrap();
        assert_eq!(tail.more().unwrap(), ["before the copy"]);
        assert_eq!(tail.more().unwrap(), ["x"]);
    }

    /// POOLD-LOGS-001
    #[test]
    fn the_last_lines_of_a_long_log_are_found_without_reading_it_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let long: String = (0..100_000).map(|n| format!("line {n}\n")).collect();
        fs::write(&path, long).unwrap();
        let (lines, mut tail) = LogTail::last(path.clone(), 2).unwrap();
        assert_eq!(lines, ["line 99998", "line 99999"]);
        assert!(tail.more().unwrap().is_empty());
        let (many, _) = LogTail::last(path, 1_000_000).unwrap();
        assert!(many.len() > 10_000 && many[0].starts_with("line "), "{}", many[0]);
    }

    /// POOLD-LOGS-002
    #[test]
    fn a_line_without_an_end_is_cut_and_not_collected_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, vec![b'x'; 600 * 1024]).unwrap();
        let mut tail = LogTail { path, inode: 0, offset: 0, aside_ends: None };
        assert_eq!(tail.more().unwrap()[0].len() as u64, PIECE_BYTES);
        assert_eq!(tail.more().unwrap()[0].len() as u64, PIECE_BYTES);
        assert!(tail.more().unwrap().is_empty(), "the rest may still grow");
    }
}
