//! One stay of a task on an engine: from the leased slot to its end, its loss or its cancellation.
//!
//! Where the code stands is the state. The token path is one poll of the stream and one append;
//! everything that may cut a run short is one future beside it.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adapter_host::{EngineItem, EngineRequest, SoFar, StreamFault, SubmitError, TokenStream, WorkerAdapter};
use futures_util::StreamExt as _;
use registry::{Drain, SlotLease};
use tokio::time::Instant;
use wire::{ErrorCode, ReplicaKey, TraceContext};

use crate::beside::Beside;
use crate::budget::Cause;
use crate::core::{AfterLoss, DRAINED, Refused, Run, TaskCore};
use crate::dispatcher::Shared;
use crate::ending::{CancelReason, Ending, Failure};
use crate::pool::Placed;
use crate::watchers::unread_for;
use crate::{Decision, Detach};

/// How a run came to its end.
enum Verdict {
    /// Somebody else has ended the task.
    EndedElsewhere,
    /// The task ends so.
    End(Ending),
    /// Its replica went away between its choice and its use; the task has not begun.
    NotBegun,
    /// The process goes down.
    GoingDown,
    /// The engine lives and has reported an error of its own.
    Faulty { failure: Failure },
    /// The engine is gone; `failure` is what the task ends with if it may not run again. The reason
    /// is logged and holds nothing that the engine said.
    Lost { reason: String, failure: Failure },
}

/// Runs a placed task. The stream and the slot are let go before the task's end is announced, so
/// that whoever reads the end finds the slot free.
pub(crate) async fn run(shared: Arc<Shared>, placed: Placed) {
    let Placed { core, lease, decision } = placed;
    let guard = Guard { shared: &shared, core: &core };
    let key = lease.key().clone();
    let generation = lease.generation();
    tell_placement(&core, &decision);
    let verdict = {
        let mut ends = Beside::new(cut_short(&shared, &core, &lease));
        // On the heap, as all that is not the token path: what a token touches is not to be spread over its room.
        match Box::pin(begin(&shared, &core, &lease, decision.words, &mut ends)).await {
            Ok(stream) => Pump { core: &core, stream, ends }.await,
            Err(verdict) => verdict,
        }
    };
    let drain = lease.drain();
    drop(lease);
    let distrust = || core.pool.lost(&key, generation, shared.limits.suspect_for);
    match verdict {
        Verdict::EndedElsewhere => {}
        Verdict::End(ending) => {
            if matches!(ending, Ending::Finished(_)) {
                core.pool.trust(&key, generation);
            }
            Box::pin(shared.finish(&core, ending)).await;
        }
        Verdict::GoingDown => shared.interrupt(&core),
        Verdict::NotBegun => {
            distrust();
            shared.queue_again(&core);
        }
        Verdict::Faulty { failure } => {
            core.pool.fault(&key, generation, Instant::now() + shared.limits.suspect_for);
            // Of the request as likely as of the engine: going on with it would be tried in vain.
            tracing::warn!(task = %core.id, replica = %key, "the engine reported an error");
            after_fault(&shared, &core, failure);
        }
        Verdict::Lost { reason, failure } => match drain {
            None => {
                distrust();
                tracing::warn!(task = %core.id, replica = %key, %reason, "the engine of a task was lost");
                Box::pin(after_loss(&shared, &core, &reason, failure, Counts::Yes)).await;
            }
            Some(drain) => {
                tracing::info!(task = %core.id, replica = %key, %reason, "the drain of its replica cut a task off");
                Box::pin(after_drain(&shared, &core, drain, &key)).await;
            }
        },
    }
    std::mem::forget(guard);
}

fn tell_placement(core: &TaskCore, decision: &Decision) {
    core.pool.metrics.placed(decision.outcome.as_str());
    tracing::info!(task = %core.id, outcome = decision.outcome.as_str(), words = decision.words, "placed");
}

/// Whether trying a task again is what its pool's budget is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    Yes,
    /// Somebody planned the loss of its engine.
    No,
}

async fn after_loss(shared: &Shared, core: &Arc<TaskCore>, reason: &str, failure: Failure, counts: Counts) {
    match core.after_loss(reason, &shared.limits) {
        AfterLoss::Ended => {}
        AfterLoss::GiveUp(None) => shared.end(core, Ending::Failed(failure)),
        AfterLoss::GiveUp(Some(why)) => shared.end(core, Ending::Failed(failure.because(why))),
        AfterLoss::Spent => shared.finish(core, Ending::Spent).await,
        AfterLoss::Anew if counts == Counts::Yes => try_again(shared, core, Cause::Loss, failure),
        AfterLoss::Anew | AfterLoss::Again => shared.queue_again(core),
    }
}

