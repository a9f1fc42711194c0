//! What a pool's GPU policy makes of the cards there are. A silent CPU build on a machine with a card is
//! the worst outcome, so `auto` refuses it. Finding the cards is the crate `devices`' work.

use std::path::PathBuf;

use devices::{Inventory, REPAIR, choose};
use wire::config::{Devices, GpuPolicy};

use crate::cuda::NoCompiler;

/// What the engine is built for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Cpu,
    Cuda {
        nvcc: PathBuf,
        architectures: Vec<String>,
        device_mask: String,
        /// As the cards tell it; in WSL and some containers the kernel does not.
        driver: Option<String>,
    },
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
    inventory: &Inventory,
    nvcc: Result<PathBuf, NoCompiler>,
) -> Result<Decision, Refusal> {
    let cpu = |notice: Option<String>| Ok(Decision { target: Target::Cpu, notice });
    let refuse = |problem: String, remedy: &str| Err(Refusal { problem, remedy: remedy.to_owned() });
    let cards = match (policy, inventory) {
        (GpuPolicy::Off, _) => return cpu(None),
        (GpuPolicy::Auto, Inventory::NoCard) if *devices == Devices::default() => {
            return cpu(Some("no NVIDIA card found: the engine runs on the CPU".to_owned()));
        }
        (_, Inventory::NoCard) => {
            return refuse(
                "a GPU is asked for (`provisioning.gpu: required` or `devices`), and no NVIDIA card was found".to_owned(),
                "install the driver, or set `provisioning.gpu: off` and remove `devices`",
            );
        }
        (GpuPolicy::Auto, Inventory::ToolFailed(problem)) if *devices == Devices::default() => {
            let notice = "no NVIDIA card found: the engine runs on the CPU";
            return cpu(Some(format!("{notice}; {problem}; where there is a card after all, {REPAIR}")));
        }
        (_, Inventory::ToolFailed(problem) | Inventory::DriverOnly(problem)) => {
            return refuse(
                format!("the NVIDIA cards could not be listed: {problem}"),
                &format!("{REPAIR}, or set `provisioning.gpu: off` and remove `devices`"),
            );
        }
        (_, Inventory::Cards(cards)) => cards,
    };
    let chosen = choose(devices, cards)
        .map_err(|missing| Refusal { problem: missing.to_string(), remedy: missing.remedy() })?;
    let nvcc = match nvcc {
        Ok(nvcc) => nvcc,
        Err(none) => {
            let names: Vec<_> = chosen.iter().map(|card| card.name.as_str()).collect();
            let problem =
                format!("there is a card ({}) but no CUDA compiler (nvcc) to build for it", names.join(", "));
            return refuse(format!("{problem}{none}"), TOOLKIT);
        }
    };
    let driver = chosen.iter().find_map(|card| card.driver.clone());
    let mut architectures: Vec<String> =
        chosen.iter().map(|card| card.compute_capability.replace('.', "")).collect();
    architectures.sort();
    architectures.dedup();
    // Built for every card that `auto` may choose another time; started on the one with the most room.
    let used = if *devices == Devices::default() { 1 } else { chosen.len() };
    let device_mask = chosen.iter().take(used).map(|card| card.uuid.as_str()).collect::<Vec<_>>().join(",");
    Ok(Decision { target: Target::Cuda { nvcc, architectures, device_mask, driver }, notice: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(index: u32, compute: &str, free: u64) -> wire::Device {
        wire::Device {
            index,
            uuid: format!("GPU-{index}"),
            name: format!("NVIDIA Card {index}"),
            vram_total_bytes: 24576,
            vram_free_bytes: free,
            compute_capability: compute.to_owned(),
            driver: None,
            utilisation_percent: None,
            users: Vec::new(),
        }
    }

    fn nvcc() -> Result<PathBuf, NoCompiler> {
        Ok("/usr/bin/nvcc".into())
    }

    fn none() -> Result<PathBuf, NoCompiler> {
        Err(NoCompiler::Absent)
    }

    #[test]
    fn required_without_a_card_is_refused_and_auto_becomes_cpu_with_a_notice() {
        let no_card = Inventory::NoCard;
        let auto = Devices::default();
        assert!(decide(GpuPolicy::Required, &auto, &no_card, nvcc()).is_err());
        let decision = decide(GpuPolicy::Auto, &auto, &no_card, none()).unwrap();
        assert_eq!(decision.target, Target::Cpu);
        assert!(decision.notice.unwrap().contains("no NVIDIA card"));
        assert!(decide(GpuPolicy::Auto, &Devices::Indices(vec![0]), &no_card, none()).is_err());
    }

    /// EPROV-005, POOLD-DEVICE-001
    #[test]
    fn what_nvidia_smi_said_when_it_failed_is_in_the_notice_and_in_the_refusal() {
        let failed = Inventory::ToolFailed("nvidia-smi said: no".to_owned());
        let decision = decide(GpuPolicy::Auto, &Devices::default(), &failed, none()).unwrap();
        assert_eq!(decision.target, Target::Cpu);
        let notice = decision.notice.unwrap();
        assert!(notice.contains("runs on the CPU") && notice.contains("nvidia-smi said: no"), "{notice}");
        assert!(notice.contains("repair it"), "{notice}");
        let hung = Inventory::DriverOnly("nvidia-smi did not answer in 5 s".to_owned());
        let (auto, first) = (Devices::default(), Devices::Indices(vec![0]));
        for (policy, devices, inventory, said) in [
            (GpuPolicy::Required, &auto, &failed, "nvidia-smi said: no"),
            (GpuPolicy::Auto, &first, &failed, "nvidia-smi said: no"),
            (GpuPolicy::Auto, &auto, &hung, "nvidia-smi did not answer in 5 s"),
        ] {
            let refusal = decide(policy, devices, inventory, nvcc()).unwrap_err();
            assert!(refusal.problem.ends_with(said), "{refusal:?}");
            assert!(
                refusal.remedy.contains("repair it") && refusal.remedy.contains("gpu: off"),
                "{refusal:?}"
            );
        }
    }

    /// EPROV-005
    #[test]
    fn a_card_without_a_compiler_is_never_a_silent_cpu_build() {
        for inventory in [Inventory::Cards(vec![card(0, "8.6", 1)]), Inventory::DriverOnly("broken".into())] {
            for policy in [GpuPolicy::Auto, GpuPolicy::Required] {
                let refusal = decide(policy, &Devices::default(), &inventory, none()).unwrap_err();
                assert!(refusal.remedy.contains("gpu: off"), "{refusal:?}");
            }
            let off = decide(GpuPolicy::Off, &Devices::default(), &inventory, none()).unwrap();
            assert_eq!(off, Decision { target: Target::Cpu, notice: None });
        }
    }

    #[test]
    fn auto_builds_for_every_card_and_starts_on_the_one_with_the_most_free_memory() {
        let cards = Inventory::Cards(vec![card(0, "8.6", 100), card(1, "8.9", 900)]);
        let decision = decide(GpuPolicy::Auto, &Devices::default(), &cards, nvcc()).unwrap();
        let Target::Cuda { architectures, device_mask, .. } = decision.target else { panic!("cpu") };
        let every = vec!["86".to_owned(), "89".to_owned()];
        assert_eq!((architectures, device_mask.as_str()), (every, "GPU-1"));
        let one = decide(GpuPolicy::Auto, &Devices::Indices(vec![1]), &cards, nvcc()).unwrap();
        let Target::Cuda { architectures, .. } = one.target else { panic!("cpu") };
        assert_eq!(architectures, ["89"]);
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
