//! How large a model is, asked for a plan: once, briefly, and without fetching anything.

use std::time::Duration;

use super::client::{Ask, Client, Head, Problem};
use super::fetch::Target;
use super::url::Endpoint;
use super::{FetchError, Patience, Remote};
use crate::ModelRef;

/// Whoever asks for a plan does not wait longer for an answer.
const SOON: Duration = Duration::from_secs(5);

impl Remote<'_> {
    /// The bytes of all files of `reference`; `None` where the source does not say.
    pub(crate) fn announced_bytes(
        &self,
        reference: &ModelRef,
        pinned: Option<&str>,
    ) -> Result<Option<u64>, FetchError> {
        let usual = self.network.patience;
        let (connect, stall) = (usual.connect.min(SOON), usual.stall.min(SOON));
        let patience = Patience { tries: 1, connect, stall, ..usual };
        let endpoint = Endpoint::parse(&self.network.endpoint)?;
        let client = Client::new(&endpoint, self.network.token.clone(), patience);
        let source = self.source(&client, &endpoint, patience, reference, pinned)?;
        let mut all = Some(0u64);
        for target in &source.targets {
            let size = match target.size {
                Some(size) => Some(size),
                None => announced(&self.asked(&client, target)?),
            };
            all = all.zip(size).map(|(all, size)| all.saturating_add(size));
        }
        Ok(all)
    }

    fn asked(&self, client: &Client, target: &Target) -> Result<Head, FetchError> {
        let url = target.url.to_string();
        match client.ask(&target.url, Ask::HeadAnywhere, self.cancel) {
            // Some servers know no HEAD; what they say of its size shows when it is fetched.
            Ok((head, _)) if (200..300).contains(&head.status) || matches!(head.status, 405 | 501) => {
                Ok(head)
            }
            Ok((head, _)) if !head.is_transient() => Err(FetchError::Status { url, status: head.status }),
            Ok((head, _)) => {
                let problem = format!("HTTP status {}", head.status);
                Err(FetchError::Unreachable { url, tries: 1, problem })
            }
            Err(Problem::Transient(problem)) => Err(FetchError::Unreachable { url, tries: 1, problem }),
            Err(Problem::Final(error)) => Err(error),
        }
    }
}

fn announced(head: &Head) -> Option<u64> {
    head.number("content-length").filter(|_| (200..300).contains(&head.status))
}
