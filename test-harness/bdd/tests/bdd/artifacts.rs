//! What callers keep here, by the names that a scenario gives it, and what is let go of.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use cucumber::{then, when};
use sha2::{Digest as _, Sha256};

use crate::world::{Answer, Lab};

#[when(expr = "a client stores the text {string}")]
async fn store(lab: &mut Lab, text: String) -> Result<()> {
    let (api, path) = (lab.api()?, "/v2/artifacts");
    let answer = api.http().post(api.url(path)).body(text).send().await.context("storing")?;
    lab.answer = Some(Answer::of("POST", path, answer).await?);
    Ok(())
}

#[when(expr = "a client stores the texts {string}")]
async fn store_all(lab: &mut Lab, texts: String) -> Result<()> {
    for text in texts.split(", ") {
        store(lab, text.to_owned()).await?;
        let answer = lab.answer()?;
        ensure!(answer.status == 201, "{text} was answered {}: {}", answer.status, answer.text);
    }
    Ok(())
}

#[then(expr = "the text {string} is still there")]
async fn is_there(lab: &mut Lab, text: String) -> Result<()> {
    let found = read(lab, &text).await?;
    ensure!(found.status == 200 && found.text == text, "it is {}: {}", found.status, found.text);
    Ok(())
}

#[then(expr = "the text {string} was let go of")]
async fn is_gone(lab: &mut Lab, text: String) -> Result<()> {
    let found = read(lab, &text).await?;
    ensure!(found.status == 404, "it is {}: {}", found.status, found.text);
    let left = files(lab)?.into_iter().any(|path| path.ends_with(name(&text)));
    ensure!(!left, "its file is still there");
    Ok(())
}

#[when(expr = "the file of the text {string} is {int} minutes old")]
fn is_old(lab: &mut Lab, text: String, minutes: u64) -> Result<()> {
    let path = files(lab)?.into_iter().find(|path| path.ends_with(name(&text)));
    let path = path.with_context(|| format!("no file of {text}"))?;
    let then = SystemTime::now() - Duration::from_secs(minutes * 60);
    let file = std::fs::File::options().write(true).open(&path).context("opening it")?;
    file.set_modified(then).context("setting its time")
}

async fn read(lab: &Lab, text: &str) -> Result<Answer> {
    let (api, path) = (lab.api()?, format!("/v2/artifacts/{}", name(text)));
    let answer = api.http().get(api.url(&path)).send().await.context("asking")?;
    Answer::of("GET", &path, answer).await
}

/// Every file of every shelf.
fn files(lab: &Lab) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for shelf in std::fs::read_dir(lab.rig.path("runtime/artifacts")).context("listing the shelves")? {
        for file in std::fs::read_dir(shelf?.path()).context("listing a shelf")? {
            found.push(file?.path());
        }
    }
    Ok(found)
}

fn name(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
