//! This machine: NVML, else `nvidia-smi`, else the sign that a driver is there.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::in_time::{InTime, NoAnswer};
use crate::nvidia_smi::{NvidiaSmi, Silence};
use crate::{Device, Discover, Inventory, nvml};

const DRIVER: &str = "/proc/driver/nvidia/version";
/// A driver wakes its cards up one after the other, and the library waits for all of them.
const LIBRARY_PATIENCE: Duration = Duration::from_secs(20);

/// Which ways of looking are tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Way {
    /// NVML, else `nvidia-smi`.
    #[default]
    Auto,
    /// `nvidia-smi` only, for a machine whose NVML misbehaves.
    NvidiaSmi,
    /// No look at all: there is no card.
    None,
}

impl Way {
    /// What `LLAMA_ORCH_DEVICES` says: `auto`, `nvidia-smi` or `none`; anything else is `auto`.
    #[must_use]
    pub fn from_variable(value: Option<&OsStr>) -> Self {
        match value.and_then(OsStr::to_str) {
            Some("nvidia-smi") => Self::NvidiaSmi,
            Some("none") => Self::None,
            _ => Self::Auto,
        }
    }
}

/// This machine's cards. Clones know of each other when the driver hangs: give one to whoever looks in the same
/// process.
#[derive(Debug, Clone)]
pub struct System {
    way: Way,
    path: String,
    library: InTime<Result<Vec<Device>, String>>,
    tool: NvidiaSmi,
}

impl System {
    /// Looks for `nvidia-smi` on `path`, the value of `PATH`.
    #[must_use]
    pub fn new(path: Option<&OsStr>, way: Way) -> Self {
        let path = path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        Self { way, path, library: InTime::new(LIBRARY_PATIENCE), tool: NvidiaSmi::default() }
    }

    /// Waits for `nvidia-smi` so long; by default 5 s.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.tool = NvidiaSmi::with_patience(patience);
        self
    }

    fn nvidia_smi(&self) -> Option<PathBuf> {
        let executable = |path: &PathBuf| {
            path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        };
        std::env::split_paths(&self.path)
            .filter(|dir| dir.is_absolute())
            .map(|dir| dir.join("nvidia-smi"))
            .find(executable)
    }
}

