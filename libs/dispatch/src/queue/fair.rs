//! One class of a queue: its callers take turns by deficit round robin, weighted by tokens.
//!
//! Each round gives each waiting caller one token. Who has any left has a turn, and pays afterwards:
//! what its task weighs when that is taken, the difference when it has ended, because how long an
//! answer will be is only a guess before. Who owes waits for as many rounds as
//! it owes, and so does one that comes back before they are over. Rounds in which nobody has a turn
//! are skipped by computing each caller's next one, so that a turn costs the logarithm of the number
//! of callers, whatever the size of their tasks.

use std::collections::{BTreeMap, HashMap};

use super::Waiting;
use super::order::Walk;
use super::sums::Sums;
use crate::CallerId;
use crate::size::Size;

/// Callers whose debts are remembered while nothing of theirs waits.
pub(super) const DEBTORS: usize = 1_024;

/// The callers of one class and their tasks.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Fair<T> {
    flows: HashMap<CallerId, Flow<T>>,
    /// The waiting ones by the round of their next turn, and within a round as they joined.
    turns: BTreeMap<Turn, CallerId>,
    /// Those with nothing waiting that still owe, by when they do no more.
    debtors: BTreeMap<Turn, CallerId>,
    /// Whose a task is, oldest first.
    homes: BTreeMap<u64, CallerId>,
    round: u64,
    joined: u64,
    total: Size,
}

/// When a caller has its next turn: the round, then who joined first.
pub(super) type Turn = (u64, u64);

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Flow<T> {
    pub(super) joined: u64,
    pub(super) account: Account,
    pub(super) tasks: BTreeMap<u64, Waiting<T>>,
    /// Of the same tasks.
    pub(super) sums: Sums,
}

/// What a caller has been given and not spent; below zero what it owes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account {
    /// The round up to which it has been given.
    round: u64,
    credit: i64,
}

impl Account {
    /// The first round in which anything is left.
    pub(super) fn due(self) -> u64 {
        self.round + 1_i64.saturating_sub(self.credit).max(0).unsigned_abs()
    }

    /// Pays for a turn in round `now`, or in its next one if that is later; says in which. Rounds
    /// that passed while its task could not run for other reasons give nothing.
    pub(super) fn pay(&mut self, cost: i64, now: u64) -> u64 {
        let due = self.due();
        let rounds = i64::try_from(due - self.round).unwrap_or(i64::MAX);
        self.credit = self.credit.saturating_add(rounds).saturating_sub(cost);
        self.round = due.max(now);
        self.round
    }

    /// From which round on it is given more when its class is in round `now`, and what it has then:
    /// rounds that it was behind give nothing beyond the turn that they were waited for.
    pub(super) fn as_of(self, now: u64) -> (u64, i64) {
        let due = self.due();
        if due >= now {
            return (self.round, self.credit);
        }
        let rounds = i64::try_from(due - self.round).unwrap_or(i64::MAX);
        (now, self.credit.saturating_add(rounds))
    }
}

impl<T> Flow<T> {
    fn add(&mut self, seq: u64, waiting: Waiting<T>) {
        self.sums.insert(seq, waiting.size);
        self.tasks.insert(seq, waiting);
    }

    fn take_out(&mut self, seq: u64) -> Option<Waiting<T>> {
        let waiting = self.tasks.remove(&seq)?;
        self.sums.remove(seq);
        Some(waiting)
    }

    fn turn(&self) -> Turn {
        (self.account.due(), self.joined)
    }
}

impl<T> Fair<T> {
    pub(super) fn new() -> Self {
        Self {
            flows: HashMap::new(),
            turns: BTreeMap::new(),
            debtors: BTreeMap::new(),
            homes: BTreeMap::new(),
            round: 0,
            joined: 0,
            total: Size::default(),
        }
    }

    /// Adds a task behind its caller's older ones.
    pub(super) fn insert(&mut self, seq: u64, waiting: Waiting<T>) {
        self.insert_with(seq, waiting, 0);
    }

    /// Takes a task back that has been paid for and did not run.
    pub(super) fn put_back(&mut self, seq: u64, waiting: Waiting<T>) {
        let refund = waiting.size.weight();
        self.insert_with(seq, waiting, refund);
    }

    fn insert_with(&mut self, seq: u64, waiting: Waiting<T>, refund: i64) {
        self.total += waiting.size;
        self.homes.insert(seq, waiting.caller.clone());
        let caller = waiting.caller.clone();
        if !self.flows.contains_key(&caller) {
            self.joined += 1;
            let account = Account { round: self.round, credit: 0 };
            let (tasks, sums) = (BTreeMap::new(), Sums::default());
            self.flows.insert(caller.clone(), Flow { joined: self.joined, account, tasks, sums });
        }
        self.change(&caller, |flow| {
            flow.account.credit = flow.account.credit.saturating_add(refund);
            flow.add(seq, waiting);
        });
    }

