//! `nvidia-smi`, where NVML's library cannot be loaded: run with a cleared environment, a limit on its
//! time and output, and read line by line. Once for the cards and once for who has memory of them. Where it
//! fails, its own words are what a person needs; where it hangs, nobody waits for it again and again.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wire::{Device, DeviceUser};

const QUERY: &str =
    "--query-gpu=index,uuid,name,compute_cap,memory.total,memory.free,driver_version,utilization.gpu";
const USERS: &str = "--query-compute-apps=gpu_uuid,pid,used_memory";
/// Without the persistence daemon the driver takes seconds to wake up.
const PATIENCE: Duration = Duration::from_secs(5);
/// One that did not answer is not asked again for so long: a driver that hangs stays so until somebody repairs it.
const SPARED: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(10);
/// Sixteen cards make some 2 KiB.
const MAX_OUTPUT: u64 = 64 * 1024;
/// Of what it says when it fails.
const MAX_WORDS: usize = 200;
const MIB: u64 = 1024 * 1024;

/// The tool, and which of its answers nobody waits for any more. All clones remember the same.
#[derive(Debug, Clone)]
pub(crate) struct NvidiaSmi {
    patience: Duration,
    hung: Arc<Mutex<BTreeMap<&'static str, Instant>>>,
}

/// Why there is no answer, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Whoever asked wants to know no more.
    Stopped,
    /// It cannot be run, or ended with an error: what it said.
    Failed(String),
    /// It did not end.
    Hung(String),
}

impl Default for NvidiaSmi {
    fn default() -> Self {
        Self { patience: PATIENCE, hung: Arc::default() }
    }
}

impl NvidiaSmi {
    pub(crate) fn with_patience(patience: Duration) -> Self {
        Self { patience, ..Self::default() }
    }

    /// The cards it lists, perhaps none.
    pub(crate) fn cards(
        &self,
        program: &Path,
        path: &str,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Device>, Silence> {
        let mut cards: Vec<Device> =
            self.ask(program, path, QUERY, stop)?.lines().filter_map(parse).collect();
        if !cards.is_empty() {
            // Without it what is free is known all the same.
            let users = self.ask(program, path, USERS, stop).unwrap_or_default();
            for (uuid, user) in users.lines().filter_map(parse_user) {
                cards
                    .iter_mut()
                    .filter(|card| card.uuid == uuid)
                    .for_each(|card| card.users.push(user.clone()));
            }
        }
        Ok(cards)
    }

    /// What it answers to one query.
    fn ask(
        &self,
        program: &Path,
        path: &str,
        query: &'static str,
        stop: &dyn Fn() -> bool,
    ) -> Result<String, Silence> {
        let name = program.display();
        if let Some(spared) = self.hung().get(query).and_then(|since| SPARED.checked_sub(since.elapsed())) {
            let (problem, minutes) = (self.no_answer(program), spared.as_secs().div_ceil(60).max(1));
            return Err(Silence::Hung(format!("{problem} and is asked again in {minutes} min")));
        }
        let failed = |problem: std::io::Error| Silence::Failed(format!("{name} cannot be run: {problem}"));
        let mut child = Command::new(program)
            .args([query, "--format=csv,noheader,nounits"])
            .env_clear()
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let (output, errors) = (read_all(child.stdout.take()), read_all(child.stderr.take()));
        let end = Instant::now() + self.patience;
        // Where this process hardly came to run itself, neither did the tool.
        let (mut looks, enough) = (0, self.patience.as_millis() / POLL.as_millis() / 4);
        let status = loop {
            looks += 1;
            match child.try_wait().map_err(failed)? {
                Some(status) => break status,
                None if stop() => {
                    give_up(child);
                    return Err(Silence::Stopped);
                }
                None if Instant::now() >= end && looks > enough => {
                    self.hung().insert(query, Instant::now());
                    give_up(child);
                    return Err(Silence::Hung(self.no_answer(program)));
                }
                None => std::thread::sleep(POLL),
            }
        };
        // What it left behind may hold its output open; the group goes before that is waited for.
        end_group(&mut child);
        let text = |reader: Option<JoinHandle<String>>| reader.and_then(|reader| reader.join().ok());
        let (output, errors) = (text(output).unwrap_or_default(), text(errors).unwrap_or_default());
        match status.success() {
            true => {
                self.hung().remove(query);
                Ok(output)
            }
            false => Err(Silence::Failed(format!("{name} ended with {status}{}", said(&errors, &output)))),
        }
    }

    fn no_answer(&self, program: &Path) -> String {
        format!("{} did not answer in {} s", program.display(), self.patience.as_secs_f32())
    }

    fn hung(&self) -> MutexGuard<'_, BTreeMap<&'static str, Instant>> {
        self.hung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first line of its errors, else of its output: it tells most of its mishaps there.
fn said(errors: &str, output: &str) -> String {
    let mut lines = errors.lines().chain(output.lines()).map(str::trim);
    let Some(line) = lines.find(|line| !line.is_empty()) else { return " and said nothing".to_owned() };
    let words: String = line.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect();
    // Something is written behind it.
    format!(" and said: {}", words.trim_end_matches('.'))
}

/// On a thread of its own, so that a full pipe never holds it up.
fn read_all(pipe: Option<impl Read + Send + 'static>) -> Option<JoinHandle<String>> {
    let pipe = pipe?;
    Some(std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // Whatever came before an error is judged line by line.
        let _partly = pipe.take(MAX_OUTPUT).read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }))
}

/// Of one that has ended.
fn end_group(child: &mut Child) {
    kill_group(child);
    let _reaped = child.wait();
}

/// Waits for it elsewhere: in a driver that hangs, a process does not end when it is killed.
fn give_up(mut child: Child) {
    kill_group(&child);
    std::thread::spawn(move || child.wait());
}

fn kill_group(child: &Child) {
    let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        // Nobody may be left in it.
        let _gone = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

fn parse(line: &str) -> Option<Device> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let [index, uuid, name, compute, total, free, driver, utilisation] = fields[..] else { return None };
    let numeric =
        |text: &str| text.split('.').count() == 2 && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (uuid.starts_with("GPU-") && numeric(compute)).then_some(())?;
    let bytes = |mib: &str| mib.parse::<u64>().ok().and_then(|mib| mib.checked_mul(MIB));
    Some(Device {
        index: index.parse().ok()?,
        uuid: uuid.to_owned(),
        name: name.to_owned(),
        vram_total_bytes: bytes(total)?,
        vram_free_bytes: bytes(free)?,
        compute_capability: compute.to_owned(),
        driver: numeric_version(driver).then(|| driver.to_owned()),
        utilisation_percent: utilisation.parse().ok(),
        users: Vec::new(),
    })
}

/// A process and the card it has memory of. What it cannot tell is `[N/A]`.
fn parse_user(line: &str) -> Option<(&str, DeviceUser)> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let [uuid, pid, used] = fields[..] else { return None };
    let used_bytes = used.parse::<u64>().ok().and_then(|mib| mib.checked_mul(MIB));
    Some((uuid, DeviceUser { pid: Some(pid.parse().ok()?), used_bytes, ..DeviceUser::default() }))
}

