//! Interactive before batch, but for the share that is batch's own.

use wire::task::Priority;

/// Batch's reserved share of the work, in tokens, is one in so many. Of the slots' time it is a
/// little less where prompts are long, and must be at least a tenth.
const BATCH_ONE_IN: i64 = 6;

/// What batch is owed while both classes wait: for five tokens of interactive work, one of batch.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Share {
    /// In fifths of a token, so that nothing is lost in rounding.
    credit: i64,
}

const PRICE: i64 = BATCH_ONE_IN - 1;

impl Share {
    /// Which class goes next, by the weights of their first tasks. A batch task goes when its class
    /// has been owed all of it; one that has grown old, as soon as anything is owed.
    pub(super) fn next(self, interactive: Option<i64>, batch: Option<i64>, aged: bool) -> Option<Priority> {
        match (interactive, batch) {
            (None, None) => None,
            (Some(_), None) => Some(Priority::Interactive),
            (None, Some(_)) => Some(Priority::Batch),
            (Some(_), Some(cost))
                if self.credit >= cost.saturating_mul(PRICE) || (aged && self.credit > 0) =>
            {
                Some(Priority::Batch)
            }
            (Some(_), Some(_)) => Some(Priority::Interactive),
        }
    }

    /// How much batch work goes before an interactive task that has so much of its own class before it.
    pub(super) fn paid_after(self, interactive: i64) -> i64 {
        self.credit.saturating_add(interactive).div_euclid(PRICE)
    }

    /// How much interactive work goes before a batch task that is, with all of its own class before
    /// it, so much.
    pub(super) fn still_wanted(self, batch: i64) -> i64 {
        batch.saturating_mul(PRICE).saturating_sub(self.credit)
    }

    /// A task of this class was taken while these waited, itself included.
    pub(super) fn took(&mut self, class: Priority, interactive: Option<i64>, batch: Option<i64>) {
        self.credit = match (class, interactive, batch) {
            // Bounded: a batch task that cannot run for other reasons saves nothing up.
            (Priority::Interactive, Some(cost), Some(next)) => {
                let most = next.saturating_mul(PRICE).saturating_add(cost);
                self.credit.saturating_add(cost).min(most)
            }
            (Priority::Batch, Some(_), Some(cost)) => self.credit.saturating_sub(cost.saturating_mul(PRICE)),
            // What nobody waited for is owed to nobody, and what nobody else wanted is free.
            (Priority::Interactive, _, None) => 0,
            _ => self.credit,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(interactive: i64, batch: i64, aged: bool, starts: usize) -> Vec<Priority> {
        let mut share = Share::default();
        let mut next = || {
            let class = share.next(Some(interactive), Some(batch), aged).unwrap();
            share.took(class, Some(interactive), Some(batch));
            class
        };
        (0..starts).map(|_| next()).collect()
    }

    fn batch_work(interactive: i64, batch: i64, aged: bool) -> f64 {
        let taken = taken(interactive, batch, aged, 100_000);
        let starts = taken.iter().filter(|class| **class == Priority::Batch).count() as f64;
        let batch = starts * batch as f64;
        batch / (batch + (100_000.0 - starts) * interactive as f64)
    }

    /// ORCHD-FAIR-003
    #[test]
    fn batch_gets_its_share_of_the_work_whatever_the_sizes_of_tasks() {
        for (interactive, batch) in [(700, 700), (700, 7), (100, 50_000), (7_000, 100)] {
            for aged in [false, true] {
                let share = batch_work(interactive, batch, aged);
                assert!((0.16..0.17).contains(&share), "{interactive} {batch} {aged}: {share}");
            }
        }
    }

    /// ORCHD-FAIR-003
    #[test]
    fn an_aged_batch_task_goes_as_soon_as_anything_is_owed() {
        let first =
            |aged| taken(70, 7_000, aged, 2_000).iter().position(|class| *class == Priority::Batch).unwrap();
        assert_eq!((first(false), first(true)), (500, 1));
    }
}