    pub(super) fn remove(&mut self, seq: u64) -> Option<Waiting<T>> {
        let caller = self.homes.remove(&seq)?;
        let waiting = self.change(&caller, |flow| flow.take_out(seq))??;
        self.total -= waiting.size;
        self.forgive();
        Some(waiting)
    }

    /// Takes a task for a slot: its caller pays for it.
    pub(super) fn take(&mut self, seq: u64) -> Option<Waiting<T>> {
        let caller = self.homes.remove(&seq)?;
        let now = self.round;
        let (waiting, round) = self.change(&caller, |flow| {
            let waiting = flow.take_out(seq)?;
            let round = flow.account.pay(waiting.size.weight(), now);
            Some((waiting, round))
        })??;
        self.total -= waiting.size;
        self.round = round;
        self.forgive();
        Some(waiting)
    }

    /// A task was smaller or larger than it was charged.
    pub(super) fn settle(&mut self, caller: &CallerId, charged: Size, real: Size) {
        let back = charged.weight().saturating_sub(real.weight());
        self.change(caller, |flow| flow.account.credit = flow.account.credit.saturating_add(back));
    }

    /// Every change of a caller goes through here: its seat among those that wait, or that owe,
    /// follows it. One that does neither is forgotten.
    fn change<R>(&mut self, caller: &CallerId, edit: impl FnOnce(&mut Flow<T>) -> R) -> Option<R> {
        let flow = self.flows.get_mut(caller)?;
        let before = flow.turn();
        let waited = !flow.tasks.is_empty();
        let result = edit(flow);
        let (after, waits) = (flow.turn(), !flow.tasks.is_empty());
        if before != after || waited != waits {
            if waited { &mut self.turns } else { &mut self.debtors }.remove(&before);
            if waits { &mut self.turns } else { &mut self.debtors }.insert(after, caller.clone());
        }
        Some(result)
    }

    /// Forgets callers with nothing waiting that owe nothing any more. Where nobody waits nobody is
    /// owed; of too many those that owe least are let off.
    fn forgive(&mut self) {
        while let Some(((due, _), _)) = self.debtors.first_key_value()
            && (*due <= self.round || self.turns.is_empty() || self.debtors.len() > DEBTORS)
        {
            let caller = self.debtors.pop_first().map(|(_, caller)| caller);
            caller.and_then(|caller| self.flows.remove(&caller));
        }
    }

    /// The task whose turn it is.
    pub(super) fn first(&self) -> Option<(u64, &Waiting<T>)> {
        self.flows().next()?.tasks.iter().next().map(|(seq, waiting)| (*seq, waiting))
    }

    /// The first task that is taken when they are offered caller by caller in turn.
    pub(super) fn find<R>(&self, mut offer: impl FnMut(&T) -> Option<R>) -> Option<(u64, R)> {
        let mut tasks = self.flows().flat_map(|flow| flow.tasks.iter());
        tasks.find_map(|(seq, waiting)| Some((*seq, offer(&waiting.item)?)))
    }

    /// The tasks in the order in which they would go if nothing else came.
    pub(super) fn walk(&self) -> Walk<'_, T> {
        Walk::new(self.flows(), self.round)
    }

    /// The oldest task of the caller with the most; of two with as many, the older one.
    pub(super) fn oldest_of_the_largest(&self) -> Option<u64> {
        let oldest = |flow: &Flow<T>| flow.tasks.first_key_value().map(|(seq, _)| *seq);
        let waiting = self.flows.values().filter(|flow| !flow.tasks.is_empty());
        let largest = waiting.max_by_key(|flow| (flow.tasks.len(), std::cmp::Reverse(oldest(flow))));
        largest.and_then(oldest)
    }

    pub(super) fn oldest(&self) -> Option<&Waiting<T>> {
        let (seq, caller) = self.homes.first_key_value()?;
        self.flows.get(caller)?.tasks.get(seq)
    }

    pub(super) fn holds(&self, seq: u64) -> bool {
        self.homes.contains_key(&seq)
    }

    pub(super) fn held_by(&self, caller: &CallerId) -> usize {
        self.flows.get(caller).map_or(0, |flow| flow.tasks.len())
    }

    pub(super) fn len(&self) -> usize {
        self.homes.len()
    }

    pub(super) fn total(&self) -> Size {
        self.total
    }

    /// The callers with tasks, in no order.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Flow<T>> {
        self.flows.values().filter(|flow| !flow.tasks.is_empty())
    }

    pub(super) fn callers(&self) -> usize {
        self.turns.len()
    }

    /// Whose a task is.
    pub(super) fn flow_of(&self, seq: u64) -> Option<&Flow<T>> {
        self.flows.get(self.homes.get(&seq)?)
    }

    pub(super) fn round(&self) -> u64 {
        self.round
    }

    fn flows(&self) -> impl Iterator<Item = &Flow<T>> {
        self.turns.values().filter_map(|caller| self.flows.get(caller))
    }
}
