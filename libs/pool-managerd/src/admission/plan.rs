//! Which cards an engine gets, how its model is split over them, and whether it has room at all: a pure
//! decision over an estimate and what is free. Never guesses: without an estimate nothing is compared.

use std::fmt;

use wire::config::{Devices, PoolConfig};
use wire::{Device, MemoryEstimate, PreparedEngine};

use super::measured::Seen;

/// What a process costs on a card besides its model: the driver's context and the libraries' workspaces.
const CONTEXT_BYTES: u64 = 512 * MIB;
const MIB: u64 = 1024 * 1024;

/// Flags with which not all of the model is on the cards; the estimate says nothing then.
const PARTLY: &[&str] =
    &["--n-cpu-moe", "--cpu-moe", "--override-tensor", "--no-kv-offload", "--split-mode", "--device"];
const ALL_LAYERS: &str = "999";
const NO_LAYERS: &str = "0";

/// A place for bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// A card, by its UUID.
    Card(String),
    Host,
}

/// Where an engine is started.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Placement {
    /// UUIDs, as `CUDA_VISIBLE_DEVICES` takes them; `None` without a card.
    pub(crate) device_mask: Option<String>,
    /// `--tensor-split`, where it was planned here.
    pub(crate) tensor_split: Option<String>,
    /// What it is expected to take, by place. Empty where nothing is known.
    pub(crate) bytes: Vec<(Place, u64)>,
}

/// A place and what is in it.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    pub(crate) place: Place,
    /// For people.
    pub(crate) name: String,
    pub(crate) total: u64,
    /// What nobody uses, without what is promised to engines that still load.
    pub(crate) free: u64,
    /// Whose engines use or are promised how much of it, as far as that is known.
    pub(crate) users: Vec<(String, u64)>,
}

/// It has no room: the sum, place by place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoRoom(String);

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the engine needs on one place of its own, and beside its share of the model on each of several.
struct Need {
    shared: u64,
    each: u64,
}

/// Decides. `measured` is what an engine like it had on cards; `rooms` are the cards' in the order of the
/// machine, or the host's alone; `oversubscribe`: too little room is no reason to refuse.
pub(crate) fn plan(
    pool: &PoolConfig,
    prepared: &PreparedEngine,
    measured: Option<Seen>,
    rooms: &[Room],
    oversubscribe: bool,
) -> Result<Placement, NoRoom> {
    let as_prepared = Placement { device_mask: prepared.device_mask.clone(), ..Placement::default() };
    let Some(estimate) = prepared.memory.filter(|_| is_whole(prepared)) else {
        return Ok(as_prepared);
    };
    let Some(mask) = &prepared.device_mask else {
        let need = estimate.total_bytes();
        let Some(host) = rooms.iter().find(|room| room.place == Place::Host) else { return Ok(as_prepared) };
        return if need <= host.free || oversubscribe {
            Ok(Placement { bytes: vec![(Place::Host, need)], ..as_prepared })
        } else {
            Err(refusal(pool, prepared, None, &[(host, need)]))
        };
    };
    let need = Need::of(&estimate, measured);
    let known = |uuid: &str| rooms.iter().find(|room| room.place == Place::Card(uuid.to_owned()));
    let auto = pool.devices == Devices::default();
    let cards: Option<Vec<&Room>> =
        if auto { Some(by_room(rooms)) } else { mask.split(',').map(known).collect() };
    // A card that cannot be seen cannot be judged.
    let Some(cards) = cards.filter(|cards| !cards.is_empty()) else { return Ok(as_prepared) };
    let chosen = match (&pool.tensor_split, auto) {
        (Some(split), _) => return explicit(pool, prepared, measured, &need, (&cards, split), oversubscribe),
        (None, true) => fewest(&need, &cards).unwrap_or(cards.get(..1).unwrap_or_default()),
        (None, false) => cards.as_slice(),
    };
    let shares = proportional(&need, chosen);
    let parts: Vec<(&Room, u64)> = chosen.iter().copied().zip(shares).collect();
    if !oversubscribe && !fits(&parts) {
        // Of a choice among all cards, all of them were not enough.
        let all = if auto { cards.as_slice() } else { chosen };
        let shares = proportional(&need, all);
        let parts: Vec<_> = all.iter().copied().zip(shares).collect();
        return Err(refusal(pool, prepared, measured, &parts));
    }
    Ok(placement(&parts, (chosen.len() > 1).then_some(need.each)))
}

