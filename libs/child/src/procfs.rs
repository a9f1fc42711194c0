//! The few things read from `/proc`, each as one function. Nothing here decides anything.

use std::fs::{self, File};
use std::io::{self, Read as _};

/// The fields of `/proc/<pid>/stat` that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// `Z` for a zombie, `X` for dead.
    pub(crate) state: char,
    pub(crate) session: u32,
    /// Clock ticks since boot, usually of 10 ms.
    pub(crate) start_ticks: u64,
}

pub(crate) fn stat(pid: u32) -> io::Result<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat"))?).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is not as expected"))
    })
}

/// The command name may hold spaces and parentheses, so everything is counted from the last `)`.
fn parse_stat(text: &str) -> Option<Stat> {
    let rest = &text[text.rfind(')')? + 1..];
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // proc(5): state is field 3, session 6, starttime 22.
    let session = fields.nth(2)?.parse().ok()?;
    let start_ticks = fields.nth(15)?.parse().ok()?;
    Some(Stat { state, session, start_ticks })
}

/// The value of a variable in the environment a process was started with.
pub(crate) fn environment_value(pid: u32, name: &str) -> io::Result<Option<String>> {
    // With room from the start: by itself the first read asks for 32 bytes, and each takes the
    // process's memory lock.
    let mut bytes = Vec::with_capacity(16 * 1024);
    File::open(format!("/proc/{pid}/environ"))?.read_to_end(&mut bytes)?;
    Ok(bytes.split(|b| *b == 0).find_map(|entry| {
        let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    }))
}

/// Random for each boot of the machine.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Every process that can be seen now.
pub(crate) fn pids() -> io::Result<Vec<u32>> {
    Ok(fs::read_dir("/proc")?
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_does_not_shift_the_fields() {
        let line =
            "42 (a) b (c) S 1 42 41 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 1 1 18446744073709551615";
        assert_eq!(parse_stat(line), Some(Stat { state: 'S', session: 41, start_ticks: 777 }));
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn our_own_stat_can_be_read() {
        let own = stat(std::process::id()).unwrap();
        assert!(!matches!(own.state, 'Z' | 'X'), "{own:?}");
        assert!(own.start_ticks > 0);
    }
}
