//! One file over the network: resumed, retried, hashed while it comes, and handed on only when its
//! length and digest are the announced ones.

use std::path::Path;
use std::time::Instant;

use super::client::{Ask, Client, Head, Problem};
use super::connections::Connections;
use super::error::FetchError;
use super::partial::{Finished, Partial, Whole};
use super::patience::Patience;
use super::url::SafeUrl;
use crate::Cancel;
use crate::stage::StageEvent;

/// What to fetch and what it has to be.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) url: SafeUrl,
    /// The file's name here.
    pub(crate) name: String,
    pub(crate) size: Option<u64>,
    pub(crate) sha256: Option<String>,
}

/// Where in a split set the file is, for those who watch.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Within {
    /// Bytes of the files before it.
    pub(crate) before: u64,
    /// Of all files together, where that is known.
    pub(crate) all: Option<u64>,
}

pub(crate) struct Download<'a> {
    pub(crate) client: &'a Client,
    pub(crate) target: &'a Target,
    pub(crate) within: Within,
    pub(crate) patience: Patience,
    pub(crate) connections: Connections,
    pub(crate) on_event: &'a dyn Fn(StageEvent),
    pub(crate) cancel: &'a Cancel,
}

/// Left free for everybody else.
const MARGIN: u64 = 64 << 20;
/// Bytes between two reports.
pub(super) const REPORT_EVERY: u64 = 1 << 20;

impl Download<'_> {
    /// The finished file, still under its partial name, verified as far as anybody vouches for it.
    pub(crate) fn run(&self, path: &Path) -> Result<Finished, FetchError> {
        let mut on_read = |done| self.report("checking what is there of", done, self.target.size);
        let (url, known_digest) = (self.url(), self.target.sha256.is_some());
        let mut partial = Partial::open(path, &url, known_digest, &mut on_read, self.cancel)?;
        if let Some(size) = self.target.size {
            room(path, size.saturating_sub(partial.there()))?;
        }
        let mut failures = 0;
        let mut furthest = partial.len() + partial.there();
        // What several began, several continue.
        let (mut several, mut alone) = (partial.shared().is_some(), false);
        while !partial.is_complete() {
            if several && !self.together(&mut partial)? {
                // They got nowhere where one does: a server that wants one connection.
                alone = true;
            }
            several = false;
            if partial.is_complete() {
                break;
            }
            let problem = match self.attempt(&mut partial, !alone) {
                Ok(Ended::Whole) => break,
                Ok(Ended::Slow) => {
                    partial.open_to_several(self.connections.piece)?;
                    several = true;
                    continue;
                }
                Err(Problem::Final(error)) => return Err(error),
                Err(Problem::Transient(problem)) => problem,
            };
            if partial.len() + partial.there() > furthest {
                furthest = partial.len() + partial.there();
                failures = 0;
            }
            failures += 1;
            tracing::debug!(url = %self.target.url, failures, problem, at = partial.len(), "the download broke off");
            if failures >= self.patience.tries {
                return Err(FetchError::Unreachable { url: self.url(), tries: failures, problem });
            }
            self.patience.pause(failures, self.cancel)?;
        }
        self.verify(partial)
    }

    /// One stream, to the end of the file, or until it is seen that several would be faster.
    fn attempt(&self, partial: &mut Partial, may_be_helped: bool) -> Result<Ended, Problem> {
        let from = self.resume_at(partial);
        let if_range = partial.whole().etag.clone();
        let ask = Ask::Get { from, to: None, if_range };
        let (head, mut incoming) = self.client.ask(&self.target.url, ask, self.cancel)?;
        self.begin(partial, from, &head)?;
        let limit = match partial.whole().total {
            Some(total) => total,
            None => room(partial.path(), 0)?,
        };
        let divisible = may_be_helped && gives_parts(&head) && partial.whole().etag.is_some();
        let (began_at, since) = (partial.len(), Instant::now());
        let mut reported = None;
        while let Some(bytes) = incoming.next()? {
            if partial.len() + bytes.len() as u64 > limit {
                let actual = partial.len() + bytes.len() as u64;
                return Err(FetchError::WrongLength { url: self.url(), expected: limit, actual }.into());
            }
            partial.append(bytes)?;
            if reported.is_none_or(|at| partial.len() >= at + REPORT_EVERY) || partial.is_complete() {
                reported = Some(partial.len());
                self.progress(partial);
            }
            let (came, left) = (partial.len() - began_at, limit - partial.len());
            if divisible && self.connections.would_help(came, since.elapsed(), left) {
                return Ok(Ended::Slow);
            }
        }
        match partial.whole().total {
            Some(total) if partial.len() < total => {
                Err(Problem::Transient(format!("it ended after {} of {total} bytes", partial.len())))
            }
            _ => Ok(Ended::Whole),
        }
    }

    /// From where on to ask. Without a strong validator only a digest can tell a changed file.
    fn resume_at(&self, partial: &Partial) -> u64 {
        let provable = partial.whole().etag.is_some() || self.target.sha256.is_some();
        if provable { partial.len() } else { 0 }
    }

    /// Makes `partial` ready for the body that follows `head`.
    fn begin(&self, partial: &mut Partial, from: u64, head: &Head) -> Result<(), Problem> {
        match head.status {
            206 if from > 0 && continues(partial.whole(), from, head) => return Ok(()),
            206 | 416 => {
                // A different part or a different file: nothing of the old one can be trusted.
                partial.restart(Whole::of(self.url(), None, None))?;
                return Err(Problem::Transient("the file changed at the source".to_owned()));
            }
            200 => {}
            _ if head.is_transient() => {
                return Err(Problem::Transient(format!("HTTP status {}", head.status)));
            }
            status => return Err(FetchError::Status { url: self.url(), status }.into()),
        }
        let announced = head.number("content-length");
        if let (Some(expected), Some(actual)) = (self.target.size, announced)
            && expected != actual
        {
            return Err(FetchError::WrongLength { url: self.url(), expected, actual }.into());
        }
        let total = announced.or(self.target.size);
        partial.restart(Whole::of(self.url(), strong_etag(head), total))?;
        room(partial.path(), total.unwrap_or(0))?;
        Ok(())
    }

    fn verify(&self, partial: Partial) -> Result<Finished, FetchError> {
        let finished = partial.finish()?;
        match &self.target.sha256 {
            Some(expected) if *expected != finished.sha256() => {
                let (url, actual) = (self.url(), finished.sha256().to_owned());
                finished.discard()?;
                Err(FetchError::WrongDigest { url, expected: expected.clone(), actual })
            }
            _ => Ok(finished),
        }
    }

    /// How far the download is.
    pub(super) fn progress(&self, partial: &Partial) {
        self.report("fetching", partial.there(), partial.whole().total);
    }

    fn report(&self, doing: &str, done: u64, total: Option<u64>) {
        let name = &self.target.name;
        let (done, total) = (self.within.before.saturating_add(done), self.within.all.or(total));
        let description = match total {
            Some(total) => format!("{doing} {name}: {} of {} MiB", done >> 20, total >> 20),
            None => format!("{doing} {name}: {} MiB", done >> 20),
        };
        (self.on_event)(StageEvent::progress(description, done, total.unwrap_or(done)));
    }

    fn url(&self) -> String {
        self.target.url.to_string()
    }
}

