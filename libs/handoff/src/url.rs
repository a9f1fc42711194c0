//! The only kind of address an engine may be claimed at: plain HTTP on this machine, or, where it was
//! registered, in a network that the configuration names. Parsed by hand on purpose: a general URL
//! parser repairs what should be refused.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use wire::config::Network;

/// `http://<literal address>:<port>`, nothing else; the address is loopback or of a given network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EngineUrl(SocketAddr);

/// Why a URL is not an engine's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "engine url {url:?} {why}; write it as http://127.0.0.1:PORT or http://[::1]:PORT, with nothing after the port"
)]
pub struct EngineUrlError {
    url: String,
    why: &'static str,
}

/// No valid URL is longer, and an error must not carry 64 KiB of someone's file into a log.
const MAX_LEN: usize = 64;

impl EngineUrl {
    /// Validates `url`; the error says what is wrong with it.
    pub fn try_new(url: &str) -> Result<Self, EngineUrlError> {
        Self::within(url, &[])
    }

    /// As [`Self::try_new`], and addresses of these networks are allowed, too.
    pub fn within(url: &str, networks: &[Network]) -> Result<Self, EngineUrlError> {
        parse(url, networks)
            .map(Self)
            .map_err(|why| EngineUrlError { url: url.chars().take(MAX_LEN).collect(), why })
    }

    /// The address to connect to.
    #[must_use]
    pub fn addr(self) -> SocketAddr {
        self.0
    }
}

impl fmt::Display for EngineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

impl FromStr for EngineUrl {
    type Err = EngineUrlError;
    fn from_str(url: &str) -> Result<Self, EngineUrlError> {
        Self::try_new(url)
    }
}

fn parse(url: &str, networks: &[Network]) -> Result<SocketAddr, &'static str> {
    if url.len() > MAX_LEN {
        return Err("is too long");
    }
    let rest = url.strip_prefix("http://").ok_or("is not plain http")?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err("has a path, query or fragment");
    }
    if authority.contains('@') {
        return Err("carries user information");
    }
    let addr: SocketAddr = authority.parse().map_err(|_| "is not a literal address with an explicit port")?;
    let allowed = addr.ip().is_loopback() || networks.iter().any(|network| network.contains(addr.ip()));
    if !allowed {
        return Err(if networks.is_empty() {
            "is not a loopback address"
        } else {
            "is neither a loopback address nor in a network that the configuration allows"
        });
    }
    if matches!(addr, SocketAddr::V6(v6) if v6.scope_id() != 0) {
        return Err("has an address scope");
    }
    if addr.port() == 0 {
        return Err("has port 0");
    }
    Ok(addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_address_with_a_port_is_accepted() {
        for (given, shown) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("http://127.9.8.7:1", "http://127.9.8.7:1"),
            ("http://[::1]:65535", "http://[::1]:65535"),
        ] {
            assert_eq!(EngineUrl::try_new(given).unwrap().to_string(), shown);
        }
    }

    /// HANDOFF-003
    #[test]
    fn every_other_url_is_refused() {
        for bad in [
            "",
            "127.0.0.1:80",
            "https://127.0.0.1:80",
            "HTTP://127.0.0.1:80",
            "file:///etc/passwd",
            "http://127.0.0.1",
            "http://127.0.0.1:0",
            "http://127.0.0.1:99999",
            "http://127.0.0.1:+80",
            "http://127.0.0.1:80//",
            "http://127.0.0.1:80/admin",
            "http://127.0.0.1:80?x=1",
            "http://127.0.0.1:80#x",
            "http://127.0.0.1:80@10.0.0.1:80",
            "http://user:pass@127.0.0.1:80",
            "http://10.0.0.1:80",
            "http://169.254.169.254:80",
            "http://0.0.0.0:80",
            "http://localhost:80",
            "http://127.0.0.1.evil.example:80",
            "http://127.1:80",
            "http://0177.0.0.1:80",
            "http://2130706433:80",
            "http://[::]:80",
            "http://[::ffff:127.0.0.1]:80",
            "http://[::1%1]:80",
            "http://[::1]",
            "http://127.0.0.1:80\r\nX: y",
            " http://127.0.0.1:80",
            "http://127.0.0.1:80 ",
            "http://127.0.0.1\u{ff0e}1:80",
            "http:\\\\127.0.0.1:80",
        ] {
            assert!(EngineUrl::try_new(bad).is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn an_address_of_an_allowed_network_is_accepted_and_no_other() {
        let networks = ["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()];
        for good in ["http://10.1.2.3:8080", "http://[fd00::1]:8080", "http://127.0.0.1:8080"] {
            assert!(EngineUrl::within(good, &networks).is_ok(), "{good}");
        }
        for bad in
            ["http://10.2.0.1:8080", "http://10.1.2.3", "https://10.1.2.3:1", "http://[::ffff:10.1.2.3]:1"]
        {
            assert!(EngineUrl::within(bad, &networks).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_huge_url_does_not_reach_the_error_text() {
        let error = EngineUrl::try_new(&"x".repeat(60_000)).unwrap_err().to_string();
        assert!(error.len() < 300, "{}", error.len());
    }
}
