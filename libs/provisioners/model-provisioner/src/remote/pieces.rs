//! A file that several connections write at once: which pieces of it there are, how much of each is there,
//! and who fetches which. What is there is noted on disk after its bytes, so that a kill costs nothing that
//! was written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The pieces of one file, shared by those who fetch them.
#[derive(Debug)]
pub(super) struct Pieces {
    /// The bytes that are there of each piece, as numbers of eight bytes, one after the other.
    notes: File,
    size: u64,
    total: u64,
    state: Mutex<Vec<Piece>>,
    moved: Condvar,
}

#[derive(Debug, Clone, Copy, Default)]
struct Piece {
    /// Bytes from its beginning on.
    done: u64,
    taken: bool,
}

/// A piece that nobody else fetches until this is dropped.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    pieces: &'a Pieces,
    index: usize,
    /// The next byte to fetch.
    pub(super) from: u64,
    /// The first byte of the next piece.
    pub(super) to: u64,
}

impl Pieces {
    /// Of a file of `total` bytes, noted at `path`, with everything before `front` there already.
    pub(super) fn create(path: &Path, size: u64, total: u64, front: u64) -> io::Result<Self> {
        let notes = File::options().create(true).truncate(true).read(true).write(true).open(path)?;
        let pieces = Self::of(notes, size, total)?;
        let mut state = pieces.lock();
        for (index, piece) in state.iter_mut().enumerate() {
            let (start, end) = pieces.bounds(index);
            piece.done = front.clamp(start, end) - start;
        }
        let text: Vec<u8> = state.iter().flat_map(|piece| piece.done.to_le_bytes()).collect();
        drop(state);
        pieces.notes.write_all_at(&text, 0)?;
        Ok(pieces)
    }

    /// As an earlier run noted them. What its notes do not speak of is not there.
    pub(super) fn open(path: &Path, size: u64, total: u64) -> io::Result<Self> {
        let notes = File::options().read(true).write(true).open(path)?;
        let text = std::fs::read(path)?;
        let pieces = Self::of(notes, size, total)?;
        let mut state = pieces.lock();
        let noted = text.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        for ((index, piece), done) in state.iter_mut().enumerate().zip(noted) {
            let (start, end) = pieces.bounds(index);
            piece.done = done.min(end - start);
        }
        drop(state);
        Ok(pieces)
    }