/// How one stream ended without anything being wrong.
enum Ended {
    /// Nothing more is to come.
    Whole,
    /// There is much to come, and it comes slowly from a server that gives parts.
    Slow,
}

/// Whether a 206 is the part of the same file that begins at `from`: `Content-Range: bytes FROM-LAST/TOTAL`.
pub(super) fn continues(whole: &Whole, from: u64, head: &Head) -> bool {
    let range = head.get("content-range").and_then(|text| text.strip_prefix("bytes "));
    let Some((part, total)) = range.and_then(|text| text.split_once('/')) else { return false };
    let starts = part.split('-').next().and_then(|first| first.parse().ok()) == Some(from);
    let same_total = whole.total.is_none_or(|known| total.parse() == Ok(known));
    let same_etag = match (&whole.etag, strong_etag(head)) {
        (Some(old), Some(new)) => *old == new,
        _ => true,
    };
    starts && same_total && same_etag
}

/// Whether the server says that it can be asked for parts of the file.
fn gives_parts(head: &Head) -> bool {
    head.status == 206 || head.get("accept-ranges").is_some_and(|unit| unit.eq_ignore_ascii_case("bytes"))
}

fn strong_etag(head: &Head) -> Option<String> {
    head.get("etag").filter(|etag| etag.starts_with('"')).map(str::to_owned)
}

/// Refuses when `needed` more bytes do not fit; returns what may be written.
pub(crate) fn room(path: &Path, needed: u64) -> Result<u64, FetchError> {
    let dir = path.parent().unwrap_or(path);
    // Not being able to ask is no reason to refuse.
    let Ok(stat) = rustix::fs::statvfs(dir) else { return Ok(u64::MAX) };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let with_margin = needed.saturating_add(MARGIN);
    if needed > 0 && with_margin > free {
        return Err(FetchError::DiskFull {
            path: dir.to_path_buf(),
            needed_mib: with_margin >> 20,
            free_mib: free >> 20,
        });
    }
    Ok(free.saturating_sub(MARGIN))
}
