//! When a task will start and how long it takes, from what was measured in its pool: seconds per
//! prompt token, seconds per generated token, how long answers are, how many bytes a token has.
//! Says nothing before something was measured: an invented number would be worse than none.

mod correction;
mod forecast;
mod lengths;
mod measured;
mod schedule;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use wire::task::Priority;

use crate::CallerId;
use crate::size::Size;
use correction::{Correction, class};
pub(crate) use forecast::{Before, Slot};
use lengths::Lengths;
pub use measured::Measured;

/// What is left of a sum when the next sample comes: about the last thirty tasks count.
const FADE: f64 = 0.97;
/// Bytes per token of text until a prompt was counted.
const BYTES_PER_TOKEN: f64 = 4.0;
/// Tokens of an answer until one was seen.
const UNSEEN_ANSWER: f64 = 256.0;
/// Answers that must have been seen before a task is refused on their account.
const ENOUGH: u32 = 4;
/// And not longer ago than this: otherwise a pool that was slow once would refuse for ever.
const FRESH: Duration = Duration::from_secs(60);

/// A ratio of two sums in which the old fades. Long tasks count more, as they should.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Ratio {
    above: f64,
    below: f64,
}

impl Ratio {
    fn saw(&mut self, above: f64, below: f64) {
        self.above = self.above * FADE + above;
        self.below = self.below * FADE + below;
    }

    fn get(self) -> Option<f64> {
        (self.below > 0.0).then(|| self.above / self.below)
    }
}

/// What a task asks for, as far as it is known before it runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) priority: Priority,
    /// Of its prompt.
    pub(crate) bytes: usize,
    /// Of its prompt, where the engine has counted them.
    pub(crate) tokens_in: Option<u64>,
    /// Its engine may keep it for the next turn.
    pub(crate) cached: bool,
    /// Generated at most, by its own limit or the context's.
    pub(crate) at_most: Option<u64>,
}

/// What a task that has finished was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Served {
    pub(crate) priority: Priority,
    /// Of its prompt.
    pub(crate) bytes: usize,
    pub(crate) size: Size,
    /// Its answer ended because it was allowed no more.
    pub(crate) cut: bool,
    /// From its slot to its first token.
    pub(crate) to_first: Duration,
    /// From its slot to its end.
    pub(crate) total: Duration,
}

/// What was measured of one pool.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Estimator {
    per_token_in: Ratio,
    per_token_out: Ratio,
    bytes_per_token: Ratio,
    /// By class: what batch asks for is not what people do.
    lengths: [Lengths; 2],
    correction: Correction,
    seen: u32,
    last: Option<Instant>,
}

impl Estimator {
    pub(crate) fn served(&mut self, served: &Served, now: Instant) {
        let Served { priority, bytes, size, cut, to_first, total } = *served;
        let (tokens_in, tokens_out) = (size.tokens_in as f64, size.tokens_out as f64);
        self.per_token_in.saw(to_first.as_secs_f64(), tokens_in.max(1.0));
        // The first token came with the prompt.
        let rest = total.saturating_sub(to_first);
        self.per_token_out.saw(rest.as_secs_f64(), (tokens_out - 1.0).max(0.0));
        if size.tokens_in > 0 {
            self.bytes_per_token.saw(bytes as f64, tokens_in);
        }
        self.lengths[class(priority)].saw(size.tokens_out, cut);
        self.seen = self.seen.saturating_add(1);
        self.last = Some(now);
    }

    /// How large a task will be.
    pub(crate) fn expect(&self, asked: &Asked) -> Size {
        let per_token = self.bytes_per_token.get().filter(|ratio| *ratio > 0.1).unwrap_or(BYTES_PER_TOKEN);
        let tokens_in = asked.tokens_in.unwrap_or((asked.bytes as f64 / per_token).ceil() as u64);
        let at_most = asked.at_most.map_or(f64::MAX, |tokens| tokens as f64);
        let lengths = &self.lengths[class(asked.priority)];
        let answer = lengths.left(0.0, at_most).unwrap_or(UNSEEN_ANSWER.min(at_most));
        Size { tokens_in, tokens_out: answer.round() as u64 }
    }

