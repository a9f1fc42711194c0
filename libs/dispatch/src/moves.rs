//! Which tasks have moved, for those who watch all of them: admitted, started, waiting again, ended.
//! Nobody waits for a watcher; one that is too slow is told how much it missed.

use std::fmt;
use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use wire::TaskView;
use wire::dashboard::PoolLoad;
use wire::task::Priority;

use crate::core::TaskCore;
use crate::dispatcher::Shared;
use crate::{Dispatch, Owner};

/// So many moves are kept for a watcher that is slow.
const KEPT: usize = 4_096;

/// Tells of moves. Costs next to nothing while nobody watches.
#[derive(Debug)]
pub(crate) struct Moves(broadcast::Sender<u64>);

impl Default for Moves {
    fn default() -> Self {
        Self(broadcast::Sender::new(KEPT))
    }
}

/// The tasks of all owners, as they move.
pub struct TaskMoves {
    shared: Arc<Shared>,
    receiver: broadcast::Receiver<u64>,
}

/// What a watcher is told.
#[derive(Debug)]
pub enum Moved {
    /// This task, as it is by now.
    Task(Box<TaskView>),
    /// So many moves were too fast for it.
    Missed(u64),
}

impl TaskMoves {
    /// The next move. `None` when dispatch is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Moved> {
        loop {
            let seq = match self.receiver.recv().await {
                Ok(seq) => seq,
                Err(RecvError::Lagged(missed)) => return Some(Moved::Missed(missed)),
                Err(RecvError::Closed) => return None,
            };
            let core = self.shared.lock_store().numbered(seq).map(Arc::clone);
            // One that is not on disk yet may not be seen; it is told of when it is.
            if let Some(core) = core.filter(|core| core.recorded.borrow().is_settled()) {
                return Some(Moved::Task(Box::new(self.shared.view(&core))));
            }
        }
    }
}

impl fmt::Debug for TaskMoves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskMoves").finish_non_exhaustive()
    }
}

impl Dispatch {
    /// Watches all tasks from now on, whoever's they are: for the control scope.
    #[must_use]
    pub fn moves(&self) -> TaskMoves {
        TaskMoves { shared: Arc::clone(&self.shared), receiver: self.shared.moves.0.subscribe() }
    }

    /// What goes on in each pool.
    #[must_use]
    pub fn loads(&self) -> Vec<PoolLoad> {
        let snapshot = self.shared.registry.snapshot();
        let usage = self.usage();
        let loads = self.pool_ids().into_iter().filter_map(|id| {
            let pool = self.shared.pool(&id)?;
            let (slots_total, slots_free) = pool.slots(&snapshot);
            let waiting = |priority| u32::try_from(pool.lock_queue().len_of(priority)).unwrap_or(u32::MAX);
            let mut load = PoolLoad {
                ready: slots_total > 0,
                waiting_interactive: waiting(Priority::Interactive),
                waiting_batch: waiting(Priority::Batch),
                running: u32::try_from(pool.lock_running().len()).unwrap_or(u32::MAX),
                slots_total,
                slots_free,
                tasks: 0,
                failed: 0,
                tokens_in: 0,
                tokens_out: 0,
                pool_id: id,
            };
            for row in usage.iter().filter(|row| row.pool_id == load.pool_id) {
                load.tasks += row.tasks;
                load.failed += row.failed;
                load.tokens_in += row.tokens_in;
                load.tokens_out += row.tokens_out;
            }
            Some(load)
        });
        loads.collect()
    }

    /// The newest tasks of all owners, the oldest of them first.
    #[must_use]
    pub fn newest(&self, limit: usize) -> Vec<TaskView> {
        let filter = crate::TaskFilter { owner: Owner::Control, state: None, limit, before: None };
        let mut tasks = self.tasks(&filter).tasks;
        tasks.reverse();
        tasks
    }
}

impl Shared {
    /// A task is not where it was.
    pub(crate) fn moved(&self, core: &TaskCore) {
        if self.moves.0.receiver_count() > 0 {
            // They may all have gone meanwhile.
            let _ = self.moves.0.send(core.place.seq);
        }
    }
}
