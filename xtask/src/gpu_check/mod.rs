//! `cargo xtask gpu-check`: the real thing from end to end on a machine with an NVIDIA card. The engine is
//! built for that card, started by orchestratord, asked, and what it says of its memory is held against the
//! estimate. Prints a report and writes it down. Without a card it refuses before it does anything.

mod log;
mod report;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use config_loader::Env;
use devices::{Discover, Inventory, System, Way};
use provisioners_engine_provisioner::{Cancel, EngineProvisioner, cancel_on_signal};
use serde_json::json;
use test_harness_e2e_haiku::{Api, Daemon, built_binary};
use wire::{Device, PreparedEngine, ReplicaId};

use crate::cuda_compile::Lines;
use log::Loaded;
use report::Seen;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Reference of the model, as in a pool's `model`
    #[arg(long, default_value = "builtin:haiku")]
    model: String,
    /// Where the report goes; by default docs/gpu-check.md
    #[arg(long)]
    out: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let env = Env::from_process()?;
    let system = System::new(env.var("PATH"), Way::from_variable(env.var("LLAMA_ORCH_DEVICES")));
    run_on(&system, &env, options)
}

fn run_on(system: &dyn Discover, env: &Env, options: &Options) -> Result<()> {
    let found = there_is_a_card(system.look(&|| false))?;
    let dir = tempfile::tempdir().context("making a directory")?;
    let file = dir.path().join("config.json");
    std::fs::write(&file, config(&options.model).to_string()).context("writing the configuration")?;
    let config = config_loader::load(Some(&file), env)?.config;
    let pool = config.pools.first().context("the configuration has no pool")?;
    let cancel = Cancel::new();
    cancel_on_signal(&cancel).context("listening for signals")?;
    // Before the daemon, which would be waited for: a build for a card may take an hour.
    let began = Instant::now();
    let provisioner = EngineProvisioner::new(&config.paths.cache, env).with_model_rules(&config.models);
    let prepared = provisioner.ensure(pool, &ReplicaId::nth(0), &Lines, &cancel)?;
    let prepare_s = began.elapsed().as_secs_f64();
    let runtime = tokio::runtime::Runtime::new().context("starting tokio")?;
    let seen = runtime.block_on(observe(&file, system, found, prepared, prepare_s))?;
    let text = seen.markdown();
    std::io::stdout().write_all(text.as_bytes())?;
    let out = options.out.clone().unwrap_or_else(|| crate::root().join("docs/gpu-check.md"));
    std::fs::write(&out, &text).with_context(|| format!("writing {}", out.display()))?;
    let failed: Vec<_> = seen.checks().into_iter().filter(|check| !check.holds).map(|c| c.what).collect();
    ensure!(failed.is_empty(), "not so: {}; the report is in {}", failed.join("; "), out.display());
    Ok(())
}

/// The cards; an error that says what to do instead where there is none.
fn there_is_a_card(inventory: Inventory) -> Result<Vec<Device>> {
    match inventory {
        Inventory::Cards(cards) => Ok(cards),
        Inventory::NoCard => bail!(
            "there is no NVIDIA card here: gpu-check runs the real thing on one, and nothing was fetched, built or \
             started. `cargo xtask cuda-compile` compiles for a card without having one"
        ),
        Inventory::ToolFailed(problem) => bail!(
            "there is no NVIDIA card here, as far as can be seen: {problem}. Nothing was fetched, built or started; \
             where there is a card after all, `nvidia-smi` must list it first"
        ),
        Inventory::DriverOnly(problem) => bail!(
            "an NVIDIA driver is loaded and no card can be listed: {problem}. Nothing was fetched, built or started; \
             `nvidia-smi` must list a card first"
        ),
    }
}

/// The engine says where its layers are only when it is asked to say more than usual.
fn config(model: &str) -> serde_json::Value {
    json!({ "pools": [{
        "id": "haiku",
        "model": model,
        "provisioning": { "gpu": "required" },
        "flags": ["--verbose"],
        "unsafe_flags": true,
    }] })
}

async fn observe(
    config: &std::path::Path,
    system: &dyn Discover,
    cards: Vec<Device>,
    prepared: PreparedEngine,
    prepare_s: f64,
) -> Result<Seen> {
    let file = config.to_str().context("the temporary directory has an odd name")?;
    let binary = built_binary("orchestratord")?;
    let began = Instant::now();
    let daemon = Daemon::start_binary(&binary, &["--config", file])?;
    let load_s = began.elapsed().as_secs_f64();
    let api = Api::new(daemon.base())?;
    let accepted = api.submit("Write a haiku that includes the word rain", json!({})).await?;
    let stream = accepted["streams"]["sse"].as_str().context("the 202 names no stream")?;
    let followed = api.follow(stream, None).await?;
    followed.check_order()?;
    let end = followed.end()?;
    let path = daemon.runtime().join("engines/haiku.r0.json");
    let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let handoff: wire::Handoff = serde_json::from_slice(&text).context("reading the handoff")?;
    let now = system.look(&|| false);
    let of_engine = now.cards().iter().flat_map(|card| &card.users).filter(|user| user.pid == handoff.pid);
    let used: Vec<u64> = of_engine.filter_map(|user| user.used_bytes).collect();
    let seen = Seen {
        cards,
        engine_version: prepared.engine_version,
        model: handoff.model.id,
        prepare_s,
        load_s,
        text: followed.text(),
        tokens: end["tokens_out"].as_u64().unwrap_or(0),
        decode_ms: end["decode_time_ms"].as_u64().unwrap_or(0),
        estimate: prepared.memory,
        loaded: Loaded::read(&daemon.engine_logs()?),
        process_bytes: (!used.is_empty()).then(|| used.iter().sum()),
    };
    daemon.stop()?;
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_card_it_refuses_and_says_that_nothing_was_done() {
        let broken = "broken".to_owned();
        for inventory in
            [Inventory::NoCard, Inventory::ToolFailed(broken.clone()), Inventory::DriverOnly(broken)]
        {
            let refusal = there_is_a_card(inventory).unwrap_err().to_string();
            assert!(refusal.to_lowercase().contains("nothing was fetched, built or"), "{refusal}");
        }
    }

    #[test]
    fn on_a_machine_without_a_card_nothing_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let (out, cache) = (dir.path().join("report.md"), dir.path().join("cache"));
        let env = Env::new(dir.path(), [("LLAMA_ORCH_CACHE", cache.to_str().unwrap())]);
        let options = Options { model: "builtin:haiku".to_owned(), out: Some(out.clone()) };
        let refusal = run_on(&|| Inventory::NoCard, &env, &options).unwrap_err().to_string();
        assert!(refusal.contains("there is no NVIDIA card here"), "{refusal}");
        assert!(!out.exists() && !cache.exists());
    }

    #[test]
    fn the_configuration_is_one_that_loads_and_requires_a_card() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        std::fs::write(&file, config("builtin:haiku").to_string()).unwrap();
        let env = Env::new("/", [("HOME", "/home/me")]);
        let config = config_loader::load(Some(&file), &env).unwrap().config;
        assert_eq!(config.pools[0].provisioning.gpu, wire::config::GpuPolicy::Required);
    }
}
