//! Which NVIDIA cards there are, and what a pool's GPU policy makes of that. A silent CPU build on a
//! machine with a card is the worst outcome, so `auto` refuses it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use provisioners_model_provisioner::Cancel;
use wire::config::{Devices, GpuPolicy};

use crate::helper::{Helper, Tool};
use crate::host::Host;

/// One card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// As `nvidia-smi` counts.
    pub index: u32,
    /// `GPU-…`.
    pub uuid: String,
    /// Name, for people.
    pub name: String,
    /// Compute capability, as `8.6`.
    pub compute_capability: String,
    /// Memory in all, MiB.
    pub memory_total_mib: u64,
    /// Memory free, MiB.
    pub memory_free_mib: u64,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpuInventory {
    /// No NVIDIA card, as far as can be seen.
    NoCard,
    /// A driver is loaded, but the cards could not be listed.
    DriverOnly(String),
    /// These cards; at least one.
    Cards(Vec<Gpu>),
}

/// Lists cards. Its second implementation is a test's.
pub trait GpuProbe: Send + Sync {
    /// What there is now.
    fn inventory(&self, host: &Host, cancel: &Cancel) -> GpuInventory;
}

/// Asks `nvidia-smi`, else looks for the driver.
#[derive(Debug, Clone, Copy, Default)]
pub struct NvidiaSmi;

const QUERY: &str = "--query-gpu=index,uuid,name,compute_cap,memory.total,memory.free";
const DRIVER: &str = "/proc/driver/nvidia/version";

impl GpuProbe for NvidiaSmi {
    fn inventory(&self, host: &Host, cancel: &Cancel) -> GpuInventory {
        let driver = Path::new(DRIVER).exists();
        let Some(program) = host.find("nvidia-smi") else {
            let problem = "the NVIDIA driver is loaded but nvidia-smi is not installed".to_owned();
            return if driver { GpuInventory::DriverOnly(problem) } else { GpuInventory::NoCard };
        };
        let helper = Helper::new(host, Tool::NvidiaSmi, program, cancel)
            .args([QUERY, "--format=csv,noheader,nounits"])
            .limit(Duration::from_secs(20));
        match helper.run(&mut |_| ()) {
            Ok(lines) => match lines.iter().filter_map(|line| parse_card(line)).collect::<Vec<_>>() {
                cards if cards.is_empty() => GpuInventory::NoCard,
                cards => GpuInventory::Cards(cards),
            },
            Err(error) if driver => GpuInventory::DriverOnly(error.to_string()),
            // The tool without a driver: a machine whose card is gone or was never there.
            Err(_) => GpuInventory::NoCard,
        }
    }
}

fn parse_card(line: &str) -> Option<Gpu> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let [index, uuid, name, compute, total, free] = fields[..] else { return None };
    let numeric =
        |text: &str| text.split('.').count() == 2 && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (uuid.starts_with("GPU-") && numeric(compute)).then_some(())?;
    Some(Gpu {
        index: index.parse().ok()?,
        uuid: uuid.to_owned(),
        name: name.to_owned(),
        compute_capability: compute.to_owned(),
        memory_total_mib: total.parse().ok()?,
        memory_free_mib: free.parse().ok()?,
    })
}

/// What the engine is built for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Cpu,
    Cuda { nvcc: PathBuf, architectures: Vec<String>, device_mask: String },
}

/// A target, and what a person should know about the choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) target: Target,
    pub(crate) notice: Option<String>,
}

/// What is missing, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) problem: String,
    pub(crate) remedy: String,
}

const TOOLKIT: &str = "set `provisioning.toolkit: managed` (driver 580 or newer), install the CUDA toolkit so that nvcc is \
                       on the PATH (or set CUDA_PATH), or consent to a CPU build with `provisioning.gpu: off`";

/// Decides for one pool. Pure.
pub(crate) fn decide(
    policy: GpuPolicy,
    devices: &Devices,
    inventory: &GpuInventory,
    nvcc: Option<PathBuf>,
) -> Result<Decision, Refusal> {
    let cpu = |notice: Option<String>| Ok(Decision { target: Target::Cpu, notice });
    let refuse = |problem: String, remedy: &str| Err(Refusal { problem, remedy: remedy.to_owned() });
    let cards = match (policy, inventory) {
        (GpuPolicy::Off, _) => return cpu(None),
        (GpuPolicy::Auto, GpuInventory::NoCard) if *devices == Devices::default() => {
            return cpu(Some("no NVIDIA card found: the engine runs on the CPU".to_owned()));
        }
        (_, GpuInventory::NoCard) => {
            return refuse(
                "a GPU is asked for (`provisioning.gpu: required` or `devices`), and no NVIDIA card was found".to_owned(),
                "install the driver, or set `provisioning.gpu: off` and remove `devices`",
            );
        }
        (_, GpuInventory::DriverOnly(problem)) => {
            return refuse(
                format!("the NVIDIA cards could not be listed: {problem}"),
                "install or repair nvidia-smi (it comes with the driver), or set `provisioning.gpu: off`",
            );
        }
        (_, GpuInventory::Cards(cards)) => cards,
    };
    let chosen = choose(devices, cards)?;
    let Some(nvcc) = nvcc else {
        let names: Vec<_> = chosen.iter().map(|card| card.name.as_str()).collect();
        return refuse(
            format!("there is a card ({}) but no CUDA compiler (nvcc) to build for it", names.join(", ")),
            TOOLKIT,
        );
    };
    let mut architectures: Vec<String> =
        chosen.iter().map(|card| card.compute_capability.replace('.', "")).collect();
    architectures.sort();
    architectures.dedup();
    let device_mask = chosen.iter().map(|card| card.uuid.as_str()).collect::<Vec<_>>().join(",");
    Ok(Decision { target: Target::Cuda { nvcc, architectures, device_mask }, notice: None })
}

