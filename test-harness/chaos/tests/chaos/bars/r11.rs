//! R11: a disk that is full, under one directory after the other.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::house::{House, one_pool, signal};
use crate::processes;
use crate::run::{Run, reached};

/// Within this, everything works again once there is room.
const RECOVERED: Duration = Duration::from_secs(5);

/// Directories of the runtime directory that get a small disk of their own.
const DISKS: [&str; 3] = ["engines", "run", "journal"];

pub(super) async fn run(run: Arc<Run>) -> Result<()> {
    let (handoffs, state, journal) =
        tokio::join!(full(&run, "engines"), full(&run, "run"), full(&run, "journal"));
    handoffs.and(state).and(journal)
}

/// A machine whose runtime directories are small disks, which only its own processes see.
struct SmallDisks {
    house: House,
}

impl SmallDisks {
    async fn start(run: &Run) -> Result<Self> {
        let rig = run.machine()?;
        rig.configure(&one_pool("ctx: 100000", "STUB_TOKEN_MS: '20'"))?;
        let runtime = rig.path("runtime");
        for disk in DISKS {
            std::fs::create_dir_all(runtime.join(disk)).context("making a directory")?;
        }
        let mounts = DISKS.map(|disk| {
            format!("mount -t tmpfs -o size=8m,mode=0700 none '{}'", runtime.join(disk).display())
        });
        let program = rig.program("orchestratord")?;
        let mut command = Command::new("unshare");
        // Root of its own namespace is enough for a mount that nobody else sees.
        command.args(if nix::unistd::geteuid().is_root() { "-m" } else { "-rm" }.split(' '));
        let script = format!("{} && exec \"$@\"", mounts.join(" && "));
        command
            .args(["sh", "-c", &script, "sh"])
            .arg(program.get_program())
            .args(["--config", "config.yaml"]);
        command.current_dir(rig.path(""));
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let (orchestratord, api) = rig.start_as(command).await?;
        Ok(Self { house: House { rig, api, orchestratord } })
    }

    /// A directory as the daemon sees it.
    fn disk(&self, name: &str) -> Result<PathBuf> {
        let inside = self.house.rig.path("runtime").join(name);
        let root = format!("/proc/{}/root", self.house.orchestratord.pid()?);
        Ok(PathBuf::from(format!("{root}{}", inside.display())))
    }

    /// The spawn that the identity record names, be it an intent or a process.
    fn recorded_spawn(&self) -> Result<Option<String>> {
        let Ok(text) = std::fs::read(self.disk("run")?.join("p.r0.pid")) else { return Ok(None) };
        let record: Value = serde_json::from_slice(&text).context("a record that is cut")?;
        Ok(record["spawn_id"].as_str().map(str::to_owned))
    }

    /// Leaves not a byte.
    fn fill(&self, name: &str) -> Result<()> {
        let path = self.disk(name)?.join("filler");
        let mut file =
            std::fs::OpenOptions::new().create(true).append(true).open(path).context("the filler")?;
        for size in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        Ok(())
    }

    fn free(&self, name: &str) -> Result<()> {
        std::fs::remove_file(self.disk(name)?.join("filler")).context("removing the filler")
    }

    fn engine(&self) -> Result<i32> {
        let text = std::fs::read(self.disk("engines")?.join("p.r0.json")).context("no handoff")?;
        let handoff: Value = serde_json::from_slice(&text).context("a handoff that is cut")?;
        Ok(i32::try_from(handoff["pid"].as_i64().context("no pid")?)?)
    }

    /// Files that are there and not whole.
    fn cut_files(&self) -> Result<Vec<String>> {
        let mut cut = Vec::new();
        for (disk, ending) in [("engines", "json"), ("run", "pid")] {
            for entry in std::fs::read_dir(self.disk(disk)?).context("listing")?.flatten() {
                let path = entry.path();
                let name = entry.file_name().to_string_lossy().into_owned();
                let whole =
                    || serde_json::from_slice::<Value>(&std::fs::read(&path).unwrap_or_default()).is_ok();
                if !name.starts_with('.') && path.extension().is_some_and(|e| e == ending) && !whole() {
                    cut.push(name);
                }
            }
        }
        Ok(cut)
    }
}

async fn full(run: &Run, disk: &str) -> Result<()> {
    let machine = SmallDisks::start(run).await?;
    let house = &machine.house;
    house.is_ready().await?;
    let task = house.submit(json!({"max_tokens": 50_000})).await?;
    let mut reader = house.follow(&task, None).await?;
    reader.until(|event| event.data["i"] == 20).await?;
    let first = machine.engine()?;
    machine.fill(disk)?;

    // What runs goes on: its next two seconds of tokens come, one by one.
    for i in 21..121 {
        let event = reader.next().await?.context("the stream ended")?;
        ensure!(event.name == "token" && event.data["i"] == i, "{disk} full, token {i}: {event:?}");
    }
    let freed = match disk {
        "journal" => {
            let refused = house.try_submit(json!({})).await?;
            let code = refused.1["error"]["code"].as_str().unwrap_or("none").to_owned();
            run.fact("journal full: a task", refused.0 == 503 && code == "STORAGE_UNAVAILABLE", code);
            machine.free(disk)?;
            let freed = Instant::now();
            reached("tasks are admitted", || async { Ok(house.try_submit(json!({})).await?.0 == 202) })
                .await?;
            freed
        }
        _ => {
            let before = house.replica().await?["generation"].clone();
            signal(first, Signal::SIGKILL)?;
            // What is removed with the lost life makes room, and the next one may be there before we look.
            reached("the engine is lost", || async {
                let gone = house.health().await?["ready"] == false;
                Ok(gone || house.replica().await?["generation"] != before)
            })
            .await?;
            let (mut unrecorded, until) = (0, Instant::now() + Duration::from_secs(3));
            let mut cut = Vec::new();
            while Instant::now() < until {
                // The lost engine's own files may have made room, which is taken again.
                machine.fill(disk)?;
                for engine in house.rig.engines() {
                    let spawn = processes::variable(engine, "LLORCH_SPAWN_ID");
                    let recorded = machine.recorded_spawn()?;
                    let lives = processes::lives(engine);
                    unrecorded += usize::from(lives && spawn.is_some() && spawn != recorded);
                }
                cut.extend(machine.cut_files()?);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            run.count(format!("{disk} full: engines without a record"), unrecorded, 0..=0);
            run.fact(format!("{disk} full: files cut"), cut.is_empty(), cut.join(", "));
            machine.free(disk)?;
            let freed = Instant::now();
            house.is_ready().await?;
            freed
        }
    };
    run.time(format!("{disk} full: recovered"), freed.elapsed(), RECOVERED);
    // One that ended this moment is collected in the next; one that nobody collects stays.
    let manager = house.orchestratord.pid()?.as_raw();
    let looked = Instant::now();
    while processes::zombies_of(manager) > 0 && looked.elapsed() < RECOVERED {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    run.count(format!("{disk} full: zombies"), processes::zombies_of(manager), 0..=0);
    let event = reader.until(|event| event.name != "resumed").await?;
    run.fact(
        format!("{disk} full: the stream"),
        event.name == "token",
        format!("goes on with a {}", event.name),
    );
    Ok(())
}
