//! CPU time and memory of processes, from `/proc`.

use std::fs;

use anyhow::{Context, Result};

/// CPU time of all of them, user and system, in microseconds: what the scheduler counts in nanoseconds for each
/// thread that there is, because `/proc/PID/stat` is in hundredths of a second, most of a microsecond for each
/// token of a measurement.
pub(in crate::bench) fn cpu_us(pids: &[u32]) -> Result<f64> {
    pids.iter().map(|pid| on_cpu_ns(*pid).map(|ns| ns as f64 / 1e3)).sum()
}

fn on_cpu_ns(pid: u32) -> Result<u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).context("listing a process's threads")?;
    let mut sum = 0;
    for thread in threads {
        let path = thread.context("listing a process's threads")?.path().join("schedstat");
        // One that has ended meanwhile did next to nothing.
        let Ok(stat) = fs::read_to_string(&path) else { continue };
        let first = stat.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok());
        sum += first.with_context(|| format!("{} is not the scheduler's", path.display()))?;
    }
    Ok(sum)
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
