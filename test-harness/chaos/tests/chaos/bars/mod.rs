//! The bars, in the order of their numbers.

mod r01;
mod r02;
mod r03;
mod r04;
mod r05;
mod r06;
mod r07;
mod r08;
mod r09;
mod r10;
mod r11;
mod r12;
mod r13;
mod r14;
mod r15;
mod r16;
mod r17;
mod r18;
mod r19;
mod r20;

use std::pin::Pin;
use std::sync::Arc;

use anyhow::Result;

use crate::run::Run;

/// What is broken, what is promised, and how it is measured.
#[derive(Clone)]
pub(crate) struct Bar {
    pub(crate) id: &'static str,
    pub(crate) injected: &'static str,
    pub(crate) promised: &'static str,
    pub(crate) lane: Lane,
    pub(crate) run: fn(Arc<Run>) -> Running,
}

/// A bar that runs.
pub(crate) type Running = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// Beside what it may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Measures short times: after one another.
    Quick,
    /// Mostly waits.
    Waiting,
}

macro_rules! bar {
    ($id:literal, $lane:ident, $module:ident, $injected:literal, $promised:literal) => {
        Bar {
            id: $id,
            injected: $injected,
            promised: $promised,
            lane: Lane::$lane,
            run: |run| Box::pin($module::run(run)),
        }
    };
}

/// All of them.
pub(crate) fn all() -> Vec<Bar> {
    vec![
        bar!(
            "R1",
            Quick,
            r01,
            "kill -9 the engine at token 50 of 500, no other replica",
            "fail: ENGINE_LOST ≤ 250 ms; resume: next token ≤ 1 s + load; not ready ≤ 250 ms; handoff gone ≤ 500 ms; respawn ≤ 1 s"
        ),
        bar!(
            "R2",
            Waiting,
            r02,
            "kill -STOP the engine, idle and mid-stream",
            "not ready ≤ 5 s; stream error ≤ 10 s; replaced ≤ 15 s"
        ),
        bar!(
            "R3",
            Waiting,
            r03,
            "engine healthy but mute",
            "first-token limit trips, breaker opens after 3, one trial at a time"
        ),
        bar!(
            "R4",
            Waiting,
            r04,
            "engine slow but alive (one token per 8 s, 20 s prefill)",
            "0 restarts in 10 min"
        ),
        bar!(
            "R5",
            Waiting,
            r05,
            "engine exits at once, for ever",
            "4–5 spawns in 10 s, ≤ 12 in 600 s; cause and last lines in the API"
        ),
        bar!(
            "R6",
            Waiting,
            r06,
            "engine ignores SIGTERM; engine leaves a grandchild; crashes",
            "gone ≤ grace + 500 ms, 0 descendants; 1,000 crashes leave 0 zombies, fds ± 10"
        ),
        bar!(
            "R7",
            Quick,
            r07,
            "half-written, corrupt, huge, symlinked, foreign-owned handoffs; URLs to other hosts or ports",
            "ignored with a reason, previous binding kept, 0 packets outside; next good file bound ≤ 2 s"
        ),
        bar!(
            "R8",
            Quick,
            r08,
            "1,000 handoffs at once (and a scan of 10,000); the directory deleted and recreated",
            "all bound ≤ 5 s, scan ≤ 0.5 s; other streams' p99 gap ≤ 2×"
        ),
        bar!("R9", Quick, r09, "two managers on one directory", "the second exits 100 ≤ 1 s"),
        bar!(
            "R10",
            Quick,
            r10,
            "kill -9 the manager 20 times during one 60 s stream; its record deleted or cut",
            "same engine PID, 0 tokens lost, adopted ≤ 2 s; never two engines"
        ),
        bar!(
            "R11",
            Waiting,
            r11,
            "full disk on handoff, state, log or journal directory",
            "no truncation, no spawn without a durable record, streams go on, recovers ≤ 5 s"
        ),
        bar!(
            "R12",
            Quick,
            r12,
            "client closes at token 10 (FIN, RST) on /v1/*",
            "engine request cancelled ≤ 100 ms p99, slot free ≤ 250 ms"
        ),
        bar!(
            "R13",
            Quick,
            r13,
            "4,000 slow readers and 10 healthy",
            "healthy p99 gap ≤ 2×; ≤ 40 KiB RSS per connection; slow ones evicted ≤ 30 s"
        ),
        bar!(
            "R14",
            Quick,
            r14,
            "ten times the queue's capacity in 1 s",
            "429 ≤ 50 ms p99, all accepted finish, told wait within 2× of real"
        ),
        bar!(
            "R15",
            Quick,
            r15,
            "kill -9 orchestratord with 500 queued and 4 streaming",
            "lost 0, doubled 0, ready ≤ 2 s"
        ),
        bar!("R16", Quick, r16, "same task id 1,000 times at once", "one execution; another body 409"),
        bar!(
            "R17",
            Quick,
            r17,
            "slowloris, 1 GB body, 101 headers, deep JSON, invalid UTF-8",
            "4xx, closed, normal p99 ≤ 50 ms, RSS + 8 MiB"
        ),
        bar!(
            "R18",
            Waiting,
            r18,
            "reload to an engine that exits, never becomes healthy or fails its checksum; without memory for both",
            "rolled back, reason kept, old model serving again ≤ 2 s + load"
        ),
        bar!(
            "R19",
            Waiting,
            r19,
            "SIGTERM with an infinite stream and a full queue",
            "exits ≤ limit + 2 s, code 0; a second SIGTERM ≤ 1 s; the stream goes on after the next start"
        ),
        bar!(
            "R20",
            Quick,
            r20,
            "download cut at 37 % and resumed; checksum mismatch; truncated GGUF; two ensures at once",
            "≤ 1 MiB fetched again; never an unverified file under its final name; one download"
        ),
    ]
}
