//! What a scenario remembers between its steps.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;
use test_harness_bdd::{Ended, Process, Rig};
use test_harness_e2e_haiku::{Api, Followed, Schema, checked};

/// An answer over HTTP.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    /// Reads an answer to its end; one that the contract does not know fails the step.
    pub(crate) async fn of(method: &str, path: &str, response: reqwest::Response) -> Result<Self> {
        let headers = response.headers().clone();
        // With its causes: a step's error is shown without them.
        let (status, text) =
            checked(method, path, response).await.map_err(|error| anyhow::anyhow!("{error:#}"))?;
        Ok(Self { status: status.as_u16(), headers, text })
    }

    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.text).with_context(|| format!("not JSON: {}", self.text))
    }
}

/// One scenario.
#[derive(cucumber::World)]
#[world(init = Self::new)]
pub(crate) struct Lab {
    pub(crate) rig: Rig,
    pub(crate) orchestratord: Option<Process>,
    pub(crate) manager: Option<Process>,
    pub(crate) engines: BTreeMap<String, (Process, String)>,
    pub(crate) api: Option<Api>,
    pub(crate) ended: Option<Ended>,
    pub(crate) answer: Option<Answer>,
    /// Task ids by the name that the scenario gives them.
    pub(crate) tasks: BTreeMap<String, String>,
    pub(crate) streams: BTreeMap<String, Followed>,
    /// Numbers that a later step compares with.
    pub(crate) noted: BTreeMap<String, f64>,
    /// An answer that a client still reads.
    pub(crate) open: Option<reqwest::Response>,
    /// What that client has read so far, where a step reads it.
    pub(crate) told: String,
    /// Texts that a later step compares with or names as `$name`.
    pub(crate) noted_texts: BTreeMap<String, String>,
}

impl std::fmt::Debug for Lab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let said = self.orchestratord.as_ref().map(Process::said).unwrap_or_default();
        write!(f, "answer {:?}\ntasks {:?}\norchestratord said:\n{said}", self.answer, self.tasks)
    }
}

impl Lab {
    fn new() -> Result<Self> {
        Ok(Self {
            rig: Rig::new()?,
            orchestratord: None,
            manager: None,
            engines: BTreeMap::new(),
            api: None,
            ended: None,
            answer: None,
            tasks: BTreeMap::new(),
            streams: BTreeMap::new(),
            noted: BTreeMap::new(),
            open: None,
            told: String::new(),
            noted_texts: BTreeMap::new(),
        })
    }

    /// Ends what still runs, the control plane before the engines that are not its own.
    pub(crate) async fn dismiss(&mut self) -> Result<()> {
        self.open = None;
        let own = [self.orchestratord.take(), self.manager.take()].into_iter().flatten();
        let foreign = std::mem::take(&mut self.engines).into_values().map(|(engine, _)| engine);
        for process in own.chain(foreign) {
            process.dismiss().await?;
        }
        Ok(())
    }

    pub(crate) fn api(&self) -> Result<&Api> {
        self.api.as_ref().context("no orchestratord was started in this scenario")
    }

    pub(crate) fn answer(&self) -> Result<&Answer> {
        self.answer.as_ref().context("nothing was asked in this scenario")
    }

    pub(crate) fn ended(&self) -> Result<&Ended> {
        self.ended.as_ref().context("no program was run in this scenario")
    }

    pub(crate) fn task(&self, name: &str) -> Result<&str> {
        self.tasks.get(name).map(String::as_str).with_context(|| format!("no task {name} was submitted"))
    }

    pub(crate) fn stream(&self, name: &str) -> Result<&Followed> {
        self.streams.get(name).with_context(|| format!("no stream {name} was followed"))
    }

    pub(crate) fn handoff(&self, pool: &str) -> Result<Value> {
        let handoff = self.rig.handoff(pool, "r0").with_context(|| format!("{pool} has no handoff"))?;
        Schema::Handoff.check(&handoff)?;
        Ok(handoff)
    }

    pub(crate) fn pid(&self, pool: &str) -> Result<u64> {
        self.handoff(pool)?["pid"].as_u64().context("the handoff names no pid")
    }
}
