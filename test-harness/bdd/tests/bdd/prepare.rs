//! Configurations and the programs that run to their end: engine-provisioner, `config`, refusals to start.

use anyhow::{Context, Result, ensure};
use cucumber::gherkin::Step;
use cucumber::{given, then, when};
use serde_json::Value;

use crate::world::Lab;

#[given("the configuration")]
fn configuration(lab: &mut Lab, step: &Step) -> Result<()> {
    lab.rig.configure(step.docstring.as_deref().context("a configuration is a doc string")?)
}

#[given("one pool with the fake engine")]
fn one_pool(lab: &mut Lab) -> Result<()> {
    lab.rig.configure("pools: [{ id: p, model: '$MODEL', engine: $STUB_ENGINE }]\n")
}

#[given(expr = "one pool with the fake engine that has {string}")]
fn one_pool_with(lab: &mut Lab, switches: String) -> Result<()> {
    lab.rig.configure(&format!(
        "pools: [{{ id: p, model: '$MODEL', engine: $STUB_ENGINE, env: {{ {switches} }} }}]\n"
    ))
}

#[given("the real engine and its model")]
fn real(lab: &mut Lab) -> Result<()> {
    test_harness_e2e_haiku::provisioned()?;
    lab.rig.use_shared_cache();
    lab.rig.configure("{}\n")
}

#[given(expr = "the tokens {string} and {string} for data and {string} for control")]
fn tokens(lab: &mut Lab, one: String, other: String, control: String) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let file = lab.rig.path("tokens");
    std::fs::write(&file, format!("data {one}\ndata {other}\ncontrol {control}\n"))?;
    Ok(std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?)
}

#[when(expr = "{word} is run")]
fn run(lab: &mut Lab, program: String) -> Result<()> {
    lab.ended = Some(lab.rig.run(&program, &[])?);
    Ok(())
}

#[when(expr = "{word} is run on {word}")]
fn run_on(lab: &mut Lab, program: String, address: String) -> Result<()> {
    lab.ended = Some(lab.rig.run(&program, &[("ORCHD_ADDR", &address)])?);
    Ok(())
}

#[then(expr = "it ends with code {int}")]
fn ended_with(lab: &mut Lab, code: i32) -> Result<()> {
    let ended = lab.ended()?;
    ensure!(ended.code == Some(code), "it ended with {:?} and said:\n{}", ended.code, ended.stderr);
    Ok(())
}

#[then(expr = "it says {string}")]
fn says(lab: &mut Lab, words: String) -> Result<()> {
    let ended = lab.ended()?;
    ensure!(ended.stderr.contains(&words), "it said:\n{}", ended.stderr);
    Ok(())
}

#[then(expr = "it prints a prepared engine for {string} whose {word} is {string}")]
fn prepared(lab: &mut Lab, pool: String, field: String, value: String) -> Result<()> {
    let stdout = &lab.ended()?.stdout;
    let engine: Value = serde_json::from_str(stdout).with_context(|| format!("not one engine: {stdout}"))?;
    let value = lab.rig.filled_in(&value);
    ensure!(engine["pool_id"] == pool && engine[&field].as_str() == Some(&value), "{engine:#}");
    let binary = engine["binary_path"].as_str().context("no binary_path")?;
    ensure!(std::fs::metadata(binary)?.is_file(), "{binary} is not there");
    Ok(())
}

#[then("no engine was started and no handoff written")]
fn nothing_started(lab: &mut Lab) -> Result<()> {
    ensure!(!lab.rig.handoffs().exists(), "there is a handoff directory");
    ensure!(!lab.rig.path("runtime/run").exists(), "there are identity records");
    Ok(())
}
