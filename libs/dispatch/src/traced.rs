//! A task's part of a trace: one span for all of it, and below that one for each time that it waited
//! and one for each stay on an engine, whose id is what the engine is told. Where nobody collects
//! spans, or whoever began the trace does not keep it, the engine is told all the same.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use wire::task::Priority;
use wire::{SpanId, TraceContext};

use crate::core::{Account, Run, TaskCore};
use crate::ending::Ending;
use crate::spans::{Clocks, Side, Span, Spans};

#[derive(Debug)]
pub(crate) struct Traced {
    /// The request that submitted the task.
    parent: SpanId,
    /// The task.
    context: TraceContext,
    /// Absent where its spans are kept by nobody.
    spans: Option<Spans>,
    stay: Mutex<Stay>,
    clocks: Clocks,
}

/// Where the task is, and since when.
#[derive(Debug)]
enum Stay {
    Waits(Instant),
    Runs { since: Instant, context: TraceContext, on: String, engine: String, words: String },
}

impl Traced {
    /// A task that waits since `admitted`, asked for by the span that `request` names.
    pub(crate) fn new(request: &TraceContext, spans: Option<Spans>, admitted: Instant) -> Self {
        Self {
            parent: request.span_id(),
            context: request.child(),
            spans: spans.filter(|_| request.is_sampled()),
            stay: Mutex::new(Stay::Waits(admitted)),
            clocks: Clocks::now(),
        }
    }

    /// The task has got a slot; what its engine is told.
    pub(crate) fn begins(&self, run: &Run) -> TraceContext {
        let context = self.context.child();
        let runs = Stay::Runs {
            since: run.since,
            context: context.clone(),
            on: run.key.to_string(),
            engine: run.engine_version.to_string(),
            words: run.words.clone(),
        };
        let before = std::mem::replace(&mut *self.lock(), runs);
        self.tell(before, None, None);
        context
    }

    /// The task waits again. One that had got no engine yet has never ceased to.
    pub(crate) fn waits_again(&self, first_token: Option<Instant>, why: Option<String>) {
        let mut stay = self.lock();
        if matches!(*stay, Stay::Runs { .. }) {
            let before = std::mem::replace(&mut *stay, Stay::Waits(Instant::now()));
            self.tell(before, first_token, why);
        }
    }

    /// The task has ended.
    pub(crate) fn ended(&self, core: &TaskCore, account: &Account, ending: &Ending) {
        let Some(spans) = &self.spans else { return };
        let error = match ending {
            Ending::Failed(failure) => Some(failure.code.as_str().to_owned()),
            Ending::Finished(_) | Ending::Spent | Ending::Cancelled(_) => None,
        };
        let outcome = match ending {
            Ending::Finished(_) | Ending::Spent => "done",
            Ending::Cancelled(reason) => reason.as_str(),
            Ending::Failed(_) => "failed",
        };
        let before = std::mem::replace(&mut *self.lock(), Stay::Waits(Instant::now()));
        self.tell(before, account.first_token, error.clone());
        let mut span = Span::ended("task", &self.context, self.parent, core.admitted, self.clocks)
            .with("llama_orch.task_id", core.id.as_str())
            .with("llama_orch.pool_id", core.pool.id.as_str())
            .with("llama_orch.priority", priority(core.place.priority))
            .with("llama_orch.outcome", outcome)
            .with("gen_ai.usage.output_tokens", account.used.tokens_out);
        if let Some(tokens_in) = account.used.tokens_in {
            span = span.with("gen_ai.usage.input_tokens", tokens_in);
        }
        span.error = error;
        spans.put(span);
    }

    fn tell(&self, stay: Stay, first_token: Option<Instant>, error: Option<String>) {
        let Some(spans) = &self.spans else { return };
        let parent = self.context.span_id();
        spans.put(match stay {
            Stay::Waits(since) => {
                Span { error, ..Span::ended("queued", &self.context.child(), parent, since, self.clocks) }
            }
            Stay::Runs { since, context, on, engine, words } => {
                let first_token = first_token.filter(|first| *first >= since);
                let span = Span::ended("running", &context, parent, since, self.clocks)
                    .with("llama_orch.replica", on)
                    .with("llama_orch.engine_version", engine)
                    .with("llama_orch.placement", words)
                    .event("first_token", first_token, self.clocks);
                Span { side: Side::Client, error, ..span }
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Stay> {
        self.stay.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn priority(priority: Priority) -> &'static str {
    match priority {
        Priority::Interactive => "interactive",
        Priority::Batch => "batch",
    }
}
