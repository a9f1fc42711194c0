//! In which order the waiting tasks would go if nothing else came: the same steps as taking them,
//! on a copy of the accounts. What a position and an estimate are computed from.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, btree_map};

use wire::task::Priority;

use super::Waiting;
use super::classes::Share;
use super::fair::{Account, Fair, Flow, Turn};

/// The tasks of one class in order.
pub(super) struct Walk<'a, T> {
    turns: BinaryHeap<Reverse<(Turn, usize)>>,
    flows: Vec<Cursor<'a, T>>,
    round: u64,
}

struct Cursor<'a, T> {
    joined: u64,
    account: Account,
    rest: std::iter::Peekable<btree_map::Iter<'a, u64, Waiting<T>>>,
}

impl<T> Cursor<'_, T> {
    fn turn(&mut self) -> Option<Turn> {
        self.rest.peek()?;
        Some((self.account.due(), self.joined))
    }
}

impl<'a, T> Walk<'a, T> {
    pub(super) fn new(flows: impl Iterator<Item = &'a Flow<T>>, round: u64) -> Self {
        let cursor = |flow: &'a Flow<T>| Cursor {
            joined: flow.joined,
            account: flow.account,
            rest: flow.tasks.iter().peekable(),
        };
        let mut flows: Vec<_> = flows.map(cursor).collect();
        let turns = flows.iter_mut().enumerate().filter_map(|(i, flow)| Some(Reverse((flow.turn()?, i))));
        Self { turns: turns.collect(), flows, round }
    }

    fn peek(&mut self) -> Option<&'a Waiting<T>> {
        let Reverse((_, i)) = self.turns.peek()?;
        self.flows.get_mut(*i)?.rest.peek().map(|(_, waiting)| *waiting)
    }
}

impl<'a, T> Iterator for Walk<'a, T> {
    type Item = (u64, &'a Waiting<T>);

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((_, i)) = self.turns.pop()?;
        let flow = self.flows.get_mut(i)?;
        let (seq, waiting) = flow.rest.next()?;
        self.round = flow.account.pay(waiting.size.weight(), self.round);
        if let Some(turn) = flow.turn() {
            self.turns.push(Reverse((turn, i)));
        }
        Some((*seq, waiting))
    }
}

/// The tasks of both classes in order, ageing aside.
pub(super) struct Order<'a, T> {
    interactive: Walk<'a, T>,
    batch: Walk<'a, T>,
    share: Share,
}

impl<'a, T> Order<'a, T> {
    pub(super) fn new(interactive: &'a Fair<T>, batch: &'a Fair<T>, share: Share) -> Self {
        Self { interactive: interactive.walk(), batch: batch.walk(), share }
    }
}

impl<'a, T> Iterator for Order<'a, T> {
    type Item = (u64, &'a Waiting<T>);

    fn next(&mut self) -> Option<Self::Item> {
        let cost = |waiting: Option<&Waiting<T>>| waiting.map(|waiting| waiting.size.weight());
        let (interactive, batch) = (cost(self.interactive.peek()), cost(self.batch.peek()));
        let class = self.share.next(interactive, batch, false)?;
        self.share.took(class, interactive, batch);
        match class {
            Priority::Interactive => self.interactive.next(),
            Priority::Batch => self.batch.next(),
        }
    }
}
