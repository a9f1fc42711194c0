//! Whether a second engine has room beside one that serves: an estimate from what the first one uses,
//! held against what the kernel could give. Memory of cards is not known here; an engine that uses one
//! is never started beside another.

use std::fs;

use wire::PreparedEngine;

/// What an engine needs at least besides its model.
const LEAST_OVERHEAD: u64 = 64 * 1024 * 1024;

/// How many bytes may be used; asked anew each time.
pub type AvailableMemory = fn() -> Option<u64>;

/// The answer and the numbers behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Enough,
    TooLittle {
        needed: u64,
        available: u64,
    },
    /// It is on a card, or the kernel does not say.
    Unknown,
}

/// Room for `new` beside an engine that uses `resident` bytes for a model of `old_model`.
pub(crate) fn room(
    new: &PreparedEngine,
    new_model: u64,
    old_model: u64,
    resident: Option<u64>,
    available: Option<u64>,
) -> Room {
    let (Some(resident), Some(available), None) = (resident, available, &new.device_mask) else {
        return Room::Unknown;
    };
    let overhead = resident.saturating_sub(old_model).max(LEAST_OVERHEAD);
    // A tenth more: the new one may have a larger context, and others allocate meanwhile.
    let needed = (new_model.saturating_add(overhead) / 10).saturating_mul(11);
    if needed <= available { Room::Enough } else { Room::TooLittle { needed, available } }
}

/// What the kernel could give without swapping, within the limit of our control group.
pub fn available() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let free = kib(&meminfo, "MemAvailable:")?;
    Some(group_room().map_or(free, |room| room.min(free)))
}

fn group_room() -> Option<u64> {
    let number =
        |name: &str| fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse::<u64>().ok();
    // "max" is no number, and no limit.
    let (limit, used) = (number("memory.max")?, number("memory.current")?);
    let stat = fs::read_to_string("/sys/fs/cgroup/memory.stat").unwrap_or_default();
    let cached =
        stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse::<u64>().ok());
    Some(limit.saturating_sub(used.saturating_sub(cached.unwrap_or(0))))
}

/// What a process uses, mapped files included.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    kib(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:")
}

fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1024 * 1024 * 1024;

    fn prepared(device_mask: Option<&str>) -> PreparedEngine {
        serde_json::from_value(serde_json::json!({
            "binary_path": "/b", "flags": [], "port": 0, "host": "127.0.0.1", "model_path": "/m",
            "engine_version": "v", "pool_id": "p", "replica_id": "r0", "device_mask": device_mask,
            "engine_digest": "", "model_digest": "", "ctx": 1, "slots": 1, "env": {},
        }))
        .unwrap()
    }

    /// POOLD-RELOAD-002
    #[test]
    fn what_the_old_engine_uses_besides_its_model_is_expected_of_the_new_one() {
        let of = |available| room(&prepared(None), 4 * GIB, 2 * GIB, Some(3 * GIB), Some(available));
        assert_eq!(of(6 * GIB), Room::Enough);
        let Room::TooLittle { needed, .. } = of(5 * GIB) else { panic!("4 GiB and 1 GiB and a tenth") };
        assert!(needed > 5 * GIB && needed < 6 * GIB, "{needed}");
    }

    #[test]
    fn a_card_or_a_silent_kernel_leave_it_unknown() {
        let mine = resident(std::process::id());
        assert!(mine.is_some_and(|bytes| bytes > 0) && available().is_some());
        assert_eq!(room(&prepared(Some("0")), GIB, GIB, mine, Some(64 * GIB)), Room::Unknown);
        assert_eq!(room(&prepared(None), GIB, GIB, None, Some(64 * GIB)), Room::Unknown);
    }
}
