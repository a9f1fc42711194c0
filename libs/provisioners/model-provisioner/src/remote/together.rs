//! Several connections to one file: each fetches one piece after the other, and whoever started them hashes
//! what lies without a gap.
//!
//! They only help. One that gets no further ends, a file that is another one now ends all of them, and what
//! is wrong is found out and reported by the single stream that goes on then.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::FetchError;
use super::client::{Ask, Client, Problem};
use super::error::local;
use super::fetch::{Download, REPORT_EVERY, continues};
use super::partial::{Partial, Whole};
use super::patience::Patience;
use super::pieces::{Pieces, Taken};
use super::url::SafeUrl;
use crate::Cancel;

/// How long whoever hashes waits for more before it looks who is left.
const LOOK: Duration = Duration::from_millis(20);

impl Download<'_> {
    /// Fetches with several connections for as long as that helps. Whether any byte came.
    pub(super) fn together(&self, partial: &mut Partial) -> Result<bool, FetchError> {
        let Some((pieces, file)) = partial.shared() else { return Ok(false) };
        let before = partial.there();
        let mut reported = before;
        let helper = Helper {
            client: self.client,
            url: &self.target.url,
            whole: partial.whole().clone(),
            patience: self.patience,
            cancel: self.cancel,
            pieces,
            file,
            over: AtomicBool::new(false),
        };
        std::thread::scope(|scope| {
            let helpers: Vec<_> = (0..self.connections.most).map(|_| scope.spawn(|| helper.work())).collect();
            let outcome = loop {
                if self.cancel.is_cancelled() {
                    break Err(FetchError::Cancelled);
                }
                let all_ended = helpers.iter().all(std::thread::ScopedJoinHandle::is_finished);
                match partial.follow() {
                    Ok(true) => {}
                    Ok(false) if all_ended || partial.is_complete() => break Ok(()),
                    Ok(false) => helper.pieces.wait(LOOK),
                    Err(error) => break Err(error),
                }
                if partial.there() >= reported + REPORT_EVERY || partial.is_complete() {
                    reported = partial.there();
                    self.progress(partial);
                }
            };
            helper.over.store(true, Ordering::Release);
            outcome
        })?;
        Ok(partial.there() > before)
    }
}

/// What those who fetch have in common.
struct Helper<'a> {
    client: &'a Client,
    url: &'a SafeUrl,
    whole: Whole,
    patience: Patience,
    cancel: &'a Cancel,
    pieces: Arc<Pieces>,
    file: Arc<File>,
    /// Nobody needs to go on.
    over: AtomicBool,
}

impl Helper<'_> {
    /// One connection's work, until there is none or it gets no further.
    fn work(&self) {
        while let Some(mut taken) = self.pieces.take().filter(|_| !self.over.load(Ordering::Acquire)) {
            let begin = taken.from;
            let outcome = self.fetch(&mut taken);
            let moved = taken.from > begin;
            drop(taken);
            match outcome {
                Ok(()) => {}
                Err(Problem::Transient(problem)) if moved => {
                    tracing::debug!(url = %self.url, problem, at = begin, "one of several connections broke off");
                    if self.patience.pause(1, self.cancel).is_err() {
                        break;
                    }
                }
                Err(problem) => {
                    tracing::debug!(url = %self.url, ?problem, "one of several connections gets no further");
                    break;
                }
            }
        }
        self.pieces.wake();
    }

    fn fetch(&self, taken: &mut Taken<'_>) -> Result<(), Problem> {
        let ask = Ask::Get { from: taken.from, to: Some(taken.to), if_range: self.whole.etag.clone() };
        let (head, mut incoming) = self.client.ask(self.url, ask, self.cancel)?;
        if head.is_transient() {
            return Err(Problem::Transient(format!("HTTP status {}", head.status)));
        }
        if head.status != 206 || !continues(&self.whole, taken.from, &head) {
            // No part of this file: the others' would not be either.
            self.over.store(true, Ordering::Release);
            return Err(Problem::Transient(format!(
                "HTTP status {} and no part of the same file",
                head.status
            )));
        }
        // To the end of the answer, so that the connection can be used again, unless more than was asked for
        // is announced.
        let exact = head.number("content-length") == Some(taken.to - taken.from);
        while exact || taken.from < taken.to {
            let Some(bytes) = incoming.next()? else { break };
            if self.over.load(Ordering::Acquire) {
                return Err(Problem::Transient("the others ended".to_owned()));
            }
            let left = usize::try_from(taken.to - taken.from).unwrap_or(usize::MAX);
            let wanted = bytes.get(..bytes.len().min(left)).unwrap_or_default();
            let written = self.file.write_all_at(wanted, taken.from);
            let noted = written.and_then(|()| taken.wrote(wanted.len() as u64));
            noted.map_err(local("write the download of", self.url.to_string()))?;
        }
        match taken.to - taken.from {
            0 => Ok(()),
            left => Err(Problem::Transient(format!("it ended {left} bytes too early"))),
        }
    }
}
