//! Memory of the host and of one process, as Linux counts it.

use std::fs;

/// The host's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostMemory {
    /// `MemTotal`.
    pub total_bytes: u64,
    /// `MemAvailable`: free, and what the kernel can take back without swapping. Pages of mapped
    /// files count as available, also while a process uses them.
    pub available_bytes: u64,
}

/// Memory of one process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Its own pages; the host's available memory is already smaller by them.
    pub own_bytes: u64,
    /// Pages of mapped files (a model's weights); the host counts them as available.
    pub mapped_bytes: u64,
}

impl HostMemory {
    /// Of now; `None` where `/proc` does not say.
    #[must_use]
    pub fn now() -> Option<Self> {
        let text = fs::read_to_string("/proc/meminfo").ok()?;
        Some(Self { total_bytes: kib(&text, "MemTotal:")?, available_bytes: kib(&text, "MemAvailable:")? })
    }
}

impl ProcessMemory {
    /// Of now; nothing for a process that is gone.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let (anonymous, shared) = (kib(&text, "RssAnon:"), kib(&text, "RssShmem:"));
        Self {
            own_bytes: anonymous.unwrap_or(0) + shared.unwrap_or(0),
            mapped_bytes: kib(&text, "RssFile:").unwrap_or(0),
        }
    }

    /// Both.
    #[must_use]
    pub fn total_bytes(self) -> u64 {
        self.own_bytes + self.mapped_bytes
    }
}

fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_and_this_process_have_memory_and_a_dead_one_has_none() {
        let host = HostMemory::now().unwrap();
        let own = ProcessMemory::of(std::process::id());
        assert!(host.total_bytes > host.available_bytes && host.available_bytes > 0);
        assert!(own.own_bytes > 0 && own.mapped_bytes > 0 && own.total_bytes() < host.total_bytes);
        assert_eq!(ProcessMemory::of(u32::MAX), ProcessMemory::default());
    }
}
