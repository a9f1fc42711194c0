//! Where a waiting task stands, without walking the queue: how many tasks go before it and how much
//! work they are, in a time that grows with the callers and only with the logarithm of their tasks.
//!
//! Turns of a caller do not depend on the others': each of its tasks is due as many rounds after its
//! first as what lies between weighs. So what goes before a certain turn is a look-up per caller.
//! Between the classes, batch goes as soon as interactive work has paid for it, so what one class has
//! done says how far the other has come. It is the order that [`super::order`] walks, and a test holds
//! the two against each other.

use super::Ahead;
use super::classes::Share;
use super::fair::{Account, Fair, Flow, Turn};
use super::sums::Sum;

/// Tasks are gone through one by one when so few are left in question, and as many as there are
/// callers.
const FEW: usize = 16;

/// So many tasks, and what they are.
type Count = (usize, Sum);

/// When a caller's tasks are due.
#[derive(Clone, Copy)]
struct Dues {
    /// The first one's round.
    first: u64,
    /// The others' rounds are counted from here, with this left.
    round: u64,
    credit: i64,
}

impl Dues {
    /// Of a caller in a class that is in round `now`. Who is behind that has its turn at once, and
    /// what it was given meanwhile is kept, but not the rounds.
    fn of(account: Account, now: u64) -> Self {
        let first = account.due();
        let (round, credit) = account.as_of(now);
        Self { first, round, credit }
    }

    /// The round of the task before which so much was spent, when that is not the first.
    fn after(self, spent: i64) -> u64 {
        let wants = 1_i64.saturating_sub(self.credit).saturating_add(spent);
        self.round.saturating_add(wants.max(0).unsigned_abs())
    }
}

impl<T> Flow<T> {
    fn dues(&self, now: u64) -> Dues {
        Dues::of(self.account, now)
    }

    fn due(&self, dues: Dues, index: usize) -> u64 {
        if index == 0 { dues.first } else { dues.after(self.sums.first(index).weight()) }
    }

    /// Its tasks that are due before a round.
    fn due_before(&self, round: u64, now: u64) -> usize {
        let dues = self.dues(now);
        if self.sums.len() == 0 || round <= dues.first {
            return 0;
        }
        let Some(rounds) = (round - 1).checked_sub(dues.round) else { return 1 };
        let rounds = i64::try_from(rounds).unwrap_or(i64::MAX);
        self.sums.begun_within(rounds.saturating_sub(1).saturating_add(dues.credit))
    }
}

impl<T> Fair<T> {
    /// What goes before a task of this class, of its class.
    fn before(&self, seq: u64) -> Option<Count> {
        let own = self.flow_of(seq)?;
        let index = own.sums.index(seq);
        let due = own.due(own.dues(self.round()), index);
        let mut before = (index, own.sums.first(index));
        for other in self.waiting().filter(|other| other.joined != own.joined) {
            let until = due.saturating_add(u64::from(other.joined < own.joined));
            let count = other.due_before(until, self.round());
            before = (before.0 + count, before.1.plus(other.sums.first(count)));
        }
        Some(before)
    }

    fn due_before(&self, round: u64) -> Count {
        self.waiting().fold((0, Sum::default()), |(all, sum), flow| {
            let count = flow.due_before(round, self.round());
            (all + count, sum.plus(flow.sums.first(count)))
        })
    }

    /// The longest beginning of this class's order that weighs at most `weight`, and what it is with
    /// one task more, where there is one.
    fn within(&self, weight: i64) -> (Count, Option<Count>) {
        let last = self.waiting().map(|flow| flow.due(flow.dues(self.round()), flow.sums.len() - 1)).max();
        let Some(last) = last else { return ((0, Sum::default()), None) };
        let mut high = last.saturating_add(1);
        let all = self.due_before(high);
        if all.1.weight() <= weight {
            return (all, None);
        }
        // What is due before `low` is within, what is due before `high` is not.
        let mut low = self.waiting().map(|flow| flow.dues(self.round()).first).min().unwrap_or_default();
        let (mut within, mut beyond) = ((0, Sum::default()), all.0);
        let few = FEW + self.callers();
        while beyond - within.0 > few && high - low > 1 {
            let middle = low + (high - low) / 2;
            let due = self.due_before(middle);
            if due.1.weight() <= weight {
                (low, within) = (middle, due);
            } else {
                (high, beyond) = (middle, due.0);
            }
        }
        for sum in self.between(low, high) {
            let next = (within.0 + 1, within.1.plus(sum));
            if next.1.weight() > weight {
                return (within, Some(next));
            }
            within = next;
        }
        (within, None)
    }

    /// The tasks that are due from `low` on and before `high`, in order.
    fn between(&self, low: u64, high: u64) -> Vec<Sum> {
        let mut found: Vec<(Turn, usize, Sum)> = Vec::new();
        for flow in self.waiting() {
            let dues = flow.dues(self.round());
            for index in flow.due_before(low, self.round())..flow.due_before(high, self.round()) {
                let turn = (flow.due(dues, index), flow.joined);
                found.push((turn, index, flow.sums.one(index)));
            }
        }
        found.sort_unstable_by_key(|(turn, index, _)| (*turn, *index));
        found.into_iter().map(|(_, _, sum)| sum).collect()
    }
}

/// What goes before an interactive task, ageing aside and if nothing else came.
pub(super) fn before_interactive<T>(
    interactive: &Fair<T>,
    batch: &Fair<T>,
    share: Share,
    seq: u64,
) -> Option<Ahead> {
    let (count, sum) = interactive.before(seq)?;
    let (others, work) = batch.within(share.paid_after(sum.weight())).0;
    Some(sum.plus(work).ahead(count + others))
}

/// What goes before a batch task, likewise.
pub(super) fn before_batch<T>(
    interactive: &Fair<T>,
    batch: &Fair<T>,
    share: Share,
    seq: u64,
) -> Option<Ahead> {
    let (count, sum) = batch.before(seq)?;
    let own = batch.flow_of(seq)?;
    let with_it = sum.plus(own.sums.one(own.sums.index(seq)));
    // As little as pays for it and all of its class before it, or all there is.
    let wanted = share.still_wanted(with_it.weight());
    let (others, work) = if wanted <= 0 {
        (0, Sum::default())
    } else {
        let (less, enough) = interactive.within(wanted - 1);
        enough.unwrap_or(less)
    };
    Some(sum.plus(work).ahead(count + others))
}
