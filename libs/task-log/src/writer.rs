//! Appending to a log. There is one writer, and a terminal entry consumes it.

use std::sync::Arc;

use wire::event::{End, Resumed, Started, StreamError};
use wire::{EngineChunk, ErrorCode};

use crate::Entry;
use crate::journal::Appender;
use crate::log::{Chunk, Store};

/// The one writer of a log. Dropped without a terminal entry it appends `INTERRUPTED`, so that no
/// reader waits for ever.
#[derive(Debug)]
pub struct LogWriter {
    store: Arc<Store>,
    /// Publishes what is put here once it is written; absent: at once.
    appender: Option<Appender>,
    /// The one that the last entry is in.
    chunk: Option<Arc<Chunk>>,
    limit_bytes: usize,
    next: u64,
    next_index: u64,
    ended: bool,
}

/// A chunk did not fit. The log is unchanged and can still be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the task's event log reached its limit of {limit_bytes} bytes")]
pub struct Full {
    /// The limit.
    pub limit_bytes: usize,
}

impl LogWriter {
    pub(crate) fn new(store: Arc<Store>, limit_bytes: usize, appender: Option<Appender>) -> Self {
        Self { store, appender, chunk: None, limit_bytes, next: 0, next_index: 0, ended: false }
    }

    /// Goes on behind what was read back.
    pub(crate) fn at(mut self, next: u64, next_index: u64) -> Self {
        self.next = next;
        self.next_index = next_index;
        self
    }

    /// Lets go of a log that nobody reads and that has nothing to say.
    pub fn discard(mut self) {
        self.ended = true;
    }

    /// Appends `started`.
    pub fn started(&mut self, started: Started) {
        self.push(Entry::Started(started));
    }

    /// Appends `resumed`; `from_index` is filled in here.
    pub fn resumed(&mut self, resumed: Resumed) {
        self.push(Entry::Resumed(Resumed { from_index: self.next_index, ..resumed }));
    }

    /// Appends a piece and says which token event it became; `None` for one without text.
    pub fn chunk(&mut self, chunk: EngineChunk) -> Result<Option<u64>, Full> {
        self.chunk_by(chunk, None)
    }

    /// The same of a piece with which it is noted what the task has spent on engines.
    pub fn chunk_by(&mut self, chunk: EngineChunk, decode_ms: Option<u64>) -> Result<Option<u64>, Full> {
        let index = (!chunk.text.is_empty()).then_some(self.next_index);
        let entry = Entry::Chunk { chunk, index, decode_ms };
        if self.store.bytes() + entry.weight() > self.limit_bytes {
            return Err(Full { limit_bytes: self.limit_bytes });
        }
        self.push(entry);
        self.next_index += u64::from(index.is_some());
        Ok(index)
    }

    /// Token events so far.
    #[must_use]
    pub fn token_events(&self) -> u64 {
        self.next_index
    }

    /// Appends `end`; nothing comes after it.
    pub fn end(mut self, end: End) {
        self.finish(Entry::End(end));
    }

    /// Appends `error`, with `tokens_sent` filled in here; nothing comes after it.
    pub fn error(mut self, error: StreamError) {
        let tokens_sent = self.next_index;
        self.finish(Entry::Error(StreamError { tokens_sent, ..error }));
    }

    /// Lets the log go on in another process: nothing of that is in it. Its readers are told `error`, with
    /// `tokens_sent` filled in here, when they have read what there is; see [`TaskLog::put_off`].
    ///
    /// [`TaskLog::put_off`]: crate::TaskLog::put_off
    pub fn put_off(mut self, error: StreamError) {
        self.ended = true;
        let tokens_sent = self.next_index;
        self.store.put_off(self.next, Entry::Error(StreamError { tokens_sent, ..error }));
    }

    fn finish(&mut self, entry: Entry) {
        self.ended = true;
        self.push(entry);
    }

    fn push(&mut self, entry: Entry) {
        let entry = self.store.put(self.next, entry, &mut self.chunk);
        match &self.appender {
            Some(appender) => appender.appended(&self.store, self.next, entry),
            None => self.store.publish(self.next + 1),
        }
        self.next += 1;
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        if !self.ended {
            let tokens_sent = self.next_index;
            self.finish(Entry::Error(StreamError {
                code: ErrorCode::Interrupted,
                message: "the task was cut off before it ended; submit it again".to_owned(),
                retriable: true,
                retry_after_ms: None,
                hint: None,
                tokens_sent,
            }));
        }
    }
}
