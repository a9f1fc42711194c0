//! Why a task was not admitted.

use std::time::Duration;

use task_log::journal::Unrecorded;
use wire::{PoolId, SessionId, TaskId};

use crate::{InvalidPlacement, LimitReached, SessionSpent};

/// Why a task was not admitted. Nothing was queued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// No pool has this name.
    #[error(transparent)]
    UnknownModel(#[from] UnknownModel),
    /// The pool's queue has no place for a task of this class, and nothing in it may be dropped.
    #[error("the queue of pool {pool} is full ({waiting} tasks wait{})", kept(*.waiting, *.capacity))]
    QueueFull {
        /// The pool.
        pool: PoolId,
        /// Tasks that wait.
        waiting: usize,
        /// Tasks it lets wait.
        capacity: u32,
        /// When a place is likely, from the measured drain rate; whole seconds, at least one.
        retry_after: Duration,
    },
    /// The id belongs to a task of the same owner with another body.
    #[error("task id {task_id} is taken by another request")]
    Conflict {
        /// The id.
        task_id: TaskId,
    },
    /// Its caller holds its share of the places, and what is left is for others that come.
    #[error(
        "{held} of your tasks wait in pool {pool} already, and the rest of its {capacity} places is kept \
         for the others who use it"
    )]
    OverShare {
        /// The pool.
        pool: PoolId,
        /// Tasks of the caller that wait.
        held: usize,
        /// Tasks the pool lets wait.
        capacity: u32,
        /// As above.
        retry_after: Duration,
    },
    /// Its session has used what it may.
    #[error("session {session} has used its {spent}")]
    SessionSpent {
        /// The session.
        session: SessionId,
        /// What.
        spent: SessionSpent,
    },
    /// Its caller has asked for as much as it may.
    #[error("the limit of {reached} is reached")]
    RateLimited {
        /// Which limit.
        reached: LimitReached,
        /// When it lets the next request in; whole seconds, at least one.
        retry_after: Duration,
    },
    /// At the measured rate it would end after its deadline.
    #[error(
        "the task would start in about {} and take about {}, which a deadline of {} does not allow",
        told(*.start), told(*.service), told(*.deadline)
    )]
    DeadlineUnmet {
        /// The pool.
        pool: PoolId,
        /// What was asked for.
        deadline: Duration,
        /// Estimated time until it would start.
        start: Duration,
        /// Estimated time on the engine.
        service: Duration,
    },
    /// The placement contradicts itself or the model.
    #[error(transparent)]
    InvalidPlacement(#[from] InvalidPlacement),
    /// The journal cannot be written, and a task that is not on disk is not accepted.
    #[error("{Unrecorded}")]
    Unrecorded,
    /// This orchestratord is going down.
    #[error("orchestratord is shutting down and admits nothing new")]
    ShuttingDown,
}

impl AdmissionError {
    /// The value of the metric's `reason` label.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::UnknownModel(_) => "unknown_model",
            Self::QueueFull { .. } => "queue_full",
            Self::Conflict { .. } => "conflict",
            Self::OverShare { .. } => "over_share",
            Self::SessionSpent { .. } => "session_spent",
            Self::RateLimited { .. } => "rate_limited",
            Self::DeadlineUnmet { .. } => "deadline_unmet",
            Self::InvalidPlacement(_) => "invalid_placement",
            Self::Unrecorded => "unrecorded",
            Self::ShuttingDown => "shutting_down",
        }
    }
}

/// No pool has this id, alias or model name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no pool serves a model named {model:?}{}", hint(.nearest))]
pub struct UnknownModel {
    /// What was asked for.
    pub model: String,
    /// The nearest names there are, nearest first; at most three.
    pub nearest: Vec<String>,
}

fn kept(waiting: usize, capacity: u32) -> String {
    let rest = (capacity as usize).saturating_sub(waiting);
    if rest == 0 {
        String::new()
    } else {
        format!("; {rest} more places are kept for tasks of the other class")
    }
}

/// A duration for people, to about three digits.
fn told(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 1.0 { format!("{} ms", duration.as_millis()) } else { format!("{seconds:.1} s") }
}

fn hint(nearest: &[String]) -> String {
    if nearest.is_empty() { String::new() } else { format!("; the nearest names are {}", nearest.join(", ")) }
}
