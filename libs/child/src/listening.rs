//! Whose listening socket is that: a port that answers is no proof that our process is the one
//! behind it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};

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
    for table in TABLES {
        let sockets = listening_sockets(table, port)?;
        if !sockets.is_empty() && holds_any(pid, &sockets)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The process that listens on a TCP port, when it can be seen. Blocking.
#[must_use]
pub fn holder_of_port(port: u16) -> Option<Holder> {
    let mut sockets = HashSet::new();
    for table in TABLES {
        sockets.extend(listening_sockets(table, port).ok()?);
    }
    let pid = procfs::pids().ok()?.into_iter().find(|pid| holds_any(*pid, &sockets).unwrap_or(false))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned();
    Some(Holder { pid, name })
}

/// The one that engines are in comes first.
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// Each read of a table walks all of the kernel's buckets, which takes 2 ms even when they are empty,
/// so there should be few of them.
const READ_BYTES: usize = 64 * 1024;

/// Inodes of all sockets that listen on `port`, on any address of the table's family.
fn listening_sockets(table: &str, port: u16) -> io::Result<HashSet<String>> {
    let file = match File::open(table) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(HashSet::new()), // IPv6 is off
        Err(e) => return Err(e),
    };
    let mut found = HashSet::new();
    for line in BufReader::with_capacity(READ_BYTES, file).lines().skip(1) {
        match entry(&line?) {
            // Listening sockets stand before all others.
            Some(socket) if !socket.listens => break,
            Some(socket) if socket.port == port => _ = found.insert(socket.descriptor),
            _ => {}
        }
    }
    Ok(found)
}

struct Socket {
    listens: bool,
    port: u16,
    /// What a link in `/proc/<pid>/fd` to it says.
    descriptor: String,
}

fn entry(line: &str) -> Option<Socket> {
    const LISTEN: &str = "0A";
    // sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (_, port) = fields.get(1)?.rsplit_once(':')?;
    Some(Socket {
        listens: *fields.get(3)? == LISTEN,
        port: u16::from_str_radix(port, 16).ok()?,
        descriptor: format!("socket:[{}]", fields.get(9)?),
    })
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
