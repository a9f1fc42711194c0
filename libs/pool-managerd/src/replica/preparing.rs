//! Before an engine can be launched it is provisioned: one at a time, and given up when it is no longer
//! wanted. Says what happens after a preparation that failed.

use std::sync::Arc;

use provisioners_engine_provisioner::Cancel;
use wire::{Phase, PreparationStep, PreparedEngine, StepStatus};

use super::{After, Replica};
use crate::PrepareError;
use crate::classify::Cause;
use crate::loss::Loss;
use crate::pause::{Pause, first_line, one_line, soon};
use crate::prepare::Progress;
use crate::schedule::nth;

impl Replica {
    pub(super) async fn prepare(&mut self) -> Result<PreparedEngine, After> {
        if let Some(prepared) = &self.prepared {
            return Ok(prepared.clone());
        }
        self.seat.update(|r| r.phase(Phase::Provisioning));
        let shared = Arc::clone(&self.shared);
        let _turn = tokio::select! {
            turn = shared.provisioning.lock() => turn,
            () = self.orders.unwanted() => return Err(After::Stopped),
        };
        let cancel = Cancel::new();
        let mut work = tokio::task::spawn_blocking({
            let (shared, pool, cancel) =
                (Arc::clone(&self.shared), Arc::clone(&self.target.pool), cancel.clone());
            let (replica, progress) = (self.key.replica.clone(), self.progress());
            move || shared.preparer.prepare(&pool, &replica, &progress, &cancel)
        });
        let mut anew = self.orders.clone();
        let outcome = tokio::select! {
            outcome = &mut work => outcome,
            () = self.orders.unwanted() => {
                cancel.cancel();
                let _whatever_it_came_to = work.await;
                return Err(After::Stopped);
            }
            // Nobody waits for a download of yesterday's model.
            () = anew.another_target() => {
                cancel.cancel();
                let _whatever_it_came_to = work.await;
                return Err(After::Again);
            }
        };
        let error = match outcome {
            Ok(Ok(prepared)) => {
                self.unprepared = 0;
                self.prepared = Some(prepared.clone());
                return Ok(prepared);
            }
            Ok(Err(error)) => error,
            Err(join) => PrepareError {
                message: format!("preparing the engine broke off: {join}"),
                remedy: None,
                may_heal: false,
            },
        };
        Err(self.not_prepared(error))
    }

    /// Its steps are settled while it is this replica's turn; the reason is there before they are.
    fn not_prepared(&mut self, error: PrepareError) -> After {
        let mut loss = Loss::plain(Cause::Provisioning, error.message);
        loss.remedy = error.remedy.or(loss.remedy);
        let error_on_board = loss.into_wire();
        self.seat.update(|r| r.last_error = Some(error_on_board.clone()));
        if !error.may_heal {
            self.seat.preparation(StepStatus::Failed, None);
            return After::Failed(Box::new(error_on_board));
        }
        let pause = nth(&self.shared.timings.provisioning_pauses, self.unprepared);
        self.unprepared = self.unprepared.saturating_add(1);
        let message = &error_on_board.message;
        tracing::warn!(
            replica = %self.key, cause = error_on_board.cause, "{}; trying again {}", first_line(message), soon(pause)
        );
        let words = format!("trying again {}: {}", soon(pause), one_line(message));
        self.seat.preparation(StepStatus::Running, Some(&words));
        After::Pause(Pause::for_preparation(pause))
    }

    fn progress(&self) -> Progress {
        let (steps, model) = (self.seat.clone(), self.seat.clone());
        Progress::new(move |step| steps.step(not_final(step)), move |record| model.set_model(Some(record)))
    }
}

/// Whether a failed step is the end of it is decided when its preparation has returned; clients take
/// a failed step as final.
fn not_final(mut step: PreparationStep) -> PreparationStep {
    if step.status == StepStatus::Failed {
        step.status = StepStatus::Running;
    }
    step
}
