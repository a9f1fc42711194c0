//! The hub's API: from a repository, a selector and a revision to one file at one commit.

use serde::Deserialize;

use super::client::{Ask, Client, Head, Problem};
use super::url::{Endpoint, SafeUrl, encode};
use super::{FetchError, Patience, choose};
use crate::{Cancel, Selector};

pub(super) const DEFAULT_REVISION: &str = "main";
const MAX_LIST: usize = 16 << 20;
/// The hub lists a thousand entries a page.
const MAX_PAGES: usize = 20;

pub(crate) struct Hub<'a> {
    pub(crate) client: &'a Client,
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) patience: Patience,
    pub(crate) cancel: &'a Cancel,
}

/// What the reference asks for.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) repo: &'a str,
    pub(crate) selector: &'a Selector,
    pub(crate) revision: Option<&'a str>,
}

impl Wanted<'_> {
    fn revision(&self) -> &str {
        self.revision.unwrap_or(DEFAULT_REVISION)
    }
}

/// One file at one commit.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) url: SafeUrl,
    pub(crate) file: String,
    pub(crate) commit: String,
    pub(crate) size: Option<u64>,
    pub(crate) sha256: Option<String>,
}

#[derive(Deserialize)]
struct TreeEntry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
}

impl Hub<'_> {
    /// The files of the wanted model, in order, all at one commit.
    pub(crate) fn resolve(&self, wanted: &Wanted<'_>) -> Result<Vec<Found>, FetchError> {
        let file = match wanted.selector {
            Selector::File(file) => file.clone(),
            selector => choose::choose(wanted.repo, &self.list(wanted)?, selector)?.to_owned(),
        };
        let mut found: Vec<Found> = Vec::new();
        for file in choose::set_of(&file)? {
            // From the first file on the commit, so that a branch that moves meanwhile changes nothing.
            let revision = found.first().map_or(wanted.revision(), |first| first.commit.as_str());
            let next = self.resolve_file(wanted, revision, file)?;
            found.push(next);
        }
        Ok(found)
    }

    fn resolve_file(&self, wanted: &Wanted<'_>, revision: &str, file: String) -> Result<Found, FetchError> {
        let url = self.resolve_url(wanted.repo, revision, &file)?;
        let head = self.patiently(&url, || self.client.ask(&url, Ask::Head, self.cancel).map(|(h, _)| h))?;
        self.refusal(&head, wanted, Some(&file), &url)?;
        let commit = head.get("x-repo-commit").filter(|commit| is_hex(commit, 40));
        let commit = commit.ok_or_else(|| FetchError::Answer {
            url: url.to_string(),
            problem: "it names no commit".to_owned(),
        })?;
        let etag = head.get("x-linked-etag").map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
        Ok(Found {
            url: self.resolve_url(wanted.repo, commit, &file)?,
            commit: commit.to_owned(),
            size: head.number("x-linked-size"),
            sha256: etag.filter(|etag| is_hex(etag, 64)).map(str::to_ascii_lowercase),
            file,
        })
    }

    fn list(&self, wanted: &Wanted<'_>) -> Result<Vec<String>, FetchError> {
        let revision = encode(wanted.revision(), false);
        let mut url =
            self.endpoint.at(&format!("/api/models/{}/tree/{revision}?recursive=true", wanted.repo))?;
        let mut files = Vec::new();
        for _ in 0..MAX_PAGES {
            let (head, body) = self.patiently(&url, || self.client.read(&url, MAX_LIST, self.cancel))?;
            self.refusal(&head, wanted, None, &url)?;
            let page: Vec<TreeEntry> = serde_json::from_slice(&body).map_err(|e| FetchError::Answer {
                url: url.to_string(),
                problem: format!("its list of files cannot be read ({e})"),
            })?;
            files.extend(page.into_iter().filter(|entry| entry.kind == "file").map(|entry| entry.path));
            let Some(next) = head.get("link").and_then(next_page) else { break };
            let next = url.join(next, self.endpoint.rule())?;
            if !next.same_origin(&url) {
                break;
            }
            url = next;
        }
        Ok(files)
    }

    fn resolve_url(&self, repo: &str, revision: &str, file: &str) -> Result<SafeUrl, FetchError> {
        self.endpoint.at(&format!("/{repo}/resolve/{}/{}", encode(revision, false), encode(file, true)))
    }

    fn patiently<T: Answered>(
        &self,
        url: &SafeUrl,
        mut ask: impl FnMut() -> Result<T, Problem>,
    ) -> Result<T, FetchError> {
        let mut failures = 0;
        loop {
            let problem = match ask() {
                Ok(answer) if !answer.head().is_transient() => return Ok(answer),
                Ok(answer) => format!("HTTP status {}", answer.head().status),
                Err(Problem::Transient(problem)) => problem,
                Err(Problem::Final(error)) => return Err(error),
            };
            failures += 1;
            if failures >= self.patience.tries {
                return Err(FetchError::Unreachable { url: url.to_string(), tries: failures, problem });
            }
            self.patience.pause(failures, self.cancel)?;
        }
    }

    /// The hub's ways to say no, told apart by status and its own error code: it answers 401 both for a
    /// repository that does not exist and for one that is gated.
    fn refusal(
        &self,
        head: &Head,
        wanted: &Wanted<'_>,
        file: Option<&str>,
        url: &SafeUrl,
    ) -> Result<(), FetchError> {
        let (repo, revision) = (wanted.repo.to_owned(), wanted.revision().to_owned());
        let asked = self.client.asked().to_string();
        let code = head.get("x-error-code").unwrap_or_default();
        let bad_token = head.get("x-error-message").is_some_and(|text| text.contains("Invalid"));
        Err(match (head.status, code) {
            (200..=399, _) => return Ok(()),
            (_, "GatedRepo") => FetchError::Gated { repo, asked },
            (_, "RevisionNotFound") => FetchError::NoRevision { repo, revision },
            (401, _) if bad_token => FetchError::BadToken { repo, asked },
            (_, "RepoNotFound") => FetchError::NoRepository { repo, asked },
            (404, _) => match file {
                Some(file) => FetchError::NoFile { repo, file: file.to_owned(), revision },
                None => FetchError::NoRepository { repo, asked },
            },
            (401 | 403, _) => FetchError::Gated { repo, asked },
            (status, _) => FetchError::Status { url: url.to_string(), status },
        })
    }
}

trait Answered {
    fn head(&self) -> &Head;
}
impl Answered for Head {
    fn head(&self) -> &Head {
        self
    }
}
impl Answered for (Head, Vec<u8>) {
    fn head(&self) -> &Head {
        &self.0
    }
}

fn next_page(link: &str) -> Option<&str> {
    let entry = link.split(',').find(|entry| entry.contains("rel=\"next\""))?;
    entry.split_once('<')?.1.split_once('>').map(|(url, _)| url)
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit())
}
