//! One file from an https address whose SHA-256 is known: resumed, retried, held to its digest. For what
//! is no model, such as the source archive of an engine.

use std::path::Path;

use super::client::Client;
use super::fetch::{Download, Target, Within};
use super::partial::Finished;
use super::store::{self, Lock, Store};
use super::url::Rule;
use super::{Connections, FetchError, Patience};
use crate::Cancel;
use crate::stage::StageEvent;

/// The verified file, under a name of its own, until it is discarded. Nobody else fetches it meanwhile.
#[derive(Debug)]
pub struct Pinned {
    file: Finished,
    _one: Lock,
}

impl Pinned {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// It served its purpose.
    pub fn discard(self) -> Result<(), FetchError> {
        self.file.discard()
    }
}

/// Fetches `url` into `dir/.partial`. What an earlier attempt left there is continued. Blocking.
pub fn fetch_pinned(
    url: &str,
    sha256: &str,
    dir: &Path,
    patience: Patience,
    on_event: &dyn Fn(StageEvent),
    cancel: &Cancel,
) -> Result<Pinned, FetchError> {
    let url = Rule::HttpsOnly.admit(url)?;
    let store = Store::new(dir);
    let name = url.file_name();
    let sha256 = sha256.to_ascii_lowercase();
    let key = store::key(&format!("{url} {sha256}"));
    let on_wait = || {
        let text = format!("waiting for another download of {name} to end");
        on_event(StageEvent::progress(text, 0, 0));
    };
    let one = store.lock(&key, &on_wait, cancel)?;
    let target = Target { url, name: name.clone(), size: None, sha256: Some(sha256) };
    let client = Client::anonymous(Rule::HttpsOnly, patience);
    let (client, target, within, connections) = (&client, &target, Within::default(), Connections::default());
    let download = Download { client, target, within, patience, connections, on_event, cancel };
    let file = download.run(&store.partial(&key))?;
    Ok(Pinned { file, _one: one })
}
