//! Which NVIDIA cards this machine has, and how much memory is free on them and on the host.
//!
//! A look never fails and never crashes: NVML where its library can be loaded, else `nvidia-smi`, else
//! no card. Decides nothing: what a pool may use is its user's to say and the placement's to judge.
//! Blocks for as long as a driver takes to wake up; call it off the async threads.
#![forbid(unsafe_code)]

mod choose;
mod host_memory;
mod nvidia_smi;
mod nvml;
mod system;

pub use choose::{NoSuchCard, choose};
pub use host_memory::{HostMemory, ProcessMemory};
pub use system::{System, Way};
pub use wire::Device;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inventory {
    /// No NVIDIA card, as far as can be seen.
    NoCard,
    /// A driver is loaded, but the cards could not be listed; the reason.
    DriverOnly(String),
    /// These cards, by index; at least one.
    Cards(Vec<Device>),
}

impl Inventory {
    /// The cards, if any.
    #[must_use]
    pub fn cards(&self) -> &[Device] {
        match self {
            Self::Cards(cards) => cards,
            Self::NoCard | Self::DriverOnly(_) => &[],
        }
    }
}

/// Looks for cards. Its second implementation is a test's.
pub trait Discover: Send + Sync {
    /// What there is now. Blocking; returns soon after `stop` begins to say true.
    fn look(&self, stop: &dyn Fn() -> bool) -> Inventory;
}

impl<F: Fn() -> Inventory + Send + Sync> Discover for F {
    fn look(&self, _stop: &dyn Fn() -> bool) -> Inventory {
        self()
    }
}