fn choose<'a>(devices: &Devices, cards: &'a [Gpu]) -> Result<Vec<&'a Gpu>, Refusal> {
    let known: Vec<String> =
        cards.iter().map(|card| format!("{} ({}, {})", card.index, card.name, card.uuid)).collect();
    let missing = |what: String| Refusal {
        problem: format!("`devices` names {what}, which this machine does not have"),
        remedy: format!("choose from: {}", known.join("; ")),
    };
    match devices {
        Devices::Auto(_) => Ok(cards.iter().max_by_key(|card| card.memory_free_mib).into_iter().collect()),
        Devices::Indices(indices) => {
            let find =
                |i: &u32| cards.iter().find(|c| c.index == *i).ok_or_else(|| missing(format!("card {i}")));
            indices.iter().map(find).collect()
        }
        Devices::Uuids(uuids) => {
            let find =
                |u: &String| cards.iter().find(|c| c.uuid == *u).ok_or_else(|| missing(format!("card {u}")));
            uuids.iter().map(find).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(index: u32, compute: &str, free: u64) -> Gpu {
        let line = format!("{index}, GPU-{index}, NVIDIA Card {index}, {compute}, 24576, {free}");
        parse_card(&line).unwrap()
    }

    fn nvcc() -> Option<PathBuf> {
        Some("/usr/bin/nvcc".into())
    }

    #[test]
    fn required_without_a_card_is_refused_and_auto_becomes_cpu_with_a_notice() {
        let none = GpuInventory::NoCard;
        let auto = Devices::default();
        assert!(decide(GpuPolicy::Required, &auto, &none, nvcc()).is_err());
        let decision = decide(GpuPolicy::Auto, &auto, &none, None).unwrap();
        assert_eq!(decision.target, Target::Cpu);
        assert!(decision.notice.unwrap().contains("no NVIDIA card"));
        assert!(decide(GpuPolicy::Auto, &Devices::Indices(vec![0]), &none, None).is_err());
    }

    /// EPROV-005
    #[test]
    fn a_card_without_a_compiler_is_never_a_silent_cpu_build() {
        for inventory in
            [GpuInventory::Cards(vec![card(0, "8.6", 1)]), GpuInventory::DriverOnly("broken".into())]
        {
            for policy in [GpuPolicy::Auto, GpuPolicy::Required] {
                let refusal = decide(policy, &Devices::default(), &inventory, None).unwrap_err();
                assert!(refusal.remedy.contains("gpu: off"), "{refusal:?}");
            }
            let off = decide(GpuPolicy::Off, &Devices::default(), &inventory, None).unwrap();
            assert_eq!(off, Decision { target: Target::Cpu, notice: None });
        }
    }

    #[test]
    fn auto_takes_the_card_with_the_most_free_memory_and_its_architecture() {
        let cards = GpuInventory::Cards(vec![card(0, "8.6", 100), card(1, "8.9", 900)]);
        let decision = decide(GpuPolicy::Auto, &Devices::default(), &cards, nvcc()).unwrap();
        let Target::Cuda { architectures, device_mask, .. } = decision.target else { panic!("cpu") };
        assert_eq!((architectures, device_mask), (vec!["89".to_owned()], "GPU-1".to_owned()));
        let both = decide(GpuPolicy::Required, &Devices::Indices(vec![1, 0]), &cards, nvcc()).unwrap();
        let Target::Cuda { architectures, device_mask, .. } = both.target else { panic!("cpu") };
        assert_eq!(
            (architectures, device_mask.as_str()),
            (vec!["86".to_owned(), "89".to_owned()], "GPU-1,GPU-0")
        );
        let refusal = decide(GpuPolicy::Auto, &Devices::Indices(vec![7]), &cards, nvcc()).unwrap_err();
        assert!(refusal.problem.contains("card 7") && refusal.remedy.contains("GPU-0"), "{refusal:?}");
    }
}
