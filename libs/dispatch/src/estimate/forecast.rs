//! When a task starts, from what is measured of its pool: what runs, what goes before it, and how
//! long such tasks hold a slot.

use std::time::Duration;

use super::schedule::{start_after, start_after_all};
use super::{Asked, Estimator};
use crate::size::Size;

/// So many tasks ahead are gone through one by one; more are taken together.
const ONE_BY_ONE: usize = 64;

/// A slot at this moment.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Slot {
    Free,
    /// A task that asked for this and was expected to be so large has held it for so many seconds.
    Busy {
        asked: Asked,
        size: Size,
        held: f64,
    },
    /// In use by nobody we know of.
    Strange,
}

/// What goes before a task.
pub(crate) struct Before<I> {
    pub(crate) position: usize,
    /// All of it.
    pub(crate) total: Size,
    /// One by one, in order; not looked at where there are many.
    pub(crate) tasks: I,
}

impl Estimator {
    /// Until the task starts, if nothing else came. `None` before something was measured, or without
    /// slots.
    pub(crate) fn start<I>(&self, slots: &[Slot], before: Before<I>) -> Option<Duration>
    where
        I: Iterator<Item = (Asked, Size)>,
    {
        let free: Vec<f64> = slots.iter().map(|slot| self.until_free(slot)).collect::<Option<_>>()?;
        if before.position > ONE_BY_ONE {
            return start_after_all(free.into_iter(), before.position, self.service(before.total)?);
        }
        let tasks = before.tasks.take(before.position);
        let ahead: Vec<f64> = tasks.map(|(_, size)| self.service(size)).collect::<Option<_>>()?;
        start_after(free.into_iter(), ahead.into_iter())
    }

    fn until_free(&self, slot: &Slot) -> Option<f64> {
        match slot {
            Slot::Free => Some(0.0),
            Slot::Busy { asked, size, held } => self.left(asked, *size, *held),
            Slot::Strange => self.service(Size::default()),
        }
    }
}