    fn of(notes: File, size: u64, total: u64) -> io::Result<Self> {
        let many = || io::Error::other("the file has more pieces than can be noted");
        let size = size.max(1);
        let count = usize::try_from(total.div_ceil(size)).map_err(|_| many())?;
        if count > 1 << 20 {
            return Err(many());
        }
        let state = Mutex::new(vec![Piece::default(); count]);
        Ok(Self { notes, size, total, state, moved: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Piece>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bounds(&self, index: usize) -> (u64, u64) {
        let start = (index as u64).saturating_mul(self.size).min(self.total);
        (start, start.saturating_add(self.size).min(self.total))
    }

    /// The first piece that is not whole and that nobody fetches.
    pub(super) fn take(&self) -> Option<Taken<'_>> {
        let mut state = self.lock();
        let (index, piece) = state.iter_mut().enumerate().find(|(index, piece)| {
            let (start, end) = self.bounds(*index);
            !piece.taken && piece.done < end - start
        })?;
        piece.taken = true;
        let (start, to) = self.bounds(index);
        Some(Taken { pieces: self, index, from: start + piece.done, to })
    }

    /// How far the bytes reach that follow each other from `from` on.
    pub(super) fn reach(&self, from: u64) -> u64 {
        let state = self.lock();
        let mut at = from;
        let first = usize::try_from(from / self.size).unwrap_or(usize::MAX);
        for (index, piece) in state.iter().enumerate().skip(first) {
            let (start, end) = self.bounds(index);
            at = at.max(start + piece.done);
            if start + piece.done < end {
                break;
            }
        }
        at
    }

    /// Bytes of all pieces together.
    pub(super) fn there(&self) -> u64 {
        self.lock().iter().map(|piece| piece.done).sum()
    }

    /// Notes that the `bytes` from `from` on are written, whoever wrote them.
    pub(super) fn wrote(&self, from: u64, bytes: u64) -> io::Result<()> {
        let to = from.saturating_add(bytes).min(self.total);
        let mut at = from;
        while at < to {
            let index = usize::try_from(at / self.size).unwrap_or(usize::MAX);
            let (start, end) = self.bounds(index);
            let done = to.min(end) - start;
            let mut state = self.lock();
            let Some(piece) = state.get_mut(index) else { return Ok(()) };
            // Bytes behind a gap are not counted: what is there of a piece is its beginning.
            if at - start <= piece.done && done > piece.done {
                piece.done = done;
                self.notes.write_all_at(&done.to_le_bytes(), index as u64 * 8)?;
            }
            drop(state);
            at = start + done;
        }
        self.moved.notify_all();
        Ok(())
    }

    /// Waits until something moved, but not for longer than this.
    pub(super) fn wait(&self, limit: Duration) {
        let guard = self.lock();
        drop(self.moved.wait_timeout(guard, limit));
    }

    /// Wakes whoever waits.
    pub(super) fn wake(&self) {
        self.moved.notify_all();
    }
}

impl Taken<'_> {
    /// Notes that the next `bytes` of it are written.
    pub(super) fn wrote(&mut self, bytes: u64) -> io::Result<()> {
        self.pieces.wrote(self.from, bytes)?;
        self.from += bytes;
        Ok(())
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(piece) = self.pieces.lock().get_mut(self.index) {
            piece.taken = false;
        }
        self.pieces.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MPROV-026
    #[test]
    fn each_piece_is_taken_by_one_and_what_came_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pieces");
        // 0..10 10..20 20..30 30..35, the first 14 bytes there.
        let pieces = Pieces::create(&path, 10, 35, 14).unwrap();
        let mut one = pieces.take().unwrap();
        let mut two = pieces.take().unwrap();
        let three = pieces.take().unwrap();
        assert_eq!((one.from, one.to), (14, 20), "the first is whole, the second begun");
        assert_eq!((two.from, two.to, three.from, three.to), (20, 30, 30, 35));
        assert!(pieces.take().is_none());
        two.wrote(10).unwrap();
        assert_eq!((pieces.reach(0), pieces.reach(14), pieces.there()), (14, 14, 24));
        one.wrote(6).unwrap();
        assert_eq!((pieces.reach(0), pieces.reach(17)), (30, 30));
        drop(three);
        let mut three = pieces.take().unwrap();
        three.wrote(2).unwrap();
        assert_eq!((three.from, pieces.reach(0)), (32, 32));
        drop((one, two, three));
        drop(pieces);
        let again = Pieces::open(&path, 10, 35).unwrap();
        assert_eq!((again.reach(0), again.there()), (32, 32));
        // One stream over the end of a piece, over what is there, and beyond the end.
        let again = Pieces::create(&path, 10, 35, 8).unwrap();
        again.wrote(8, 27).unwrap();
        assert_eq!((again.reach(0), again.there()), (35, 35));
        again.wrote(30, 99).unwrap();
        assert!(again.take().is_none() && again.there() == 35);
    }

    /// MPROV-026
    #[test]
    fn notes_that_are_torn_or_lie_claim_no_more_than_a_piece_and_never_bytes_behind_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pieces");
        let text = [u64::MAX.to_le_bytes(), 3u64.to_le_bytes()].concat();
        std::fs::write(&path, &text[..12]).unwrap();
        let pieces = Pieces::open(&path, 10, 35).unwrap();
        assert_eq!((pieces.reach(0), pieces.there()), (10, 10), "the second number is half there");
        std::fs::write(&path, text).unwrap();
        assert_eq!(Pieces::open(&path, 10, 35).unwrap().reach(0), 13);
        let pieces = Pieces::create(&path, 10, 35, 0).unwrap();
        pieces.wrote(5, 5).unwrap();
        assert_eq!(pieces.there(), 0);
        assert!(Pieces::create(&path, 1, u64::MAX, 0).is_err());
    }
}
