//! The cards that a pool's `devices` names. Pure.

use std::fmt;

use wire::Device;
use wire::config::Devices;

/// A pool names a card that this machine does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoSuchCard {
    /// `card 3` or `card GPU-…`.
    pub what: String,
    /// Those there are, for people.
    pub known: Vec<String>,
}

impl fmt::Display for NoSuchCard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`devices` names {}, which this machine does not have", self.what)
    }
}

impl std::error::Error for NoSuchCard {}

impl NoSuchCard {
    /// What to write instead.
    #[must_use]
    pub fn remedy(&self) -> String {
        format!("choose from: {}", self.known.join("; "))
    }
}

/// The named cards in the order they are named; for `auto` all of them, the one with the most free
/// memory first, because which of them it will be is decided when the engine starts.
///
/// # Errors
/// [`NoSuchCard`].
pub fn choose<'a>(devices: &Devices, cards: &'a [Device]) -> Result<Vec<&'a Device>, NoSuchCard> {
    let missing = |what: String| NoSuchCard {
        what,
        known: cards.iter().map(|card| format!("{} ({}, {})", card.index, card.name, card.uuid)).collect(),
    };
    match devices {
        Devices::Auto(_) => {
            let mut all: Vec<&Device> = cards.iter().collect();
            all.sort_by_key(|card| (std::cmp::Reverse(card.vram_free_bytes), card.index));
            Ok(all)
        }
        Devices::Indices(indices) => {
            let find =
                |i: &u32| cards.iter().find(|c| c.index == *i).ok_or_else(|| missing(format!("card {i}")));
            indices.iter().map(find).collect()
        }
        Devices::Uuids(uuids) => {
            let find =
                |u: &String| cards.iter().find(|c| c.uuid == *u).ok_or_else(|| missing(format!("card {u}")));
            uuids.iter().map(find).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(index: u32, free: u64) -> Device {
        Device {
            index,
            uuid: format!("GPU-{index}"),
            name: "Card".to_owned(),
            vram_total_bytes: 100,
            vram_free_bytes: free,
            compute_capability: "8.6".to_owned(),
            driver: None,
            utilisation_percent: None,
            users: Vec::new(),
        }
    }

    fn indices(chosen: &[&Device]) -> Vec<u32> {
        chosen.iter().map(|card| card.index).collect()
    }

    /// POOLD-DEVICE-002
    #[test]
    fn cards_are_named_by_index_or_uuid_and_auto_prefers_free_memory() {
        let cards = [card(0, 5), card(1, 9), card(2, 9)];
        assert_eq!(indices(&choose(&Devices::default(), &cards).unwrap()), [1, 2, 0]);
        assert_eq!(indices(&choose(&Devices::Indices(vec![2, 0]), &cards).unwrap()), [2, 0]);
        assert_eq!(indices(&choose(&Devices::Uuids(vec!["GPU-1".to_owned()]), &cards).unwrap()), [1]);
    }

    /// POOLD-DEVICE-003
    #[test]
    fn a_card_that_is_not_there_is_an_error_that_lists_those_that_are() {
        let cards = [card(0, 5)];
        let by_index = choose(&Devices::Indices(vec![7]), &cards).unwrap_err();
        assert_eq!(by_index.to_string(), "`devices` names card 7, which this machine does not have");
        assert_eq!(by_index.remedy(), "choose from: 0 (Card, GPU-0)");
        assert!(choose(&Devices::Uuids(vec!["GPU-9".to_owned()]), &cards).is_err());
    }
}
