//! Memory is given out before an engine is started, first come, first served: what it is estimated at is
//! held against what is free, without what is promised to engines that still load. Once one has loaded,
//! what the card (or the kernel) says itself takes the place of the estimate: of what that engine has, and
//! on a card also of what the next engine like it will need. A claim is a value; it is given back when it
//! is dropped.
//!
//! Decides by [`plan`]; knows no process but by its number.

mod line;
mod measured;
mod plan;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devices::{HostMemory, ProcessMemory};
use tokio::sync::watch;
use wire::config::PoolConfig;
use wire::{Device, DeviceUser, PreparedEngine, ReplicaKey};

use crate::AvailableMemory;
use crate::cards::Cards;

pub(crate) use line::Ticket;
pub(crate) use plan::{NoRoom, Placement};

use line::Line;

use measured::{Kind, Measured, on_card};
use plan::{Place, Room, plan, room_of};

/// Who has what. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Ledger(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    memory: AvailableMemory,
    claims: Mutex<Claims>,
    /// Whose turn it is to be given some; waited for in the order of asking.
    turn: tokio::sync::Mutex<()>,
    /// Those that were refused and wait for room.
    line: Mutex<Line>,
    /// Counts what was given back or turned out to be less.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Claims {
    next: u64,
    by_number: BTreeMap<u64, Entry>,
    measured: Measured,
}

#[derive(Debug, Clone)]
struct Entry {
    key: ReplicaKey,
    bytes: Vec<(Place, u64)>,
    /// The file that its weights are mapped from; `None` where they are not mapped.
    mapped: Option<PathBuf>,
    kind: Kind,
    /// Once it is started.
    pid: Option<u32>,
    /// What it uses is not free any more.
    loaded: bool,
}

impl Entry {
    fn loaded(&self) -> Option<u32> {
        self.pid.filter(|_| self.loaded)
    }

    /// What is expected, or promised, of a place.
    fn of(&self, place: &Place) -> Option<u64> {
        self.bytes.iter().find(|(p, _)| p == place).map(|(_, bytes)| *bytes)
    }
}

/// What was free, and who had what, when it was looked.
struct Moment {
    claims: Vec<Entry>,
    cards: Vec<Device>,
}

/// Memory that an engine has, or is promised. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Claim {
    ledger: Ledger,
    number: u64,
}

impl Ledger {
    pub(crate) fn new(memory: AvailableMemory) -> Self {
        let (claims, line, changed) = (Mutex::default(), Mutex::default(), watch::Sender::default());
        Self(Arc::new(Inner { memory, claims, turn: tokio::sync::Mutex::default(), line, changed }))
    }

    /// Room for one more engine of a pool, or the sum that shows that there is none. `oversubscribe`: it is
    /// given all the same. Who waits in the line is served before.
    pub(crate) async fn admit(
        &self,
        pool: &PoolConfig,
        prepared: &PreparedEngine,
        cards: &Cards,
        oversubscribe: bool,
    ) -> Result<(Placement, Claim), NoRoom> {
        let _turn = self.0.turn.lock().await;
        self.serve_line(cards).await;
        let mut moment = self.moment(cards, prepared.device_mask.is_some()).await;
        self.decide(pool, prepared, &mut moment, oversubscribe)
    }

    /// What is free and who has what. The claims go first: what has loaded since is counted twice rather
    /// than not at all.
    async fn moment(&self, cards: &Cards, on_cards: bool) -> Moment {
        let mut claims: Vec<Entry> = self.lock().by_number.values().cloned().collect();
        let cards = if on_cards { cards.fresh().await.cards().to_vec() } else { Vec::new() };
        self.measure(&claims, &cards);
        // After the look: whoever is gone by now may be missing in it, and nobody takes its place before it is
        // known what becomes of it.
        for entry in &mut claims {
            if entry.loaded().is_some_and(|pid| ProcessMemory::of(pid).total_bytes() == 0) {
                (entry.pid, entry.loaded) = (None, false);
            }
        }
        Moment { claims, cards }
    }

