//! The line of those that were refused for want of memory: of those for whom there is room, who has
//! waited longest is given it. Nobody waits for somebody else's larger need: what one cannot use yet, the next
//! one may. A place in the line is a value; it is given up when it is dropped.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use wire::PreparedEngine;
use wire::config::PoolConfig;

use super::{Claim, Ledger, NoRoom, Placement};
use crate::cards::Cards;

/// Between two looks for memory that nobody of ours has given back.
const ROOM_LOOK: Duration = Duration::from_secs(5);

/// Who waits, in the order of the first refusal.
#[derive(Debug, Default)]
pub(super) struct Line {
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    pool: PoolConfig,
    prepared: PreparedEngine,
    granted: Option<(Placement, Claim)>,
}

/// A place in the line.
#[derive(Debug)]
pub(crate) struct Ticket {
    ledger: Ledger,
    number: u64,
}

impl Ledger {
    /// As [`admit`](Self::admit). Who is refused gets a place in the line, or keeps the one that it has; what
    /// it had been given there meanwhile is taken. `had` is what an engine that is started again has kept, and
    /// is given back: it comes before the line.
    pub(crate) async fn admit_or_wait(
        &self,
        (pool, prepared): (&PoolConfig, &PreparedEngine),
        cards: &Cards,
        oversubscribe: bool,
        had: Option<Claim>,
        ticket: &mut Option<Ticket>,
    ) -> Result<(Placement, Claim), NoRoom> {
        let _turn = self.0.turn.lock().await;
        let on_cards = prepared.device_mask.is_some();
        if had.is_some() {
            drop(had);
            let mut moment = self.moment(cards, on_cards).await;
            if let Ok(admitted) = self.decide(pool, prepared, &mut moment, oversubscribe) {
                *ticket = None;
                return Ok(admitted);
            }
        }
        if let Some(ticket) = ticket {
            ticket.is_for(pool, prepared);
        }
        self.serve_line(cards).await;
        let granted = ticket.as_ref().and_then(Ticket::take);
        let admitted = match granted {
            Some(granted) => Ok(granted),
            None => {
                let mut moment = self.moment(cards, on_cards).await;
                self.decide(pool, prepared, &mut moment, oversubscribe)
            }
        };
        match &admitted {
            Ok(_) => *ticket = None,
            Err(_) if ticket.is_none() => *ticket = Some(self.queue(pool, prepared)),
            Err(_) => {}
        }
        admitted
    }

    /// Gives what is free to those that wait for it, whoever has waited longest first. Whoever calls it has
    /// the turn.
    pub(super) async fn serve_line(&self, cards: &Cards) {
        let waiting: Vec<(u64, PoolConfig, PreparedEngine)> = {
            let line = self.line();
            let not_yet = line.waiting.iter().filter(|(_, waiting)| waiting.granted.is_none());
            not_yet.map(|(number, w)| (*number, w.pool.clone(), w.prepared.clone())).collect()
        };
        if waiting.is_empty() {
            return;
        }
        let on_cards = waiting.iter().any(|(_, _, prepared)| prepared.device_mask.is_some());
        let mut moment = self.moment(cards, on_cards).await;
        for (number, pool, prepared) in waiting {
            let Ok(granted) = self.decide(&pool, &prepared, &mut moment, false) else { continue };
            let mut unused = Some(granted);
            if let Some(waiting) = self.line().waiting.get_mut(&number) {
                waiting.granted = unused.take();
            }
            // Who went meanwhile gives it back here, without the line.
            drop(unused);
        }
    }

