//! Configurations and the programs that run to their end: engine-provisioner, `config`, refusals to start.

use anyhow::{Context, Result, ensure};
use cucumber::gherkin::Step;
use cucumber::{given, then, when};
use serde_json::Value;
use test_harness_e2e_haiku::Schema;

use crate::world::Lab;

#[given("the configuration")]
fn configuration(lab: &mut Lab, step: &Step) -> Result<()> {
    lab.rig.configure(step.docstring.as_deref().context("a configuration is a doc string")?)
}

#[given("one pool with the fake engine")]
fn one_pool(lab: &mut Lab) -> Result<()> {
    one_pool_with(lab, "STUB_SWITCHES_FILE: '$DIR/switches'".to_owned())
}

#[given(expr = "one pool with the fake engine that has {string}")]
fn one_pool_with(lab: &mut Lab, switches: String) -> Result<()> {
    lab.rig.configure(&format!(
        "pools: [{{ id: p, model: '$MODEL', engine: $STUB_ENGINE, env: {{ {switches} }} }}]\n"
    ))
}

#[given("the real engine and its model")]
async fn real(lab: &mut Lab) -> Result<()> {
    real_with(lab, "{}\n").await
}

#[given("the real engine and the configuration")]
async fn real_configured(lab: &mut Lab, step: &Step) -> Result<()> {
    real_with(lab, step.docstring.as_deref().context("a configuration is a doc string")?).await
}

async fn real_with(lab: &mut Lab, yaml: &str) -> Result<()> {
    // Other scenarios go on while it is built.
    tokio::task::spawn_blocking(test_harness_e2e_haiku::provisioned).await.context("waiting")??;
    lab.rig.use_shared_cache();
    lab.rig.configure(yaml)
}

/// The real engine as a binary of the machine's owner, with a cache that is the scenario's to spoil.
#[given("the real engine as $ENGINE and the configuration")]
async fn real_by_path(lab: &mut Lab, step: &Step) -> Result<()> {
    let engine =
        tokio::task::spawn_blocking(test_harness_e2e_haiku::provisioned).await.context("waiting")??;
    lab.rig.use_engine(&engine.binary_path);
    lab.rig.configure(step.docstring.as_deref().context("a configuration is a doc string")?)
}

#[given("a model that is slow enough to be interrupted")]
fn slow(lab: &mut Lab) -> Result<()> {
    lab.rig.slow_model()
}

#[given("a machine with two NVIDIA cards and a CUDA compiler")]
fn two_cards(lab: &mut Lab) -> Result<()> {
    lab.rig.two_cards()
}

#[given("a machine with two NVIDIA cards and no CUDA compiler")]
fn two_cards_only(lab: &mut Lab) -> Result<()> {
    lab.rig.two_cards()?;
    std::fs::remove_file(lab.rig.path("bin/nvcc")).context("taking the compiler away")
}

#[given(expr = "the file {string} says")]
#[when(expr = "the file {string} says")]
fn file(lab: &mut Lab, name: String, step: &Step) -> Result<()> {
    let text = step.docstring.as_deref().context("what it says is a doc string")?;
    Ok(std::fs::write(lab.rig.path(&name), lab.rig.filled_in(text.trim_start()))?)
}

#[given(expr = "the directory {string} is taken away")]
#[when(expr = "the directory {string} is taken away")]
fn take_away(lab: &mut Lab, dir: String) -> Result<()> {
    lab.rig.take_away(&dir)
}

#[when(expr = "the directory {string} is put back")]
fn put_back(lab: &mut Lab, dir: String) -> Result<()> {
    lab.rig.put_back(&dir)
}

#[given(expr = "the script {string} that runs {string}")]
fn script(lab: &mut Lab, name: String, body: String) -> Result<()> {
    let body = lab.rig.filled_in(&body);
    lab.rig.script(&name, &body)
}

/// One of its bytes is another one, as after a bad sector: in its place, because an engine has it mapped.
#[when(expr = "the staged model of {string} is damaged")]
fn damage(lab: &mut Lab, _pool: String) -> Result<()> {
    use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
    let mut dirs = vec![lab.rig.path("cache/models")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).with_context(|| format!("looking into {}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "gguf") {
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))?;
                let model = std::fs::File::options().read(true).write(true).open(&path)?;
                let last = model.metadata()?.len().checked_sub(1).context("an empty model")?;
                let mut byte = [0];
                model.read_exact_at(&mut byte, last)?;
                return Ok(model.write_all_at(&[byte[0] ^ 1], last)?);
            }
        }
    }
    anyhow::bail!("no model was staged")
}