/// Runs a task anew, if its pool's budget has room for that; else it ends as it would have after its last try.
fn try_again(shared: &Shared, core: &Arc<TaskCore>, cause: Cause, failure: Failure) {
    match core.pool.try_again(cause, Instant::now()) {
        Ok(()) => shared.queue_again(core),
        Err(after) => shared.end(core, Ending::Failed(failure.budget_spent(after))),
    }
}

/// A replica that was drained comes back when somebody says so: an answer does not wait for that. One
/// whose next life is on its way does, as after a crash.
async fn after_drain(shared: &Shared, core: &Arc<TaskCore>, drain: Drain, key: &ReplicaKey) {
    let failure = Failure::draining(key);
    let another = || shared.registry.snapshot().pool(&core.pool.id).any(|(_, r)| r.ready && !r.draining);
    if drain == Drain::Superseded || !core.has_spoken() || another() {
        after_loss(shared, core, DRAINED, failure, Counts::No).await;
    } else {
        shared.end(core, Ending::Failed(failure));
    }
}

/// A task that has shown nothing may be tried again; one that has ends in the engine's words.
fn after_fault(shared: &Shared, core: &Arc<TaskCore>, failure: Failure) {
    const REASON: &str = "it reported an error before its first token";
    match core.after_fault(REASON) {
        AfterLoss::Anew | AfterLoss::Again => try_again(shared, core, Cause::Fault, failure),
        AfterLoss::Ended => {}
        AfterLoss::GiveUp(_) | AfterLoss::Spent => shared.end(core, Ending::Failed(failure)),
    }
}

impl Shared {
    /// Lets a task wait again that has had a slot.
    pub(crate) fn queue_again(&self, core: &Arc<TaskCore>) {
        core.tell_waiting();
        if core.pool.put_back(core).is_err() {
            self.interrupt(core);
        } else if core.has_ended() {
            // It ended before it was back: it must not take up a place.
            core.pool.leave(core);
        } else {
            self.moved(core);
        }
    }
}

/// Takes a placed task to its engine.
async fn begin(
    shared: &Shared,
    core: &TaskCore,
    lease: &SlotLease,
    words: String,
    ends: &mut Beside<impl Future<Output = Verdict>>,
) -> Result<TokenStream, Verdict> {
    let snapshot = shared.registry.snapshot();
    let replica = snapshot.replicas.get(lease.key()).filter(|r| r.generation == lease.generation());
    let adapter = shared.host.get(lease.key(), lease.generation());
    let (Some(replica), Some(adapter)) = (replica, adapter) else {
        return Err(Verdict::NotBegun);
    };
    let run = Run {
        key: lease.key().clone(),
        engine_version: Arc::clone(&replica.engine_version),
        engine: Arc::clone(&replica.engine),
        model_id: Arc::clone(&replica.model_id),
        model_digest: Arc::clone(&replica.model_digest),
        determinism: replica.determinism.clone(),
        load: replica.hints.load,
        since: Instant::now(),
        words,
    };
    // Held any longer it would make the registry copy its map on every change.
    drop(snapshot);
    if is_over(core.deadline) {
        return Err(Verdict::End(Ending::Failed(Failure::deadline())));
    }
    let (request, trace) = match core.begin(run) {
        Some(Ok(begun)) => begun,
        Some(Err(failure)) => return Err(Verdict::End(Ending::Failed(failure))),
        None => return Err(Verdict::EndedElsewhere),
    };
    shared.moved(core);
    tokio::select! {
        biased;
        verdict = ends.over() => Err(verdict),
        stream = submit(&*adapter, request, trace) => stream,
    }
}

async fn submit(
    adapter: &dyn WorkerAdapter,
    request: EngineRequest,
    trace: Option<TraceContext>,
) -> Result<TokenStream, Verdict> {
    let goes_on = matches!(&request, EngineRequest::Completion(c) if c.so_far != SoFar::Nothing);
    adapter.submit(request, trace).await.map_err(|error| match error {
        SubmitError::Lost(reason) => lost(reason),
        // What was said has filled the context meanwhile.
        SubmitError::Refused(body) if goes_on && body.code == ErrorCode::ContextOverflow => {
            Verdict::End(Ending::Spent)
        }
        SubmitError::Refused(body) => Verdict::End(Ending::Failed(Failure::refused(*body))),
    })
}

