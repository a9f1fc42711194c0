//! What a task leaves behind so that it can be run again: its receipt and, where it asked for one, its
//! transcript.

use adapter_host::{CompletionRequest, EngineRequest, Prompt, Sampling};
use wire::artifact::TRANSCRIPT_VERSION;
use wire::event::FinishReason;
use wire::task::Workload;
use wire::{EffectiveSampling, PoolId, Receipt, Seed, TaskId, TaskRequest, Transcript};

use super::live::{History, Live};
use crate::ending::{Ending, Used, used};
use crate::said::hex;

impl Live {
    pub(super) fn used(&self, ending: &Ending) -> Used {
        used(&self.said, ending, &self.resumed.0, self.resumed.1)
    }

    pub(super) fn receipt(&self, past: &History, ending: &Ending) -> Receipt {
        let told = match ending {
            Ending::Finished(finished) => finished.sampling.as_deref().cloned(),
            Ending::Spent | Ending::Cancelled(_) | Ending::Failed(_) => None,
        };
        let (seed, sampling, cache_prompt) = match &self.request {
            EngineRequest::Completion(c) => (c.sampling.seed, asked(&c.sampling, told), c.cache_prompt),
            EngineRequest::Chat(c) => (c.request.seed, told.unwrap_or_default(), c.cache_prompt),
            EngineRequest::Embedding(_) | EngineRequest::Rerank(_) => {
                (None, EffectiveSampling::default(), false)
            }
        };
        let run = past.run.as_ref();
        Receipt {
            engine_version: run.map(|run| run.engine_version.to_string()).unwrap_or_default(),
            engine: run.map(|run| (*run.engine).clone()).unwrap_or_default(),
            model_digest: run.map(|run| run.model_digest.to_string()).unwrap_or_default(),
            seed: seed.map(Seed),
            sampling,
            cache_prompt,
            request_sha256: hex(&self.fingerprint),
            tokens_sha256: self.said.sha256(self.used(ending).tokens_out),
            determinism: run.and_then(|run| run.determinism.as_deref().cloned()),
            transcript_sha256: self.transcript.clone(),
            seams: past.seams.clone(),
        }
    }

    /// What was asked and answered, of a task that finishes now.
    pub(super) fn transcript(&self, id: &TaskId, pool: &PoolId, ending: &Ending) -> Option<Transcript> {
        let EngineRequest::Completion(request) = &self.request else { return None };
        let finish_reason = match ending {
            Ending::Finished(finished) => finished.reason,
            Ending::Spent => FinishReason::Length,
            Ending::Cancelled(_) | Ending::Failed(_) => return None,
        };
        let Used { tokens_in, tokens_out } = self.used(ending);
        Some(Transcript {
            version: TRANSCRIPT_VERSION,
            task_id: id.clone(),
            pool_id: pool.clone(),
            request: asks_again(request, pool),
            text: self.said.text().to_owned(),
            tokens: self.said.ids(),
            tokens_in,
            tokens_out,
            finish_reason,
            receipt: self.receipt(&self.history, ending),
        })
    }
}

/// What was asked for, and what the engine took for the rest. It may be told rounded what it was asked.
fn asked(sampling: &Sampling, told: Option<EffectiveSampling>) -> EffectiveSampling {
    let told = told.unwrap_or_default();
    EffectiveSampling {
        max_tokens: sampling.max_tokens,
        temperature: sampling.temperature.or(told.temperature),
        top_k: sampling.top_k.map(i64::from).or(told.top_k),
        top_p: sampling.top_p.or(told.top_p),
        min_p: sampling.min_p.or(told.min_p),
        repeat_penalty: sampling.repeat_penalty.or(told.repeat_penalty),
        presence_penalty: sampling.presence_penalty.or(told.presence_penalty),
        frequency_penalty: sampling.frequency_penalty.or(told.frequency_penalty),
        ..told
    }
}

fn asks_again(request: &CompletionRequest, pool: &PoolId) -> TaskRequest {
    let (workload, prompt, messages) = match &request.prompt {
        Prompt::Text(text) => (Workload::Completion, Some(text.clone()), None),
        Prompt::Messages(messages) => (Workload::Chat, None, Some(messages.clone())),
    };
    let sampling = request.sampling.clone();
    TaskRequest {
        model: pool.to_string(),
        workload: Some(workload),
        prompt,
        messages,
        max_tokens: sampling.max_tokens,
        seed: sampling.seed.map(Seed),
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        top_k: sampling.top_k,
        min_p: sampling.min_p,
        repeat_penalty: sampling.repeat_penalty,
        stop: Some(sampling.stop).filter(|stop| !stop.is_empty()),
        grammar: sampling.grammar,
        json_schema: sampling.json_schema,
        ..TaskRequest::default()
    }
}