impl Discover for System {
    fn look(&self, stop: &dyn Fn() -> bool) -> Inventory {
        let library = match self.way {
            Way::None => return Inventory::NoCard,
            Way::NvidiaSmi => "its NVML library was not to be asked".to_owned(),
            Way::Auto => match self.library.ask(|| nvml::cards().map_err(|e| e.to_string()), stop) {
                Ok(Ok(cards)) if !cards.is_empty() => return Inventory::Cards(cards),
                // No card, no library or a library that does not fit the driver: the tool may know more.
                Ok(Ok(_)) => "its NVML library knows of no card".to_owned(),
                Ok(Err(problem)) => format!("its NVML library does not help ({problem})"),
                Err(NoAnswer::Failed) => "its NVML library does not help (asking it failed)".to_owned(),
                Err(NoAnswer::Stopped) => return Inventory::NoCard,
                // The tool asks the same driver.
                Err(NoAnswer::Late) => {
                    let seconds = self.library.patience().as_secs_f32();
                    let problem = format!("the driver's NVML library did not answer in {seconds} s");
                    return Inventory::DriverOnly(problem);
                }
            },
        };
        let driver = Path::new(DRIVER).exists();
        let Some(program) = self.nvidia_smi() else {
            let problem =
                || format!("the NVIDIA driver is loaded, but {library}, and nvidia-smi is not on the PATH");
            return if driver { Inventory::DriverOnly(problem()) } else { Inventory::NoCard };
        };
        match self.tool.cards(&program, &self.path, stop) {
            Ok(cards) if cards.is_empty() => Inventory::NoCard,
            Ok(cards) => Inventory::Cards(cards),
            Err(Silence::Stopped) => Inventory::NoCard,
            // It waits for a driver, whether that shows or not.
            Err(Silence::Hung(problem)) => Inventory::DriverOnly(problem),
            Err(Silence::Failed(problem)) if driver => Inventory::DriverOnly(problem),
            // The tool without a driver: a machine whose card is gone or was never there.
            Err(Silence::Failed(problem)) => Inventory::ToolFailed(problem),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Instant;
    use wire::DeviceUser;

    fn tool(dir: &Path, script: &str) -> System {
        // Another process writes it: of a descriptor of ours, a child that another test starts now would
        // have a copy, and what is open for writing cannot be executed.
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$2\"; chmod 755 \"$2\"";
        let name = dir.join("nvidia-smi");
        let written = Command::new("/bin/sh").args(["-c", write, "sh", script]).arg(&name).status().unwrap();
        assert!(written.success(), "{written}");
        let path = format!("{}:/usr/bin:/bin", dir.display());
        // A machine that has much to do may be slow to start it.
        System::new(Some(path.as_ref()), Way::NvidiaSmi).with_patience(Duration::from_secs(500))
    }

    /// POOLD-DEVICE-001
    #[test]
    fn nvidia_smi_is_believed_line_by_line_and_gets_no_environment_of_ours() {
        let dir = tempfile::tempdir().unwrap();
        let system = tool(
            dir.path(),
            "[ -z \"$HOME$CARGO_MANIFEST_DIR\" ] || exit 9\n\
             case \"$1\" in *compute-apps*) echo 'GPU-b, 77, 300'; echo 'GPU-c, 78, 1'; exit;; esac\n\
             echo '0, GPU-a, Card A, 8.6, 24576, 24000, 550.1, 0'\necho rubbish\n\
             echo '1, GPU-b, Card B, 8.9, 12288, 12000, 550.1, 7'",
        );
        let Inventory::Cards(cards) = system.look(&|| false) else { panic!("no cards") };
        let seen: Vec<_> = cards.iter().map(|card| (card.index, card.uuid.as_str())).collect();
        assert_eq!(seen, [(0, "GPU-a"), (1, "GPU-b")]);
        let user = DeviceUser { pid: Some(77), used_bytes: Some(300 << 20), ..DeviceUser::default() };
        assert_eq!(
            (cards[0].users.as_slice(), cards[1].users.as_slice()),
            ([].as_slice(), [user].as_slice())
        );
    }

    /// POOLD-DEVICE-001
    #[test]
    fn a_tool_that_fails_finds_nothing_or_hangs_is_no_card_and_no_crash() {
        let dir = tempfile::tempdir().unwrap();
        for script in ["exit 9", "echo 'No devices were found'", "kill -SEGV $$", "printf '\\377\\376'"] {
            let found = tool(dir.path(), script).look(&|| false);
            assert!(found.cards().is_empty(), "{script}: {found:?}");
        }
        let begun = Instant::now();
        let hangs = tool(dir.path(), "sleep 600");
        let stopped = || begun.elapsed() > Duration::from_millis(200);
        assert_eq!(hangs.look(&stopped), Inventory::NoCard);
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        assert_eq!(System::new(None, Way::None).look(&|| false), Inventory::NoCard);
    }

    /// POOLD-DEVICE-001
    #[test]
    fn a_tool_that_fails_is_quoted_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let look = |script: &str| tool(dir.path(), script).look(&|| false).problem().unwrap_or_default();
        let name = dir.path().join("nvidia-smi");
        let failed = look("echo could not talk to the driver; echo more; exit 9");
        let words =
            format!("{} ended with exit status: 9 and said: could not talk to the driver; ", name.display());
        assert!(failed.starts_with(&words) && failed.contains("repair it"), "{failed}");
        let failed = look("echo on stdout; echo 'version mismatch' >&2; exit 18");
        assert!(failed.contains("exit status: 18 and said: version mismatch; "), "{failed}");
        assert!(look("kill -SEGV $$").contains("signal: 11"));
        assert_eq!(look("echo 'No devices were found'"), "");
    }

    /// POOLD-DEVICE-001
    #[test]
    fn a_tool_that_hangs_is_waited_for_once_and_never_taken_for_no_card() {
        let dir = tempfile::tempdir().unwrap();
        let script = format!("echo asked >> {}/asked; sleep 600", dir.path().display());
        let hangs = tool(dir.path(), &script).with_patience(Duration::from_secs(2));
        for (system, words) in
            [(&hangs, ""), (&hangs.clone(), " and is asked again in 10 min"), (&hangs, " min")]
        {
            let Inventory::DriverOnly(problem) = system.look(&|| false) else { panic!("taken for no card") };
            assert!(
                problem.contains("nvidia-smi did not answer in 2 s") && problem.ends_with(words),
                "{problem}"
            );
        }
        let asked = std::fs::read_to_string(dir.path().join("asked")).unwrap_or_default();
        assert!(asked.lines().count() <= 1, "each question costs the wait again");
    }

    /// POOLD-DEVICE-001
    #[test]
    fn this_machine_can_be_looked_at_whatever_it_has() {
        let found = System::new(Some("/usr/bin:/bin".as_ref()), Way::Auto).look(&|| false);
        for card in found.cards() {
            assert!(card.vram_total_bytes >= card.vram_free_bytes, "{card:?}");
        }
        assert_eq!(Way::from_variable(Some("none".as_ref())), Way::None);
        assert_eq!(Way::from_variable(None), Way::Auto);
    }
}