    fn decide(
        &self,
        pool: &PoolConfig,
        prepared: &PreparedEngine,
        moment: &mut Moment,
        oversubscribe: bool,
    ) -> Result<(Placement, Claim), NoRoom> {
        let kind = Kind::of(prepared);
        let claims = &moment.claims;
        let (rooms, measured): (Vec<Room>, _) = match &prepared.device_mask {
            Some(_) => {
                let rooms = moment.cards.iter().map(|card| card_room(card, claims)).collect();
                (rooms, self.lock().measured.of(&kind))
            }
            None => (host_room(self.0.memory, prepared, claims).into_iter().collect(), None),
        };
        let placement = plan(pool, prepared, measured, &rooms, oversubscribe)?;
        let entry = Entry {
            key: key_of(prepared),
            bytes: placement.bytes.clone(),
            mapped: mapped(prepared),
            kind,
            pid: None,
            loaded: false,
        };
        moment.claims.push(entry.clone());
        Ok((placement, self.enter(entry)))
    }

    /// The claim of an engine that was there before this manager: what it uses is not free already.
    pub(crate) fn adopted(&self, prepared: &PreparedEngine, mask: Option<&str>, pid: u32) -> Claim {
        let total = prepared.memory.map_or(0, |estimate| estimate.total_bytes());
        let cards: Vec<&str> = mask.map(|mask| mask.split(',').collect()).unwrap_or_default();
        let each = total / u64::try_from(cards.len().max(1)).unwrap_or(1);
        let bytes = match cards.is_empty() {
            true => vec![(Place::Host, total)],
            false => cards.iter().map(|uuid| (Place::Card((*uuid).to_owned()), each)).collect(),
        };
        let (key, mapped, kind) = (key_of(prepared), mapped(prepared), Kind::of(prepared));
        self.enter(Entry { key, bytes, mapped, kind, pid: Some(pid), loaded: true })
    }

    /// Looks at what the engines that have loaded use of the cards, for those that come after them.
    pub(crate) async fn look(&self, cards: &Cards) {
        let claims: Vec<Entry> = self.lock().by_number.values().cloned().collect();
        self.measure(&claims, cards.fresh().await.cards());
    }

    /// Cards with the names of the engines that use them, and with those that are promised some.
    pub(crate) fn named(&self, cards: &[Device]) -> Vec<Device> {
        let claims: Vec<Entry> = self.lock().by_number.values().cloned().collect();
        self.measure(&claims, cards);
        cards.iter().map(|card| named(card.clone(), &claims)).collect()
    }

    fn measure(&self, claims: &[Entry], cards: &[Device]) {
        let measured = &mut self.lock().measured;
        for (entry, pid) in claims.iter().filter_map(|entry| Some((entry, entry.loaded()?))) {
            let on: Vec<u64> = cards.iter().filter_map(|card| on_card(card, pid)).collect();
            measured.add(&entry.kind, &on);
        }
    }

    fn enter(&self, entry: Entry) -> Claim {
        let mut claims = self.lock();
        claims.next += 1;
        let number = claims.next;
        claims.by_number.insert(number, entry);
        Claim { ledger: self.clone(), number }
    }

    fn lock(&self) -> MutexGuard<'_, Claims> {
        self.0.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// The engine has been started; what it has of a card by now is not promised any more.
    pub(crate) fn started(&self, pid: u32) {
        if let Some(entry) = self.ledger.lock().by_number.get_mut(&self.number) {
            entry.pid = Some(pid);
        }
    }

    /// The engine is gone and will be started again at once: until then what it was expected to need is
    /// promised, so that nobody takes its place for a crash.
    pub(crate) fn lost(&self) {
        if let Some(entry) = self.ledger.lock().by_number.get_mut(&self.number) {
            (entry.pid, entry.loaded) = (None, false);
        }
    }

    /// The engine has loaded: from now on what is free says what it uses.
    pub(crate) fn loaded(&self, pid: u32) {
        if let Some(entry) = self.ledger.lock().by_number.get_mut(&self.number) {
            (entry.pid, entry.loaded) = (Some(pid), true);
        }
        self.ledger.0.changed.send_modify(|changes| *changes += 1);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.ledger.lock().by_number.remove(&self.number);
        self.ledger.0.changed.send_modify(|changes| *changes += 1);
    }
}