impl Need {
    /// What was measured takes the place of the estimate; how much of it is once per card was not.
    fn of(estimate: &MemoryEstimate, measured: Option<Seen>) -> Self {
        let each = estimate.compute_bytes.saturating_add(CONTEXT_BYTES);
        let Some(seen) = measured else {
            return Self { shared: estimate.weights_bytes.saturating_add(estimate.kv_bytes), each };
        };
        let each = each.min(seen.bytes.checked_div(seen.cards).unwrap_or(seen.bytes));
        Self { shared: seen.bytes.saturating_sub(each.saturating_mul(seen.cards)), each }
    }
}

/// Whether all of the model is on the cards, or all of it on the host.
fn is_whole(prepared: &PreparedEngine) -> bool {
    let flags = &prepared.flags;
    let layers = flags.iter().rposition(|flag| flag == "--n-gpu-layers").and_then(|at| flags.get(at + 1));
    let whole = if prepared.device_mask.is_some() { ALL_LAYERS } else { NO_LAYERS };
    layers.is_none_or(|layers| layers == whole) && !flags.iter().any(|flag| PARTLY.contains(&flag.as_str()))
}

/// All cards, the one with the most room first.
fn by_room(rooms: &[Room]) -> Vec<&Room> {
    let mut cards: Vec<&Room> = rooms.iter().filter(|room| room.place != Place::Host).collect();
    cards.sort_by_key(|room| std::cmp::Reverse(room.free));
    cards
}

/// As few cards as have room for it together; `None`: not even all of them.
fn fewest<'a, 'b>(need: &Need, cards: &'b [&'a Room]) -> Option<&'b [&'a Room]> {
    let enough = |n: &usize| {
        let some = cards.get(..*n).unwrap_or_default();
        fits(&some.iter().copied().zip(proportional(need, some)).collect::<Vec<_>>())
    };
    (1..=cards.len()).find(enough).and_then(|n| cards.get(..n))
}

/// What each card gets: its part of the model in proportion to the room that it has for one, so that no
/// card is asked for more than it has while another has room; and what every card needs besides.
fn proportional(need: &Need, cards: &[&Room]) -> Vec<u64> {
    let rooms: Vec<u64> = cards.iter().map(|card| card.free.saturating_sub(need.each)).collect();
    let sum: u128 = rooms.iter().map(|room| u128::from(*room)).sum();
    let count = u128::try_from(cards.len().max(1)).unwrap_or(1);
    let part = |room: &u64| {
        let whole = u128::from(need.shared);
        let part = (whole * u128::from(*room)).checked_div(sum).unwrap_or(whole / count);
        u64::try_from(part).unwrap_or(u64::MAX).saturating_add(need.each)
    };
    rooms.iter().map(part).collect()
}

/// A split that the configuration names.
fn explicit(
    pool: &PoolConfig,
    prepared: &PreparedEngine,
    measured: Option<Seen>,
    need: &Need,
    (cards, split): (&[&Room], &[f64]),
    oversubscribe: bool,
) -> Result<Placement, NoRoom> {
    let sum: f64 = split.iter().sum();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a part of an estimate of bytes"
    )]
    let share = |part: &f64| (need.shared as f64 * part / sum) as u64;
    let parts: Vec<(&Room, u64)> = cards
        .iter()
        .copied()
        .zip(split)
        .map(|(card, part)| (card, share(part).saturating_add(need.each)))
        .collect();
    if oversubscribe || fits(&parts) {
        Ok(placement(&parts, None))
    } else {
        Err(refusal(pool, prepared, measured, &parts))
    }
}

fn fits(parts: &[(&Room, u64)]) -> bool {
    parts.iter().all(|(card, bytes)| *bytes <= card.free)
}