    /// How long tasks of this size in all hold a slot.
    pub(crate) fn service(&self, size: Size) -> Option<f64> {
        let per_out = self.per_token_out.get().or(self.per_token_in.get())?;
        let read = size.tokens_in as f64 * self.per_token_in.get()?;
        Some(read + size.tokens_out as f64 * per_out)
    }

    /// How much longer a task holds its slot that was expected to be of `size` and has held it for
    /// `held` seconds. What has taken longer than expected is one of the long ones.
    pub(crate) fn left(&self, asked: &Asked, size: Size, held: f64) -> Option<f64> {
        let read = size.tokens_in as f64 * self.per_token_in.get()?;
        let Some(per_out) = self.per_token_out.get().filter(|per_out| *per_out > 0.0) else {
            return Some((self.service(size)? - held).max(0.0));
        };
        let so_far = ((held - read) / per_out).max(0.0);
        let at_most = asked.at_most.map_or(f64::MAX, |tokens| tokens as f64);
        let tokens = self.lengths[class(asked.priority)].left(so_far, at_most).unwrap_or_default();
        Some((read - held).max(0.0) + tokens * per_out)
    }

    /// When a task starts whose queue of the moment says `start`.
    pub(crate) fn corrected(&self, caller: &CallerId, priority: Priority, start: Duration) -> Duration {
        start.mul_f64(self.correction.factor(caller, priority))
    }

    /// A task has started after `waited`, of which the queue of the moment said `start`.
    pub(crate) fn started(
        &mut self,
        caller: &CallerId,
        priority: Priority,
        start: Duration,
        waited: Duration,
    ) {
        self.correction.saw(caller, priority, start.as_secs_f64(), waited.as_secs_f64());
    }

    /// Whether enough is known, and newly enough, to refuse a task by it.
    pub(crate) fn may_refuse(&self, now: Instant) -> bool {
        self.seen >= ENOUGH && self.last.is_some_and(|last| now.saturating_duration_since(last) < FRESH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Estimator {
        let mut estimator = Estimator::default();
        let served = Served {
            priority: Priority::Interactive,
            bytes: 300,
            size: Size { tokens_in: 100, tokens_out: 51 },
            cut: false,
            to_first: Duration::from_secs(1),
            total: Duration::from_secs(6),
        };
        (0..5).for_each(|_| estimator.served(&served, Instant::now()));
        estimator
    }

    fn asked(at_most: Option<u64>) -> Asked {
        Asked { priority: Priority::Interactive, bytes: 600, tokens_in: None, cached: true, at_most }
    }

    /// ORCHD-ETA-001
    #[test]
    fn nothing_is_estimated_before_something_was_measured() {
        let estimator = Estimator::default();
        assert_eq!(estimator.service(Size { tokens_in: 1, tokens_out: 1 }), None);
        assert_eq!(estimator.left(&asked(None), Size::default(), 0.0), None);
        assert!(!estimator.may_refuse(Instant::now()));
    }

    #[test]
    fn prompt_and_answer_are_measured_apart() {
        let estimator = measured();
        let seconds = |tokens_in, tokens_out| estimator.service(Size { tokens_in, tokens_out }).unwrap();
        assert!((seconds(1_000, 0) - 10.0).abs() < 1e-6);
        assert!((seconds(0, 100) - 10.0).abs() < 1e-6);
        assert_eq!(estimator.expect(&asked(None)), Size { tokens_in: 200, tokens_out: 51 });
        assert_eq!(estimator.expect(&asked(Some(8))).tokens_out, 8);
    }

    #[test]
    fn what_is_left_of_a_task_shrinks_as_it_runs() {
        let estimator = measured();
        let size = Size { tokens_in: 100, tokens_out: 51 };
        let left = |held| estimator.left(&asked(None), size, held).unwrap();
        assert!(left(0.0) > left(3.0) && left(3.0) > left(5.9));
        assert!(left(60.0) < 0.1, "what was never seen is not guessed at");
    }

    #[test]
    fn an_old_measurement_refuses_nobody() {
        let estimator = measured();
        assert!(estimator.may_refuse(Instant::now()));
        assert!(!estimator.may_refuse(Instant::now() + FRESH));
    }
}