/// A card with who uses it, and what is promised of it and not taken yet.
fn card_room(card: &Device, claims: &[Entry]) -> Room {
    let mut room = room_of(card);
    for entry in claims {
        let estimate = entry.of(&room.place);
        let used = entry.pid.and_then(|pid| on_card(card, pid));
        let has = match (estimate, used) {
            (Some(estimate), used) if !entry.loaded => {
                let used = used.unwrap_or(0);
                room.free = room.free.saturating_sub(estimate.saturating_sub(used));
                Some(estimate.max(used))
            }
            (estimate, used) => used.or(estimate),
        };
        room.users.extend(has.map(|bytes| (entry.key.to_string(), bytes)));
    }
    room
}

/// A card with the names of our engines, and with those that are promised some of it and have none yet.
fn named(mut card: Device, claims: &[Entry]) -> Device {
    let place = Place::Card(card.uuid.clone());
    for entry in claims {
        let estimated_bytes = entry.of(&place);
        let known = card.users.iter_mut().find(|user| user.pid.is_some() && user.pid == entry.pid);
        let user = match known {
            Some(user) => user,
            None if estimated_bytes.is_some() => {
                card.users.push(DeviceUser { pid: entry.pid, ..DeviceUser::default() });
                let Some(last) = card.users.last_mut() else { continue };
                last
            }
            None => continue,
        };
        user.pool_id = Some(entry.key.pool.clone());
        user.replica_id = Some(entry.key.replica.clone());
        user.estimated_bytes = estimated_bytes;
    }
    card
}

/// The host's memory for one more engine. What engines have mapped counts as free for the kernel, which
/// would take it away from them; weights that are mapped already are not needed again.
fn host_room(memory: AvailableMemory, prepared: &PreparedEngine, claims: &[Entry]) -> Option<Room> {
    let host = HostMemory::now()?;
    let (free, total) = ((memory)()?, host.total_bytes);
    let mut room = Room {
        place: Place::Host,
        name: "this machine".to_owned(),
        total: total.max(free),
        free,
        users: Vec::new(),
    };
    let own = mapped(prepared);
    let mut counted: Vec<&PathBuf> = Vec::new();
    for entry in claims {
        let Some(estimate) = entry.of(&Place::Host) else { continue };
        let Some(pid) = entry.loaded() else {
            room.free = room.free.saturating_sub(estimate);
            room.users.push((entry.key.to_string(), estimate));
            continue;
        };
        let uses = ProcessMemory::of(pid);
        room.users.push((entry.key.to_string(), uses.total_bytes()));
        // Pages of one file are there once, however many engines map it.
        if let Some(file) =
            entry.mapped.as_ref().filter(|file| !counted.contains(file) && Some(*file) != own.as_ref())
        {
            counted.push(file);
            room.free = room.free.saturating_sub(uses.mapped_bytes);
        }
    }
    Some(room)
}

fn key_of(prepared: &PreparedEngine) -> ReplicaKey {
    ReplicaKey { pool: prepared.pool_id.clone(), replica: prepared.replica_id.clone() }
}

fn mapped(prepared: &PreparedEngine) -> Option<PathBuf> {
    let maps = prepared.device_mask.is_none() && !prepared.flags.iter().any(|flag| flag == "--no-mmap");
    maps.then(|| prepared.model_path.clone())
}

#[cfg(test)]
mod tests {
    use wire::{PoolId, ReplicaId};

    use super::*;

    fn entry(pid: Option<u32>, loaded: bool, bytes: &[u64]) -> Entry {
        let prepared: PreparedEngine = serde_json::from_value(serde_json::json!({
            "binary_path": "/b", "flags": [], "port": 0, "host": "127.0.0.1", "model_path": "/m",
            "engine_version": "v", "pool_id": "p", "replica_id": "r0", "engine_digest": "",
            "model_digest": "", "ctx": 1, "slots": 1, "env": {},
        }))
        .unwrap();
        Entry {
            key: ReplicaKey { pool: PoolId::try_new("p").unwrap(), replica: ReplicaId::nth(0) },
            bytes: bytes.iter().map(|bytes| (Place::Card("GPU-0".to_owned()), *bytes)).collect(),
            mapped: None,
            kind: Kind::of(&prepared),
            pid,
            loaded,
        }
    }

