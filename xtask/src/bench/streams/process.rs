//! CPU time and memory of processes, from `/proc`.

use std::fs;

use anyhow::{Context, Result};

/// The kernel's unit of CPU time in `/proc/PID/stat` is 1/100 s on every Linux we run on.
const TICK_US: f64 = 10_000.0;

/// CPU time of all of them, user and system, in microseconds.
pub(in crate::bench) fn cpu_us(pids: &[u32]) -> Result<f64> {
    pids.iter().map(|pid| ticks(*pid).map(|ticks| ticks as f64 * TICK_US)).sum()
}

fn ticks(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("reading a process's CPU time")?;
    // The name in brackets may hold spaces.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let fields: Vec<&str> = after.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    Ok(number(11) + number(12))
}

/// Resident memory of all of them, in KiB.
pub(in crate::bench) fn rss_kib(pids: &[u32]) -> Result<f64> {
    pids.iter().map(|pid| rss(*pid)).sum()
}

fn rss(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("reading a process's memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    Ok(line.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0.0))
}
