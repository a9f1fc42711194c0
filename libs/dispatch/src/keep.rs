//! Transcripts: what a finished task was asked and answered, kept where it asked for that. Written before
//! its end is told, so that whoever reads the end finds it.

use std::sync::Arc;

use task_log::Artifacts;

use crate::Dispatch;
use crate::core::TaskCore;
use crate::dispatcher::Shared;
use crate::ending::Ending;
use crate::spec::Owner;

impl Dispatch {
    /// Keeps transcripts from now on. To be called once, before anything is submitted.
    pub fn keep_transcripts(&self, artifacts: Artifacts) {
        let _kept = self.shared.artifacts.set(artifacts);
    }
}

impl Owner {
    /// Whose artifacts an owner's are.
    #[must_use]
    pub fn shelf(&self) -> String {
        match self {
            Self::Control => "control".to_owned(),
            Self::Data(name) => format!("data {name}"),
        }
    }
}

impl Shared {
    /// Ends a task as [`Shared::end`] does, behind its transcript.
    pub(crate) async fn finish(&self, core: &Arc<TaskCore>, ending: Ending) {
        if core.transcript
            && let Some(artifacts) = self.artifacts.get()
        {
            self.keep_transcript(core, &ending, artifacts.clone()).await;
        }
        self.end(core, ending);
    }

    /// A disk that refuses takes nothing of the answer: its receipt then names no transcript.
    async fn keep_transcript(&self, core: &TaskCore, ending: &Ending, artifacts: Artifacts) {
        let Some(transcript) = core.transcript(ending) else { return };
        let owner = core.owner.shelf();
        let stored = tokio::task::spawn_blocking(move || {
            let bytes = serde_json::to_vec(&transcript).map_err(|error| error.to_string())?;
            artifacts.put(&owner, &bytes).map_err(|error| with_cause(&error))
        });
        match stored.await {
            Ok(Ok(sha256)) => core.keeps(sha256),
            Ok(Err(error)) => tracing::error!(task = %core.id, error, "a transcript could not be kept"),
            // The runtime is going away.
            Err(_) => {}
        }
    }
}

fn with_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
