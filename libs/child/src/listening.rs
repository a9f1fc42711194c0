//! Whose listening socket is that: a port that answers is no proof that our process is the one
//! behind it.

use std::collections::HashSet;
use std::fs;
use std::io;

use crate::procfs;

/// The process behind a listening port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Its command name.
    pub name: String,
}

/// Whether a TCP socket listening on `port` belongs to exactly this process. Blocking.
///
/// # Errors
/// The kernel's socket tables or the process's descriptors cannot be read.
pub fn listens_on(pid: u32, port: u16) -> io::Result<bool> {
    let sockets = listening_sockets(port)?;
    Ok(!sockets.is_empty() && holds_any(pid, &sockets)?)
}

/// The process that listens on a TCP port, when it can be seen. Blocking.
#[must_use]
pub fn holder_of_port(port: u16) -> Option<Holder> {
    let sockets = listening_sockets(port).ok()?;
    let pid = procfs::pids().ok()?.into_iter().find(|pid| holds_any(*pid, &sockets).unwrap_or(false))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned();
    Some(Holder { pid, name })
}

/// Inodes of all sockets that listen on `port`, on any address.
fn listening_sockets(port: u16) -> io::Result<HashSet<String>> {
    let mut inodes = parse_table(&fs::read_to_string("/proc/net/tcp")?, port);
    match fs::read_to_string("/proc/net/tcp6") {
        Ok(table) => inodes.extend(parse_table(&table, port)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {} // IPv6 is off
        Err(e) => return Err(e),
    }
    Ok(inodes)
}

fn parse_table(table: &str, port: u16) -> HashSet<String> {
    const LISTEN: &str = "0A";
    let listener = |line: &str| {
        // sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
        let matches = u16::from_str_radix(local_port, 16).ok()? == port && *fields.get(3)? == LISTEN;
        matches.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]"))).flatten()
    };
    table.lines().skip(1).filter_map(listener).collect()
}

fn holds_any(pid: u32, sockets: &HashSet<String>) -> io::Result<bool> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?;
    Ok(descriptors
        .filter_map(Result::ok)
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|target| target.to_str().is_some_and(|t| sockets.contains(t))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    #[test]
    fn a_listening_port_is_traced_to_its_process() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(listens_on(std::process::id(), port).unwrap());
        assert_eq!(holder_of_port(port).unwrap().pid, std::process::id());
    }

    #[test]
    fn a_connection_from_a_port_is_not_listening_on_it() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port = client.local_addr().unwrap().port();
        assert!(!listens_on(std::process::id(), port).unwrap());
        assert_eq!(holder_of_port(port), None);
    }
}
