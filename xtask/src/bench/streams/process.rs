//! CPU time and memory of processes, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// CPU time of all of them, user and system, in microseconds, by each one's own clock: `/proc/PID/stat` is in
/// hundredths of a second, most of a microsecond for each token of a measurement.
pub(in crate::bench) fn cpu_us(pids: &[u32]) -> Result<f64> {
    pids.iter().map(|pid| on_cpu(*pid)).sum()
}

fn on_cpu(pid: u32) -> Result<f64> {
    let process = Pid::from_raw(i32::try_from(pid).context("a process id out of range")?);
    let clock = clock_getcpuclockid(process).context("finding a process's CPU clock")?;
    let used = clock_gettime(clock).context("reading a process's CPU time")?;
    Ok(Duration::from(used).as_secs_f64() * 1e6)
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