/// Split by what each card gets without what every card needs `besides`; `None` where the command line
/// says it or there is nothing to split.
fn placement(parts: &[(&Room, u64)], besides: Option<u64>) -> Placement {
    let uuid = |room: &Room| match &room.place {
        Place::Card(uuid) => uuid.clone(),
        Place::Host => String::new(),
    };
    let mask: Vec<String> = parts.iter().map(|(card, _)| uuid(card)).collect();
    // In MiB: what is split is layers, and they are larger.
    let split = |besides: u64| {
        let part = |(_, bytes): &(&Room, u64)| (bytes.saturating_sub(besides) / MIB).to_string();
        parts.iter().map(part).collect::<Vec<_>>().join(",")
    };
    Placement {
        device_mask: Some(mask.join(",")),
        tensor_split: besides.map(split),
        bytes: parts.iter().map(|(card, bytes)| (card.place.clone(), *bytes)).collect(),
    }
}

fn refusal(
    pool: &PoolConfig,
    prepared: &PreparedEngine,
    measured: Option<Seen>,
    parts: &[(&Room, u64)],
) -> NoRoom {
    let of = |estimate: &MemoryEstimate| {
        format!(
            "{} of weights, {} of context, {} to compute",
            gib(estimate.weights_bytes),
            gib(estimate.kv_bytes),
            gib(estimate.compute_bytes)
        )
    };
    let words = match measured {
        Some(seen) => format!("{} were measured of an engine like it", gib(seen.bytes)),
        None => prepared.memory.as_ref().map(of).unwrap_or_default(),
    };
    let places: Vec<String> = parts.iter().map(|(room, bytes)| place(room, *bytes)).collect();
    NoRoom(format!(
        "pool {} has no room for replica {} ({words}): {}",
        pool.id,
        prepared.replica_id,
        places.join("; ")
    ))
}

fn place(room: &Room, needed: u64) -> String {
    let ours: u64 = room.users.iter().map(|(_, bytes)| bytes).sum();
    let used = room.total.saturating_sub(room.free);
    let mut users: Vec<String> =
        room.users.iter().map(|(who, bytes)| format!("{who} {}", gib(*bytes))).collect();
    let others = used.saturating_sub(ours);
    if others > 0 {
        users.push(format!("others {}", gib(others)));
    }
    let users = if users.is_empty() { "nobody uses it".to_owned() } else { users.join(" + ") };
    let sum = used.saturating_add(needed);
    format!(
        "{} of it on {}, which has {}: {users} + {} needed = {}, {} too much",
        gib(needed),
        room.name,
        gib(room.total),
        gib(needed),
        gib(sum),
        gib(sum.saturating_sub(room.total))
    )
}

fn gib(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10).saturating_add(1 << 29) >> 30;
    if tenths == 0 {
        format!("{} MiB", bytes.div_ceil(MIB))
    } else {
        format!("{}.{} GiB", tenths / 10, tenths % 10)
    }
}