    /// POOLD-MEMORY-002
    #[tokio::test]
    async fn a_card_goes_to_who_asked_first_whoever_is_polled_first() {
        const GIB: u64 = 1 << 30;
        let cards = || {
            let room = Device { vram_total_bytes: 24 * GIB, ..card(24 * GIB, &[]) };
            devices::Inventory::Cards(vec![room])
        };
        let (ledger, cards) = (Ledger::new(|| None), Cards::new(Arc::new(cards)));
        let pool = PoolConfig::haiku();
        let prepared = |replica: u32| -> PreparedEngine {
            serde_json::from_value(serde_json::json!({
                "binary_path": "/b", "flags": [], "port": 0, "host": "127.0.0.1", "model_path": "/m",
                "engine_version": "v", "pool_id": pool.id, "replica_id": ReplicaId::nth(replica),
                "engine_digest": "", "model_digest": "", "ctx": 1, "slots": 1, "env": {},
                "device_mask": "GPU-0",
                "memory": {
                    "weights_bytes": 14 * GIB, "kv_bytes_per_slot": GIB, "kv_bytes": GIB, "compute_bytes": GIB,
                },
            }))
            .unwrap()
        };
        let engines = [prepared(0), prepared(1), prepared(2)];
        let held = ledger.0.turn.lock().await;
        let [first, second, third] =
            engines.each_ref().map(|engine| Box::pin(ledger.admit(&pool, engine, &cards, false)));
        let (mut first, mut second, mut third) = (first, second, third);
        assert!(futures_util::poll!(first.as_mut()).is_pending());
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        assert!(futures_util::poll!(third.as_mut()).is_pending());
        drop(held);
        let (third, second, first) = tokio::join!(third, second, first);
        let (_placement, claim) = first.expect("it asked first");
        let refused = second.unwrap_err().to_string();
        assert!(refused.contains("haiku/r0 16.5 GiB + 16.5 GiB needed") && third.is_err(), "{refused}");
        drop(claim);
    }

    fn card(free: u64, users: &[(u32, Option<u64>)]) -> Device {
        let user = |(pid, used_bytes): &(u32, Option<u64>)| DeviceUser {
            pid: Some(*pid),
            used_bytes: *used_bytes,
            ..DeviceUser::default()
        };
        Device {
            index: 0,
            uuid: "GPU-0".to_owned(),
            name: "Card".to_owned(),
            vram_total_bytes: 100,
            vram_free_bytes: free,
            compute_capability: "8.6".to_owned(),
            driver: None,
            utilisation_percent: None,
            users: users.iter().map(user).collect(),
        }
    }

    /// POOLD-MEMORY-002, POOLD-MEMORY-005
    #[test]
    fn an_engine_counts_with_what_it_was_promised_until_it_has_loaded_and_then_with_what_it_has() {
        let room = |card: &Device, entry: Entry| {
            let room = card_room(card, &[entry]);
            (room.free, room.users.first().map(|(_, bytes)| *bytes))
        };
        let none = card(100, &[]);
        assert_eq!(room(&none, entry(None, false, &[40])), (60, Some(40)), "it is not started");
        let some = card(85, &[(7, Some(15))]);
        assert_eq!(room(&some, entry(Some(7), false, &[40])), (60, Some(40)), "it loads");
        let all = card(65, &[(7, Some(35))]);
        assert_eq!(room(&all, entry(Some(7), true, &[40])), (65, Some(35)), "it has loaded");
        assert_eq!(room(&all, entry(Some(7), true, &[])), (65, Some(35)), "it was not estimated");
        let mute = card(65, &[(7, None)]);
        assert_eq!(room(&mute, entry(Some(7), true, &[40])), (65, Some(40)), "the driver does not say");
    }

    /// POOLD-MEMORY-005
    #[test]
    fn the_users_of_a_card_are_named_and_a_promise_is_one_of_them() {
        let shown = named(card(50, &[(7, Some(35)), (8, Some(15))]), &[entry(Some(7), true, &[40])]);
        let what: Vec<_> = shown
            .users
            .iter()
            .map(|user| (user.pid, user.used_bytes, user.estimated_bytes, user.pool_id.is_some()))
            .collect();
        assert_eq!(what, [(Some(7), Some(35), Some(40), true), (Some(8), Some(15), None, false)]);
        let shown = named(card(100, &[]), &[entry(None, false, &[40])]);
        assert_eq!((shown.users[0].pid, shown.users[0].estimated_bytes), (None, Some(40)));
        assert!(named(card(100, &[]), &[entry(None, false, &[])]).users.is_empty());
    }
}
