//! Where engines that others run may be.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Engines that others run and register.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WorkersConfig {
    /// Networks beside loopback that such an engine may be in, as `10.1.0.0/16`. What is asked of it
    /// and what it answers goes there as plain HTTP.
    pub networks: Vec<Network>,
}

/// An address and how many of its first bits count, as `10.1.0.0/16` or `fd00::/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Why a text names no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("network {given:?} is not valid: {rule}")]
pub struct NetworkError {
    given: String,
    rule: &'static str,
}

impl Network {
    /// Whether an address is in it. An IPv4 address written as IPv6 is in no network.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                same(net.to_bits().into(), ip.to_bits().into(), self.bits, 32)
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => same(net.to_bits(), ip.to_bits(), self.bits, 128),
            _ => false,
        }
    }
}

/// Whether the first `bits` of two addresses of `width` bits are the same.
fn same(one: u128, other: u128, bits: u8, width: u8) -> bool {
    one >> (width - bits) == other >> (width - bits)
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(given: &str) -> Result<Self, NetworkError> {
        parse(given).map_err(|rule| NetworkError { given: given.chars().take(64).collect(), rule })
    }
}

fn parse(given: &str) -> Result<Network, &'static str> {
    const SHAPE: &str = "write it as ADDRESS/BITS, as 10.1.0.0/16";
    let (address, bits) = given.split_once('/').ok_or(SHAPE)?;
    let address: IpAddr = address.parse().map_err(|_| SHAPE)?;
    let bits: u8 = bits.parse().map_err(|_| SHAPE)?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    if bits == 0 {
        return Err("it would allow every address");
    }
    if bits > width {
        return Err("it has more bits than its address");
    }
    let rest = match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    // Most often a slip of the pen in one of the two halves.
    if rest.trailing_zeros() < u32::from(width - bits) && rest != 0 {
        return Err("its address has bits beyond those that count");
    }
    Ok(Network { address, bits })
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;
    fn try_from(given: String) -> Result<Self, NetworkError> {
        given.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        for (network, inside, outside) in [
            ("10.1.0.0/16", "10.1.255.3", "10.2.0.0"),
            ("192.168.7.9/32", "192.168.7.9", "192.168.7.8"),
            ("10.0.0.0/9", "10.127.0.1", "10.128.0.1"),
            ("fd00::/8", "fd12::1", "fe80::1"),
            ("10.1.0.0/16", "10.1.0.0", "::ffff:10.1.0.1"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{network} {inside}");
            assert!(!network.contains(outside.parse().unwrap()), "{network} {outside}");
        }
    }

    #[test]
    fn a_network_that_is_a_slip_of_the_pen_is_refused() {
        for bad in ["10.1.0.0", "10.1.0.0/33", "0.0.0.0/0", "10.1.0.1/16", "host/8", "10.1.0.0/-1", "::/129"]
        {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
