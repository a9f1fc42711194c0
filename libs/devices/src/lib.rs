//! Which NVIDIA cards this machine has, and how much memory is free on them and on the host.
//!
//! A look never fails and never crashes: NVML where its library can be loaded, else `nvidia-smi`, else
//! no card. Decides nothing: what a pool may use is its user's to say and the placement's to judge.
//! Blocks for as long as a driver takes to wake up; call it off the async threads.
#![forbid(unsafe_code)]

mod choose;
mod host_memory;
mod in_time;
mod nvidia_smi;
mod nvml;
mod system;

pub use choose::{NoSuchCard, choose};
pub use host_memory::{HostMemory, ProcessMemory};
pub use system::{System, Way};
pub use wire::Device;

/// What to do where cards could not be listed.
pub const REPAIR: &str = "nvidia-smi, which comes with the driver, must list the cards when it is run by hand: \
                          install or repair it (after an update of the driver, a reboot helps; where it is only \
                          slow, `nvidia-smi -pm 1`)";

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inventory {
    /// No NVIDIA card, as far as can be seen.
    NoCard,
    /// `nvidia-smi` is there and failed, and no driver is loaded as far as can be seen: most often there is no
    /// card. What it said.
    ToolFailed(String),
    /// A driver is loaded, or hangs, and the cards could not be listed; the reason.
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
            Self::NoCard | Self::ToolFailed(_) | Self::DriverOnly(_) => &[],
        }
    }

    /// Why cards that may be there could not be listed, and what to do.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        match self {
            Self::ToolFailed(problem) | Self::DriverOnly(problem) => Some(format!("{problem}; {REPAIR}")),
            Self::NoCard | Self::Cards(_) => None,
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
