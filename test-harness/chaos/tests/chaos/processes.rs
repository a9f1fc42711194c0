//! Processes as the kernel shows them: engines of a machine, descendants, zombies, descriptors.

use std::path::Path;

/// A variable of a process's environment.
pub(crate) fn variable(pid: i32, name: &str) -> Option<String> {
    let environ = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut variables = environ.split(|byte| *byte == 0).filter_map(|text| std::str::from_utf8(text).ok());
    variables.find_map(|variable| Some(variable.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

/// Children of a process that nobody has asked for their end.
pub(crate) fn zombies_of(parent: i32) -> usize {
    all().into_iter().filter(|pid| parent_of(*pid) == Some(parent) && state(*pid) == Some('Z')).count()
}

/// Open descriptors of a process.
pub(crate) fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Memory of a process that is resident, in KiB.
pub(crate) fn resident_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// Whether it lives; a zombie does not.
pub(crate) fn lives(pid: i32) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}

fn all() -> Vec<i32> {
    let entries = std::fs::read_dir(Path::new("/proc")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn state(pid: i32) -> Option<char> {
    fields(pid)?.chars().next()
}

fn parent_of(pid: i32) -> Option<i32> {
    fields(pid)?.split(' ').nth(1)?.parse().ok()
}

/// `/proc/PID/stat` behind the program's name, which may hold anything.
fn fields(pid: i32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.to_owned())
}