/// Versions look like 535.104.05; what it cannot tell is `[N/A]`.
fn numeric_version(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_tool_is_a_card_and_anything_else_is_none() {
        let card = parse("1, GPU-a1, NVIDIA GeForce RTX 3090, 8.6, 24576, 24100, 550.54.14, 3").unwrap();
        assert_eq!(
            (card.index, card.uuid.as_str(), card.name.as_str()),
            (1, "GPU-a1", "NVIDIA GeForce RTX 3090")
        );
        assert_eq!((card.vram_total_bytes, card.vram_free_bytes), (24576 * MIB, 24100 * MIB));
        assert_eq!((card.driver.as_deref(), card.utilisation_percent), (Some("550.54.14"), Some(3)));
        let vague = parse("0, GPU-b, X, 9.0, 81559, 81000, [N/A], [N/A]").unwrap();
        assert_eq!((vague.driver, vague.utilisation_percent), (None, None));
        for other in [
            "No devices were found",
            "",
            "0, GPU-b, X, 9.0, 1, 2, 3",
            "0, MIG-b, X, 9.0, 1, 2, 3, 4",
            "0, GPU-b, X, [N/A], 1, 2, 3, 4",
            "0, GPU-b, X, 9.0, 99999999999999999999, 2, 3, 4",
            "-1, GPU-b, X, 9.0, 1, 2, 3, 4",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn what_it_says_when_it_fails_is_its_first_line_wherever_it_wrote_it() {
        assert_eq!(
            said("\n  Failed to initialize NVML\u{7}\nmore", "x"),
            " and said: Failed to initialize NVML"
        );
        assert_eq!(said("Make sure that it runs.\n", ""), " and said: Make sure that it runs");
        assert_eq!(said("", "No devices were found\n"), " and said: No devices were found");
        assert_eq!(said("\n", ""), " and said nothing");
        assert_eq!(said(&"x".repeat(9_000), "").len(), " and said: ".len() + MAX_WORDS);
    }

    #[test]
    fn a_line_about_a_process_is_a_user_and_what_it_uses_is_known_or_not() {
        let user = |pid, used_bytes| DeviceUser { pid: Some(pid), used_bytes, ..DeviceUser::default() };
        assert_eq!(parse_user("GPU-a1, 4711, 13312"), Some(("GPU-a1", user(4711, Some(13312 * MIB)))));
        assert_eq!(parse_user("GPU-a1, 4711, [N/A]"), Some(("GPU-a1", user(4711, None))));
        for other in ["", "No running processes found", "GPU-a1, [N/A], 3", "GPU-a1, -1, 3", "GPU-a1, 3"] {
            assert_eq!(parse_user(other), None, "{other}");
        }
    }
}
