//! A caller's waiting tasks with running sums, so that how many of them go before a certain round,
//! and how much work they are, is looked up and not added up.

use std::collections::VecDeque;

use super::Ahead;
use crate::size::Size;

/// The tasks of one caller, oldest first. Entering behind them and leaving before them costs the same
/// however many there are; in their middle, what lies on the shorter side.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Sums {
    /// What the running sums begin at.
    origin: Sum,
    marks: VecDeque<Mark>,
}

/// Work. Wraps: only differences mean anything, and those are of tasks that wait together.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sum {
    weight: u64,
    size: Size,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    seq: u64,
    /// The task's own and all before it.
    through: Sum,
}

impl Sum {
    pub(super) fn of(size: Size) -> Self {
        Self { weight: size.weight().unsigned_abs(), size }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        self.with(other, u64::wrapping_add)
    }

    fn minus(self, other: Self) -> Self {
        self.with(other, u64::wrapping_sub)
    }

    fn with(self, other: Self, op: fn(u64, u64) -> u64) -> Self {
        Self {
            weight: op(self.weight, other.weight),
            size: Size {
                tokens_in: op(self.size.tokens_in, other.size.tokens_in),
                tokens_out: op(self.size.tokens_out, other.size.tokens_out),
            },
        }
    }

    pub(super) fn weight(self) -> i64 {
        i64::try_from(self.weight).unwrap_or(i64::MAX)
    }

    pub(super) fn ahead(self, position: usize) -> Ahead {
        Ahead { position, total: self.size }
    }
}

impl Sums {
    pub(super) fn insert(&mut self, seq: u64, size: Size) {
        let at = self.index(seq);
        let (sum, before) = (Sum::of(size), self.before(at));
        if at < self.marks.len() / 2 {
            // Whatever comes before it begins earlier by as much.
            self.origin = self.origin.minus(sum);
            self.marks.range_mut(..at).for_each(|mark| mark.through = mark.through.minus(sum));
            self.marks.insert(at, Mark { seq, through: before });
        } else {
            self.marks.range_mut(at..).for_each(|mark| mark.through = mark.through.plus(sum));
            self.marks.insert(at, Mark { seq, through: before.plus(sum) });
        }
    }

    /// Takes out a task that is there.
    pub(super) fn remove(&mut self, seq: u64) {
        let at = self.index(seq);
        let before = self.before(at);
        let Some(mark) = self.marks.get(at).copied().filter(|mark| mark.seq == seq) else { return };
        let sum = mark.through.minus(before);
        self.marks.remove(at);
        if at < self.marks.len() / 2 {
            self.origin = self.origin.plus(sum);
            self.marks.range_mut(..at).for_each(|mark| mark.through = mark.through.plus(sum));
        } else {
            self.marks.range_mut(at..).for_each(|mark| mark.through = mark.through.minus(sum));
        }
    }

    /// How many are older than this one.
    pub(super) fn index(&self, seq: u64) -> usize {
        self.marks.partition_point(|mark| mark.seq < seq)
    }

    /// The first so many.
    pub(super) fn first(&self, count: usize) -> Sum {
        self.before(count).minus(self.origin)
    }

    /// The one at an index.
    pub(super) fn one(&self, at: usize) -> Sum {
        self.before(at + 1).minus(self.before(at))
    }

    /// How many fit, with the weight of each counted after its turn: the number of tasks before which
    /// at most `weight` was spent.
    pub(super) fn begun_within(&self, weight: i64) -> usize {
        let within = |mark: &Mark| mark.through.minus(self.origin).weight() <= weight;
        (1 + self.marks.partition_point(within)).min(self.marks.len())
    }

    pub(super) fn len(&self) -> usize {
        self.marks.len()
    }

    /// The running sum before the task at an index.
    fn before(&self, at: usize) -> Sum {
        at.checked_sub(1).and_then(|last| self.marks.get(last)).map_or(self.origin, |mark| mark.through)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_right_wherever_tasks_enter_and_leave() {
        let mut sums = Sums::default();
        let mut plain = std::collections::BTreeMap::new();
        let mut random = 1_u64;
        for step in 0..2_000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let seq = (random >> 33) % 40;
            let size = Size { tokens_in: step % 7, tokens_out: step % 11 };
            if plain.remove(&seq).is_some() {
                sums.remove(seq);
            } else {
                plain.insert(seq, size);
                sums.insert(seq, size);
            }
            assert_eq!(sums.len(), plain.len());
            let mut total = (0, Size::default());
            for (count, (seq, size)) in plain.iter().enumerate() {
                assert_eq!(sums.index(*seq), count);
                let first = sums.first(count);
                assert_eq!((first.weight(), first.size), total);
                total.0 += size.weight();
                total.1 += *size;
            }
            let all = sums.first(plain.len());
            assert_eq!((all.weight(), all.size), total);
        }
    }
}