#[when("the model's digest is noted")]
fn note_digest(lab: &mut Lab) -> Result<()> {
    let model: Value = serde_json::from_str(&lab.ended()?.stdout).context("one model as JSON")?;
    Schema::CatalogModel.check(&model)?;
    let digest = model["digest"].as_str().context("no digest")?.to_owned();
    lab.noted_texts.insert("digest".to_owned(), digest);
    Ok(())
}

#[then("its first line is a token")]
fn note_token(lab: &mut Lab) -> Result<()> {
    let token = lab.ended()?.stdout.lines().next().context("it printed nothing")?.trim().to_owned();
    ensure!(token.len() >= 32 && !token.contains(' '), "{token:?}");
    lab.noted_texts.insert("token".to_owned(), token);
    Ok(())
}

#[then("it prints an answer")]
fn prints_an_answer(lab: &mut Lab) -> Result<()> {
    let ended = lab.ended()?;
    ensure!(!ended.stdout.trim().is_empty(), "it printed nothing and said:\n{}", ended.stderr);
    Ok(())
}

#[when(expr = "the tokens {string} and {string} for data and {string} for control")]
#[given(expr = "the tokens {string} and {string} for data and {string} for control")]
fn tokens(lab: &mut Lab, one: String, other: String, control: String) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let file = lab.rig.path("tokens");
    std::fs::write(&file, format!("data {one}\ndata {other}\ncontrol {control}\n"))?;
    Ok(std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?)
}

#[when(expr = "{word} is run")]
async fn run(lab: &mut Lab, program: String) -> Result<()> {
    run_to(lab, program, String::new()).await
}

/// Its arguments as a shell would split them, without the shell.
#[when(expr = "{word} is run to {string}")]
async fn run_to(lab: &mut Lab, program: String, arguments: String) -> Result<()> {
    let arguments = lab
        .noted_texts
        .iter()
        .fold(arguments, |text, (name, value)| text.replace(&format!("${name}"), value));
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    lab.ended = Some(lab.rig.run(&program, &arguments, &[]).await?);
    Ok(())
}

#[when(expr = "orchestratord is run to ask {string}")]
async fn run_question(lab: &mut Lab, question: String) -> Result<()> {
    let address = lab.api()?.url("");
    let address = address.strip_prefix("http://").context("an address")?.to_owned();
    let arguments = ["run", "--max-tokens", "8", &question];
    lab.ended = Some(lab.rig.run("orchestratord", &arguments, &[("ORCHD_ADDR", &address)]).await?);
    Ok(())
}

#[when(expr = "orchestratord is run to verify task {string}")]
async fn run_verify(lab: &mut Lab, name: String) -> Result<()> {
    let address = lab.api()?.url("");
    let address = address.strip_prefix("http://").context("an address")?.to_owned();
    let arguments = ["verify", lab.task(&name)?];
    lab.ended = Some(lab.rig.run("orchestratord", &arguments, &[("ORCHD_ADDR", &address)]).await?);
    Ok(())
}

#[when(expr = "{word} is run on {word}")]
async fn run_on(lab: &mut Lab, program: String, address: String) -> Result<()> {
    lab.ended = Some(lab.rig.run(&program, &[], &[("ORCHD_ADDR", &address)]).await?);
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

#[then(expr = "it never says {string}")]
fn never_says(lab: &mut Lab, words: String) -> Result<()> {
    let ended = lab.ended()?;
    ensure!(!ended.stderr.contains(&words), "it said:\n{}", ended.stderr);
    Ok(())
}

#[then(expr = "it prints {string}")]
fn prints(lab: &mut Lab, words: String) -> Result<()> {
    let ended = lab.ended()?;
    let words = lab.rig.filled_in(&words);
    ensure!(ended.stdout.contains(&words), "it printed:\n{}and said:\n{}", ended.stdout, ended.stderr);
    Ok(())
}

/// What it printed, to be compared with what it prints later.
#[given("what it printed is noted")]
#[then("what it printed is noted")]
fn note_printed(lab: &mut Lab) -> Result<()> {
    let printed = lab.ended()?.stdout.clone();
    ensure!(!printed.trim().is_empty(), "it printed nothing");
    lab.noted_texts.insert("printed".to_owned(), printed);
    Ok(())
}

#[then("it prints the same again")]
fn same_printed(lab: &mut Lab) -> Result<()> {
    let before = lab.noted_texts.get("printed").context("nothing was noted")?;
    let now = &lab.ended()?.stdout;
    ensure!(now == before, "it printed:\n{now}before:\n{before}");
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