/// The token path, as one future without another in it.
struct Pump<'a, F> {
    core: &'a TaskCore,
    stream: TokenStream,
    /// Everything that ends it from outside.
    ends: Beside<F>,
}

impl<F: Future<Output = Verdict>> Future for Pump<'_, F> {
    type Output = Verdict;

    /// The stream goes first: what the engine has already sent is the reader's, even if the engine is
    /// gone by now. The deadline is therefore checked at every token and not only beside the stream.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Verdict> {
        loop {
            let Poll::Ready(item) = self.stream.poll_next_unpin(cx) else {
                return self.ends.poll(cx);
            };
            if let Some(verdict) = take(self.core, item) {
                return Poll::Ready(verdict);
            }
            // An engine that is always faster than we must not keep the thread to itself.
            ready!(pin!(tokio::task::coop::consume_budget()).poll(cx));
        }
    }
}

/// What the stream said, and whether that ends the run.
fn take(core: &TaskCore, item: Option<Result<EngineItem, StreamFault>>) -> Option<Verdict> {
    match item {
        Some(Ok(EngineItem::Chunk(chunk))) => {
            let now = Instant::now();
            if core.deadline.is_some_and(|deadline| now >= deadline) {
                return Some(Verdict::End(Ending::Failed(Failure::deadline())));
            }
            match core.append(chunk, now) {
                Ok(()) => None,
                Err(Refused::Ended) => Some(Verdict::EndedElsewhere),
                Err(Refused::Full(full)) => Some(too_large(full)),
            }
        }
        Some(Ok(EngineItem::Finished(finished))) => Some(Verdict::End(Ending::Finished(finished))),
        Some(Err(fault)) => Some(fault_verdict(fault)),
        None => Some(lost("it closed the stream without an end".to_owned())),
    }
}

/// Everything that ends a run from outside.
async fn cut_short(shared: &Shared, core: &TaskCore, lease: &SlotLease) -> Verdict {
    let unread = async {
        match core.detach {
            Detach::After(grace) => unread_for(core.log.readers(), grace).await,
            Detach::AtOnce | Detach::Never => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = core.ended.cancelled() => Verdict::EndedElsewhere,
        reason = lease.lost() => lost(reason.to_string()),
        () = shared.drained.cancelled() => Verdict::GoingDown,
        () = until(core.deadline) => Verdict::End(Ending::Failed(Failure::deadline())),
        () = unread => Verdict::End(Ending::Cancelled(CancelReason::Unread)),
        () = stalled(core, shared.limits.stalled_after) => Verdict::Lost {
            reason: format!("it sent nothing for {} s", shared.limits.stalled_after.as_secs()),
            failure: Failure::stalled(shared.limits.stalled_after),
        },
    }
}

/// Resolves when the engine has begun to answer and then sent nothing for `limit`. Costs nothing per
/// token: it looks when the limit would be over.
async fn stalled(core: &TaskCore, limit: Duration) {
    let mut look = Instant::now() + limit;
    loop {
        tokio::time::sleep_until(look).await;
        let silent_since = core.last_chunk().unwrap_or_else(Instant::now);
        if silent_since + limit <= Instant::now() {
            return;
        }
        look = silent_since + limit;
    }
}

fn lost(reason: String) -> Verdict {
    let failure = Failure::engine_lost(&reason);
    Verdict::Lost { reason, failure }
}

fn fault_verdict(fault: StreamFault) -> Verdict {
    match fault {
        StreamFault::Lost(reason) => lost(reason),
        StreamFault::Protocol(what) => lost(format!("it broke its protocol: {what}")),
        StreamFault::Engine(what) => {
            // What it said may quote the prompt: it is its owner's and never logged.
            Verdict::Faulty {
                failure: Failure::new(ErrorCode::Internal, format!("the engine reported: {what}")),
            }
        }
    }
}

fn too_large(full: task_log::Full) -> Verdict {
    let message = format!("{full}; ask for fewer max_tokens");
    Verdict::End(Ending::Failed(Failure::new(ErrorCode::TooLarge, message)))
}

fn is_over(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending::<()>().await,
    }
}

/// A run that is torn down in the middle (a panic, a runtime going away) still ends its task, so
/// that no reader waits for ever.
struct Guard<'a> {
    shared: &'a Shared,
    core: &'a TaskCore,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.shared.end(self.core, Ending::Failed(Failure::interrupted()));
    }
}
