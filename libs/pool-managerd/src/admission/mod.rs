//! Memory is given out before an engine is started, first come, first served: what it is estimated at is
//! held against what is free, without what is promised to engines that still load. Once one has loaded,
//! what the card (or the kernel) says itself takes the place of the estimate. A claim is a value; it is
//! given back when it is dropped.
//!
//! Decides by [`plan`]; knows no process but by its number.

mod plan;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devices::{HostMemory, ProcessMemory};
use tokio::sync::watch;
use wire::config::PoolConfig;
use wire::{PreparedEngine, ReplicaKey};

use crate::AvailableMemory;
use crate::cards::Cards;

pub(crate) use plan::{NoRoom, Placement};
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
    /// Counts what was given back or turned out to be less.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Claims {
    next: u64,
    by_number: BTreeMap<u64, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    key: ReplicaKey,
    bytes: Vec<(Place, u64)>,
    /// The file that its weights are mapped from; `None` where they are not mapped.
    mapped: Option<PathBuf>,
    /// Of an engine that has loaded: what it uses is not free any more.
    loaded: Option<u32>,
}

/// Memory that an engine has, or is promised. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Claim {
    ledger: Ledger,
    number: u64,
}

impl Ledger {
    pub(crate) fn new(memory: AvailableMemory) -> Self {
        let (claims, turn, changed) =
            (Mutex::default(), tokio::sync::Mutex::default(), watch::Sender::default());
        Self(Arc::new(Inner { memory, claims, turn, changed }))
    }

    /// Room for one more engine of a pool, or the sum that shows that there is none. `oversubscribe`: it is
    /// given all the same.
    pub(crate) async fn admit(
        &self,
        pool: &PoolConfig,
        prepared: &PreparedEngine,
        cards: &Cards,
        oversubscribe: bool,
    ) -> Result<(Placement, Claim), NoRoom> {
        let _turn = self.0.turn.lock().await;
        // Before the look: what has loaded since is counted twice rather than not at all.
        let claims: Vec<Entry> = self.lock().by_number.values().cloned().collect();
        let rooms = match &prepared.device_mask {
            Some(_) => {
                cards.fresh().await.cards().iter().map(|card| card_room(room_of(card), &claims)).collect()
            }
            None => host_room(self.0.memory, prepared, &claims).into_iter().collect::<Vec<Room>>(),
        };
        let placement = plan(pool, prepared, &rooms, oversubscribe)?;
        let entry = Entry {
            key: ReplicaKey { pool: prepared.pool_id.clone(), replica: prepared.replica_id.clone() },
            bytes: placement.bytes.clone(),
            mapped: mapped(prepared),
            loaded: None,
        };
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
        let key = ReplicaKey { pool: prepared.pool_id.clone(), replica: prepared.replica_id.clone() };
        self.enter(Entry { key, bytes, mapped: mapped(prepared), loaded: Some(pid) })
    }

    /// Wakes when there may be more room than before.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
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
    /// The engine has loaded: from now on what is free says what it uses.
    pub(crate) fn loaded(&self, pid: u32) {
        if let Some(entry) = self.ledger.lock().by_number.get_mut(&self.number) {
            entry.loaded = Some(pid);
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

/// A card with what is promised of it.
fn card_room(mut room: Room, claims: &[Entry]) -> Room {
    for entry in claims {
        for (_, bytes) in entry.bytes.iter().filter(|(place, _)| *place == room.place) {
            room.users.push((entry.key.to_string(), *bytes));
            if entry.loaded.is_none() {
                room.free = room.free.saturating_sub(*bytes);
            }
        }
    }
    room
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
        let Some((_, estimate)) = entry.bytes.iter().find(|(place, _)| *place == Place::Host) else {
            continue;
        };
        let Some(pid) = entry.loaded else {
            room.free = room.free.saturating_sub(*estimate);
            room.users.push((entry.key.to_string(), *estimate));
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

fn mapped(prepared: &PreparedEngine) -> Option<PathBuf> {
    let maps = prepared.device_mask.is_none() && !prepared.flags.iter().any(|flag| flag == "--no-mmap");
    maps.then(|| prepared.model_path.clone())
}
