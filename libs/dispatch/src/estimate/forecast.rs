//! When a task starts, from what is measured of its pool: what runs, what goes before it, and how
//! long such tasks hold a slot.
//!
//! How long an answer will be nobody knows. Behind a few tasks that is most of what there is to know,
//! so what is told is the middle of what may come: all of it is played through several times, with
//! answers as unlike as they were seen, always the same ones. Behind many it evens out.

use std::time::Duration;

use super::correction::class;
use super::schedule::{start_after, start_after_all};
use super::{Asked, Estimator};
use crate::size::Size;

/// Behind so many tasks what may come is played through.
const PLAYED: usize = 16;
/// So often. A prime, so that each task can go through its answers in an order of its own.
const PLAYS: usize = 31;
/// Behind so many it is gone through once, by averages; more are taken together.
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
    /// How many of the tasks before one are looked at one by one.
    pub(crate) fn looks_at(position: usize) -> usize {
        if position > ONE_BY_ONE { 0 } else { position }
    }

    /// Until the task starts, if nothing else came. `None` before something was measured, or without
    /// slots.
    pub(crate) fn start<I>(&self, slots: &[Slot], before: Before<I>) -> Option<Duration>
    where
        I: Iterator<Item = (Asked, Size)>,
    {
        let free = slots.iter().filter(|slot| matches!(slot, Slot::Free)).count();
        if free > before.position {
            return self.service(Size::default()).map(|_measured| Duration::ZERO);
        }
        let tasks = before.tasks.take(before.position);
        if before.position <= PLAYED && slots.len() <= ONE_BY_ONE {
            return self.play(slots, tasks);
        }
        let free: Vec<f64> = slots.iter().map(|slot| self.until_free(slot)).collect::<Option<_>>()?;
        if before.position > ONE_BY_ONE {
            return start_after_all(free.into_iter(), before.position, self.service(before.total)?);
        }
        let ahead: Vec<f64> = tasks.map(|(_, size)| self.service(size)).collect::<Option<_>>()?;
        start_after(free.into_iter(), ahead.into_iter())
    }

    /// The middle of what may come.
    fn play(&self, slots: &[Slot], tasks: impl Iterator<Item = (Asked, Size)>) -> Option<Duration> {
        let free: Vec<[f64; PLAYS]> =
            slots.iter().map(|slot| self.may_be_free(slot)).collect::<Option<_>>()?;
        let ahead: Vec<[f64; PLAYS]> =
            tasks.map(|(asked, size)| self.may_take(&asked, size, 0.0)).collect::<Option<_>>()?;
        let mut starts = [Duration::ZERO; PLAYS];
        for (play, start) in starts.iter_mut().enumerate() {
            let seconds = |(nth, spread): (usize, &[f64; PLAYS])| spread[answer(nth, play)];
            let slots = free.iter().enumerate().map(seconds);
            let ahead = ahead.iter().enumerate().map(|(nth, spread)| seconds((free.len() + nth, spread)));
            *start = start_after(slots, ahead)?;
        }
        let (_, middle, _) = starts.select_nth_unstable(PLAYS / 2);
        Some(*middle)
    }

    fn until_free(&self, slot: &Slot) -> Option<f64> {
        match slot {
            Slot::Free => Some(0.0),
            Slot::Busy { asked, size, held } => self.left(asked, *size, *held),
            Slot::Strange => self.service(Size::default()),
        }
    }

    fn may_be_free(&self, slot: &Slot) -> Option<[f64; PLAYS]> {
        match slot {
            Slot::Busy { asked, size, held } => self.may_take(asked, *size, *held),
            Slot::Free | Slot::Strange => Some([self.until_free(slot)?; PLAYS]),
        }
    }

    /// How much longer a task may hold its slot that has held it for so many seconds, the shortest
    /// first.
    fn may_take(&self, asked: &Asked, size: Size, held: f64) -> Option<[f64; PLAYS]> {
        let read = size.tokens_in as f64 * self.per_token_in.get()?;
        let Some(per_out) = self.per_token_out.get().filter(|per_out| *per_out > 0.0) else {
            return Some([(self.service(size)? - held).max(0.0); PLAYS]);
        };
        let so_far = ((held - read) / per_out).max(0.0);
        let at_most = asked.at_most.map_or(f64::MAX, |tokens| tokens as f64);
        let tokens = self.lengths[class(asked.priority)].spread(so_far, at_most).unwrap_or([0.0; PLAYS]);
        Some(tokens.map(|tokens| (read - held).max(0.0) + tokens * per_out))
    }
}

/// Which of its possible answers the nth task gives in a play: each in some play, and different tasks
/// in different orders.
fn answer(nth: usize, play: usize) -> usize {
    // 3 is a primitive root of 31.
    let step = (0..nth % (PLAYS - 1)).fold(1, |power, _| power * 3 % PLAYS);
    (play * step + nth * 7) % PLAYS
}