    fn queue(&self, pool: &PoolConfig, prepared: &PreparedEngine) -> Ticket {
        let mut line = self.line();
        line.next += 1;
        let number = line.next;
        let waiting = Waiting { pool: pool.clone(), prepared: prepared.clone(), granted: None };
        line.waiting.insert(number, waiting);
        Ticket { ledger: self.clone(), number }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Resolves when it has been given room, which is its own until it asks for it or gives up its place.
    /// Looked for when one of our engines gives some back or has loaded, and now and then because others use
    /// the machine, too.
    pub(crate) async fn granted(&self, cards: &Cards) {
        let mut changed = self.ledger.0.changed.subscribe();
        loop {
            {
                let _turn = self.ledger.0.turn.lock().await;
                self.ledger.serve_line(cards).await;
            }
            let line = self.ledger.line().waiting.get(&self.number).is_some_and(|w| w.granted.is_some());
            if line {
                return;
            }
            // The ledger cannot go away while we hold it.
            let _changed_or_late = tokio::time::timeout(ROOM_LOOK, changed.changed()).await;
        }
    }

    /// What was given for something else is given back.
    fn is_for(&self, pool: &PoolConfig, prepared: &PreparedEngine) {
        let outdated = self.ledger.line().waiting.get_mut(&self.number).and_then(|waiting| {
            let same = waiting.pool == *pool && waiting.prepared == *prepared;
            (waiting.pool, waiting.prepared) = (pool.clone(), prepared.clone());
            if same { None } else { waiting.granted.take() }
        });
        drop(outdated);
    }

    fn take(&self) -> Option<(Placement, Claim)> {
        self.ledger.line().waiting.get_mut(&self.number)?.granted.take()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let gone = self.ledger.line().waiting.remove(&self.number);
        // What it was given goes back without the line.
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use devices::Inventory;
    use wire::{Device, ReplicaId};

    use super::*;

    const GIB: u64 = 1 << 30;

    /// One card of 24 GiB that never says that any of it is used: what is promised is all that counts.
    fn cards() -> Cards {
        let card: Device = serde_json::from_value(serde_json::json!({
            "index": 0, "uuid": "GPU-0", "name": "Card", "vram_total_bytes": 24 * GIB,
            "vram_free_bytes": 24 * GIB, "compute_capability": "8.6",
        }))
        .unwrap();
        Cards::new(Arc::new(move || Inventory::Cards(vec![card.clone()])))
    }

    fn prepared(replica: u32, weights: u64) -> PreparedEngine {
        serde_json::from_value(serde_json::json!({
            "binary_path": "/b", "flags": [], "port": 0, "host": "127.0.0.1", "model_path": "/m",
            "engine_version": "v", "pool_id": "haiku", "replica_id": ReplicaId::nth(replica),
            "engine_digest": "", "model_digest": "", "ctx": 1, "slots": 1, "env": {}, "device_mask": "GPU-0",
            "memory": {"weights_bytes": weights * GIB, "kv_bytes_per_slot": 0, "kv_bytes": 0, "compute_bytes": 0},
        }))
        .unwrap()
    }

    struct House {
        ledger: Ledger,
        cards: Cards,
        pool: PoolConfig,
    }

    impl House {
        fn new() -> Self {
            Self { ledger: Ledger::new(|| None), cards: cards(), pool: PoolConfig::haiku() }
        }

        async fn ask(
            &self,
            engine: &PreparedEngine,
            had: Option<Claim>,
            ticket: &mut Option<Ticket>,
        ) -> Option<Claim> {
            let asked = (&self.pool, engine);
            let admitted = self.ledger.admit_or_wait(asked, &self.cards, false, had, ticket).await;
            admitted.ok().map(|(_, claim)| claim)
        }
    }

    /// POOLD-MEMORY-002, POOLD-MEMORY-003
    #[tokio::test]
    async fn of_those_that_wait_who_has_waited_longest_goes_first_and_before_whoever_comes_now() {
        let house = House::new();
        let [first, second, third, small] = [(0, 16), (1, 16), (2, 16), (3, 4)].map(|(n, g)| prepared(n, g));
        let held = house.ask(&first, None, &mut None).await.expect("there is room");
        let (mut of_second, mut of_third) = (None, None);
        assert!(house.ask(&second, None, &mut of_second).await.is_none());
        assert!(house.ask(&third, None, &mut of_third).await.is_none());
        let beside = house.ask(&small, None, &mut None).await;
        assert!(beside.is_some(), "what those that wait cannot use is not kept from others");
        drop(held);
        // Whoever looks first, whoever asks now.
        assert!(
            house.ask(&first, None, &mut None).await.is_none(),
            "the one before comes after those that wait"
        );
        {
            let (second, third) = (of_second.as_ref().unwrap(), of_third.as_ref().unwrap());
            tokio::select! {
                biased;
                () = third.granted(&house.cards) => panic!("it asked later"),
                () = second.granted(&house.cards) => {}
            }
        }
        assert!(house.ask(&third, None, &mut of_third).await.is_none(), "it asks again, and is still later");
        let held = house.ask(&second, None, &mut of_second).await.expect("it was given room");
        assert!(of_second.is_none(), "and waits no more");
        drop(held);
        of_third.as_ref().unwrap().granted(&house.cards).await;
        // It gives up its place, and with it what it was given.
        drop(of_third);
        assert!(house.ask(&first, None, &mut None).await.is_some());
    }

    /// POOLD-MEMORY-006
    #[tokio::test]
    async fn an_engine_that_is_started_again_has_its_place_before_those_that_wait() {
        let house = House::new();
        let [first, second] = [0, 1].map(|n| prepared(n, 16));
        let held = house.ask(&first, None, &mut None).await.expect("there is room");
        held.loaded(1);
        let mut of_second = None;
        // The card of this test never shows what is used, so that a loaded engine needs nothing of it.
        let other = house.ask(&second, None, &mut of_second).await.expect("as far as the card says");
        drop(other);
        held.lost();
        assert!(house.ask(&second, None, &mut of_second).await.is_none(), "it is promised again");
        let again = house.ask(&first, Some(held), &mut None).await;
        assert!(again.is_some() && of_second.as_ref().unwrap().take().is_none());
        drop(again);
        of_second.as_ref().unwrap().granted(&house.cards).await;
    }
}
