//! When one file is fetched over several connections at once, as a value, so that tests need no large files.

use std::time::Duration;

/// Hubs give each connection its share and no more. Where one connection is slow, several are faster; where
/// one is fast, the disk and the hash are what is waited for, and more of them only cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// At once, at most; with one there are never several.
    pub most: usize,
    /// One connection is watched for so long before it is helped.
    pub watched: Duration,
    /// One that brings this many bytes a second needs no help.
    pub fast: u64,
    /// With fewer bytes than this to come, nobody helps.
    pub worth_it: u64,
    /// What one request of several asks for.
    pub piece: u64,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            most: 4,
            watched: Duration::from_secs(1),
            // Between a line of 1 Gbit/s (118 MB/s), which one connection fills, and what two cores can write
            // and hash (600 MB/s and more).
            fast: 200 << 20,
            worth_it: 128 << 20,
            piece: 32 << 20,
        }
    }
}

impl Connections {
    /// Whether a connection that brought `bytes` in `time` is slow, with `left` bytes still to come.
    pub(super) fn would_help(&self, bytes: u64, time: Duration, left: u64) -> bool {
        let slow = u128::from(bytes) * 1000 < u128::from(self.fast) * time.as_millis().max(1);
        self.most > 1 && bytes > 0 && time >= self.watched && left >= self.worth_it.max(1) && slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_connection_with_much_to_come_is_helped_and_no_other() {
        let usual = Connections::default();
        let (second, gib) = (Duration::from_secs(1), 1 << 30);
        assert!(usual.would_help(50 << 20, second, gib));
        assert!(usual.would_help(399 << 20, 2 * second, gib));
        assert!(!usual.would_help(200 << 20, second, gib), "it is fast");
        assert!(!usual.would_help(50 << 20, second / 2, gib), "too early to say");
        assert!(!usual.would_help(50 << 20, second, 100 << 20), "it is almost done");
        assert!(!usual.would_help(0, second, gib), "nothing came: it is no question of speed");
        assert!(!Connections { most: 1, ..usual }.would_help(50 << 20, second, gib));
    }
}