/// A card as a room, before anything is promised of it.
pub(crate) fn room_of(card: &Device) -> Room {
    Room {
        place: Place::Card(card.uuid.clone()),
        name: format!("card {} ({})", card.index, card.name),
        total: card.vram_total_bytes,
        free: card.vram_free_bytes,
        users: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;
    use wire::PoolId;

    const GIB: u64 = 1 << 30;

    /// Nothing like it was ever measured.
    fn plan(
        pool: &PoolConfig,
        prepared: &PreparedEngine,
        rooms: &[Room],
        oversubscribe: bool,
    ) -> Result<Placement, NoRoom> {
        super::plan(pool, prepared, None, rooms, oversubscribe)
    }

    fn pool(edit: impl FnOnce(&mut PoolConfig)) -> PoolConfig {
        let mut pool = PoolConfig::new(PoolId::try_new("b").unwrap(), "m");
        edit(&mut pool);
        pool
    }

    fn prepared(mask: Option<&str>, weights: u64) -> PreparedEngine {
        serde_json::from_value(serde_json::json!({
            "binary_path": "/b", "flags": [], "port": 0, "host": "127.0.0.1", "model_path": "/m",
            "engine_version": "v", "pool_id": "b", "replica_id": "r0", "device_mask": mask,
            "memory": {"weights_bytes": weights, "kv_bytes_per_slot": GIB, "kv_bytes": GIB, "compute_bytes": GIB / 2},
            "engine_digest": "", "model_digest": "", "ctx": 1, "slots": 1, "env": {},
        }))
        .unwrap()
    }

    fn card(index: u32, total: u64, free: u64) -> Room {
        let name = format!("card {index}");
        Room { place: Place::Card(format!("GPU-{index}")), name, total, free, users: Vec::new() }
    }

    /// POOLD-MEMORY-001
    #[test]
    fn a_refusal_shows_who_uses_what_and_the_sum() {
        let mut room = card(0, 24 * GIB, 9 * GIB);
        room.users = vec![("a/r0".to_owned(), 14 * GIB)];
        let one = pool(|p| p.devices = Devices::Indices(vec![0]));
        let refused = plan(&one, &prepared(Some("GPU-0"), 14 * GIB), &[room.clone()], false).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "pool b has no room for replica r0 (14.0 GiB of weights, 1.0 GiB of context, 0.5 GiB to compute): \
             16.0 GiB of it on card 0, which has 24.0 GiB: a/r0 14.0 GiB + others 1.0 GiB + 16.0 GiB needed = \
             31.0 GiB, 7.0 GiB too much"
        );
        assert!(plan(&one, &prepared(Some("GPU-0"), 7 * GIB), &[room.clone()], false).is_ok());
        let forced = plan(&one, &prepared(Some("GPU-0"), 14 * GIB), &[room], true).unwrap();
        assert_eq!(forced.device_mask.as_deref(), Some("GPU-0"));
    }

    /// POOLD-MEMORY-004
    #[test]
    fn auto_takes_the_card_with_the_most_room_and_several_only_where_one_is_not_enough() {
        let rooms = [card(0, 24 * GIB, 20 * GIB), card(1, 12 * GIB, 12 * GIB), card(2, 24 * GIB, 23 * GIB)];
        let auto = pool(|_| {});
        let one = plan(&auto, &prepared(Some("GPU-0"), 8 * GIB), &rooms, false).unwrap();
        assert_eq!((one.device_mask.as_deref(), &one.tensor_split), (Some("GPU-2"), &None));
        let two = plan(&auto, &prepared(Some("GPU-0"), 30 * GIB), &rooms, false).unwrap();
        assert_eq!(two.device_mask.as_deref(), Some("GPU-2,GPU-0"));
        assert!(two.tensor_split.is_some());
        let refused = plan(&auto, &prepared(Some("GPU-0"), 60 * GIB), &rooms, false).unwrap_err().to_string();
        assert!(
            refused.contains("card 0") && refused.contains("card 1") && refused.contains("card 2"),
            "{refused}"
        );
    }

    /// POOLD-MEMORY-004
    #[test]
    fn a_model_for_24_and_12_gib_is_split_as_they_are_free_and_a_split_that_is_named_is_held_to_them() {
        let rooms = [card(0, 24 * GIB, 24 * GIB), card(1, 12 * GIB, 12 * GIB)];
        let both = pool(|p| p.devices = Devices::Indices(vec![0, 1]));
        let planned = plan(&both, &prepared(Some("GPU-0,GPU-1"), 29 * GIB), &rooms, false).unwrap();
        assert_eq!(planned.device_mask.as_deref(), Some("GPU-0,GPU-1"));
        assert_eq!(planned.tensor_split.as_deref(), Some("20781,9938"));
        let named = |split: &[f64]| {
            let pool = pool(|p| {
                p.devices = Devices::Indices(vec![0, 1]);
                p.tensor_split = Some(split.to_vec());
            });
            plan(&pool, &prepared(Some("GPU-0,GPU-1"), 29 * GIB), &rooms, false)
        };
        assert_eq!(named(&[24.0, 12.0]).unwrap().tensor_split, None, "it is on the command line already");
        let refused = named(&[1.0, 1.0]).unwrap_err().to_string();
        assert!(refused.contains("16.0 GiB of it on card 1, which has 12.0 GiB"), "{refused}");
    }

    /// POOLD-MEMORY-001
    #[test]
    fn without_an_estimate_or_with_a_part_on_the_host_nothing_is_compared() {
        let full = [card(0, 24 * GIB, 0)];
        let one = pool(|p| p.devices = Devices::Indices(vec![0]));
        let mut engine = prepared(Some("GPU-0"), GIB);
        assert!(plan(&one, &engine, &full, false).is_err());
        engine.flags = ["--n-gpu-layers", "999"].map(str::to_owned).into();
        assert!(plan(&one, &engine, &full, false).is_err());
        engine.flags = ["--n-gpu-layers", "20"].map(str::to_owned).into();
        assert_eq!(plan(&one, &engine, &full, false).unwrap().bytes, []);
        engine.flags = ["--n-gpu-layers", "0"].map(str::to_owned).into();
        assert_eq!(plan(&one, &engine, &full, false).unwrap().bytes, [], "it is all on the host");
        assert!(plan(&one, &prepared(Some("GPU-7"), GIB), &full, false).is_ok(), "a card that is not seen");
        engine = prepared(Some("GPU-0"), GIB);
        engine.memory = None;
        assert!(plan(&one, &engine, &full, false).is_ok());
    }

    /// POOLD-MEMORY-001
    #[test]
    fn a_pool_on_the_cpu_is_held_against_the_host_as_engine_provisioner_hands_it_over() {
        let host = |free| Room {
            place: Place::Host,
            name: "this machine".to_owned(),
            total: 24 * GIB,
            free,
            users: Vec::new(),
        };
        let mut engine = prepared(None, 14 * GIB);
        engine.flags = ["--n-gpu-layers", "0"].map(str::to_owned).into();
        let refused = plan(&pool(|_| {}), &engine, &[host(9 * GIB)], false).unwrap_err().to_string();
        assert!(refused.contains("15.5 GiB of it on this machine, which has 24.0 GiB"), "{refused}");
        assert!(plan(&pool(|_| {}), &engine, &[host(16 * GIB)], false).is_ok());
    }

    /// POOLD-MEMORY-005
    #[test]
    fn what_an_engine_like_it_had_takes_the_place_of_the_estimate() {
        let one = pool(|p| p.devices = Devices::Indices(vec![0]));
        let engine = prepared(Some("GPU-0"), 14 * GIB);
        let seen = |bytes, cards| Some(Seen { bytes, cards });
        let room = [card(0, 24 * GIB, 14 * GIB)];
        assert!(plan(&one, &engine, &room, false).is_err(), "16 GiB are estimated");
        let planned = super::plan(&one, &engine, seen(13 * GIB, 1), &room, false).unwrap();
        assert_eq!(planned.bytes, [(Place::Card("GPU-0".to_owned()), 13 * GIB)]);
        let refused = super::plan(&one, &engine, seen(15 * GIB, 1), &room, false).unwrap_err().to_string();
        assert!(
            refused.contains("(15.0 GiB were measured of an engine like it)")
                && refused.contains("1.0 GiB too much"),
            "{refused}"
        );
        // Of two cards at 1 GiB each for itself, 10 GiB are the model's: on one card it needs 11.
        let planned = super::plan(&one, &engine, seen(12 * GIB, 2), &room, false).unwrap();
        assert_eq!(planned.bytes, [(Place::Card("GPU-0".to_owned()), 11 * GIB)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 10_000,
            rng_seed: RngSeed::Fixed(24),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// POOLD-MEMORY-001, POOLD-MEMORY-004
        #[test]
        fn no_card_is_ever_promised_more_than_it_has_and_what_fits_evenly_is_never_refused(
            cards in prop::collection::vec((1_u64..80, 0_u64..=100), 1..6),
            weights in 0_u64..200,
            auto in any::<bool>(),
        ) {
            let rooms: Vec<Room> = (0..).zip(&cards).map(|(index, (total, percent))| {
                card(index, total * GIB, total * GIB / 100 * percent)
            }).collect();
            let mask: Vec<String> = (0..cards.len()).map(|index| format!("GPU-{index}")).collect();
            let named = pool(|p| if !auto {
                p.devices = Devices::Uuids(mask.clone());
            });
            let engine = prepared(Some(&mask.join(",")), weights * GIB);
            let planned = plan(&named, &engine, &rooms, false);
            if let Ok(planned) = &planned {
                for (place, bytes) in &planned.bytes {
                    let room = rooms.iter().find(|room| room.place == *place).unwrap();
                    prop_assert!(*bytes <= room.free);
                }
            }
            let need = Need::of(&engine.memory.unwrap(), None);
            let one_has_room = rooms.iter().any(|room| room.free >= need.shared + need.each);
            if auto && one_has_room {
                prop_assert_eq!(planned.unwrap().bytes.len(), 1);
            }
        }
    }
}
