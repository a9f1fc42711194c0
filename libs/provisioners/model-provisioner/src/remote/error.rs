//! Why a model did not come over the network, each with what to do about it.

use std::path::PathBuf;

use crate::CatalogError;
use crate::gguf::GgufError;

/// Why there is no verified file.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It would have to be fetched, and the network is not to be used.
    #[error("offline: it is not in {cache}; run once with a network, or write `model: file:PATH`")]
    Offline {
        /// Where it is not.
        cache: PathBuf,
    },
    /// Nobody vouches for it, and somebody has to.
    #[error("{problem}")]
    Untrusted {
        /// Why it is refused.
        problem: String,
    },
    /// What is known of it here was written in a format of the future.
    #[error(
        "{path} was written by a later version of this program (format {version}, this one reads up to {known}), \
         and nothing of it was touched: use that version, or another cache (LLAMA_ORCH_CACHE)"
    )]
    Later {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: u32,
        /// The last one that is understood.
        known: u32,
    },
    /// There is no room for it among the models.
    #[error("there is no room for it")]
    Quota {
        /// Why.
        source: CatalogError,
    },
    /// `HF_ENDPOINT` is not usable.
    #[error("HF_ENDPOINT is {value:?}: {problem}")]
    Endpoint {
        /// As given.
        value: String,
        /// Why.
        problem: String,
    },
    /// A URL, or where it led to, may not be asked.
    #[error("{url} is refused: {problem}")]
    Refused {
        /// The URL.
        url: String,
        /// Why.
        problem: String,
    },
    /// All tries failed.
    #[error(
        "{url} could not be fetched in {tries} tries; the last one: {problem}. What came so far is kept: \
         check the network and start again"
    )]
    Unreachable {
        /// The URL.
        url: String,
        /// How often it was tried without any progress.
        tries: u32,
        /// The last failure.
        problem: String,
    },
    /// The server says no.
    #[error("{url} answered with HTTP status {status}; check the address")]
    Status {
        /// The URL.
        url: String,
        /// The status.
        status: u16,
    },
    /// The repository wants its conditions accepted.
    #[error(
        "the repository {repo} is gated: accept its conditions on its page at the hub, and ask with a token of the \
         account that did; {asked}"
    )]
    Gated {
        /// `org/repo`.
        repo: String,
        /// With which token, in words.
        asked: String,
    },
    /// The token is not accepted.
    #[error(
        "the hub does not accept the token it was asked with for {repo}; make a new one with read access; {asked}"
    )]
    BadToken {
        /// `org/repo`.
        repo: String,
        /// With which token, in words.
        asked: String,
    },
    /// There is no such repository.
    #[error(
        "the hub has no repository {repo}, or it is private and wants a token that may read it; check the spelling; \
         {asked}"
    )]
    NoRepository {
        /// `org/repo`.
        repo: String,
        /// With which token, in words.
        asked: String,
    },
    /// There is no such branch, tag or commit.
    #[error("the repository {repo} has no revision {revision}")]
    NoRevision {
        /// `org/repo`.
        repo: String,
        /// What was asked for.
        revision: String,
    },
    /// There is no such file.
    #[error("the repository {repo} has no file {file} at revision {revision}")]
    NoFile {
        /// `org/repo`.
        repo: String,
        /// Its path there.
        file: String,
        /// The revision.
        revision: String,
    },
    /// No file has this quantisation.
    #[error("the repository {repo} has no quantisation {wanted}; there are: {known}")]
    NoQuantisation {
        /// `org/repo`.
        repo: String,
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
    },
    /// It is a repository without GGUF files.
    #[error("the repository {repo} has no GGUF file; look for one whose name ends in -GGUF")]
    NoGguf {
        /// `org/repo`.
        repo: String,
    },
    /// A file in the middle of a split set was asked for.
    #[error("{file} is one file of a split model; name the first, {first}, and all of them are fetched")]
    NotFirst {
        /// As asked for.
        file: String,
        /// The first of the set.
        first: String,
    },
    /// The repository has only some files of a split set.
    #[error(
        "{file} is the first file of a split model, and the repository has no {missing}; nothing was fetched"
    )]
    IncompleteSet {
        /// The first.
        file: String,
        /// The one that is not there.
        missing: String,
    },
    /// The hub's answer makes no sense.
    #[error("{url} gave an answer that is not the hub's: {problem}; check HF_ENDPOINT")]
    Answer {
        /// The URL.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The file is not as long as it should be.
    #[error("{url} has {actual} bytes where {expected} were announced; nothing of it was used")]
    WrongLength {
        /// The URL.
        url: String,
        /// As announced.
        expected: u64,
        /// As offered.
        actual: u64,
    },
    /// The bytes are not the right ones.
    #[error(
        "{url} has SHA-256 {actual}, expected {expected}; nothing of it was used. Correct `model_sha256` only if you \
         know why it changed"
    )]
    WrongDigest {
        /// The URL.
        url: String,
        /// As the hub or the configuration says.
        expected: String,
        /// As computed, or as the hub says where the configuration says otherwise.
        actual: String,
    },
    /// The bytes are no model.
    #[error("what {url} gave is not a usable GGUF model; nothing of it was used")]
    NotAModel {
        /// The URL.
        url: String,
        /// Why.
        source: GgufError,
    },
    /// It would not fit.
    #[error(
        "{needed_mib} MiB are needed in {path} and {free_mib} MiB are free; make room or set LLAMA_ORCH_CACHE"
    )]
    DiskFull {
        /// The directory.
        path: PathBuf,
        /// Still to be written, and a margin.
        needed_mib: u64,
        /// What there is.
        free_mib: u64,
    },
    /// The cache cannot be used.
    #[error("cannot {action} {path}; check space and permissions, or set LLAMA_ORCH_CACHE")]
    Local {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Someone asked to stop.
    #[error("interrupted; what was fetched so far is kept and continued next time")]
    Cancelled,
}

/// Makes a system error one of ours.
pub(crate) fn local(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(std::io::Error) -> FetchError {
    let path = path.into();
    move |source| FetchError::Local { action, path, source }
}
