//! A seam on the real engine: what it says behind an answer that was cut at any token is what it would
//! have said without the cut. Asked through the adapter, as dispatch asks.

use adapter_host::{
    CompletionRequest, EngineItem, EngineRequest, Prompt, Sampling, SoFar, WorkerAdapter as _,
};
use anyhow::{Context, Result, ensure};
use futures_util::StreamExt as _;
use serde_json::Value;
use test_harness_e2e_haiku::{Daemon, provisioned};
use wire::EngineChunk;
use wire::task::Message;
use worker_adapters_llamacpp_http::LlamaCpp;

const MAX_TOKENS: u32 = 96;

/// ORCHD-RESUME-001, ORCHD-RESUME-003, LCPP-009, LCPP-011
#[tokio::test(flavor = "multi_thread")]
async fn the_real_engine_goes_on_behind_any_token_as_if_it_had_not_been_cut() -> Result<()> {
    provisioned()?;
    let daemon = Daemon::start()?;
    let handoff: Value =
        serde_json::from_slice(&std::fs::read(daemon.runtime().join("engines/haiku.r0.json"))?)?;
    let url = handoff["url"].as_str().context("the handoff has no url")?;
    // One client each: llama-server closes a connection after a hundred requests.
    let engine = || LlamaCpp::new(url, handoff["api_key"].as_str());

    let (whole, tokens_in) = answer(&engine()?, SoFar::Nothing, MAX_TOKENS).await?;
    let ids: Vec<u32> = whole.iter().flat_map(|chunk| chunk.tokens.clone()).collect();
    ensure!(whole.iter().all(|chunk| chunk.unnamed == 0), "an answer in ASCII names every token");
    ensure!(ids.len() > 20, "too short to be cut: {ids:?}");
    // The last id is the end token: an answer that has it is not cut.
    for cut in 1..ids.len() - 1 {
        let left = MAX_TOKENS - u32::try_from(cut)?;
        let (rest, counted) = answer(&engine()?, SoFar::Ids(ids[..cut].to_vec()), left).await?;
        let joined: Vec<u32> =
            ids[..cut].iter().copied().chain(rest.iter().flat_map(|chunk| chunk.tokens.clone())).collect();
        ensure!(joined == ids, "cut at {cut}: {joined:?} is not {ids:?}");
        ensure!(text(&whole[..cut]) + &text(&rest) == text(&whole), "the text differs, cut at {cut}");
        ensure!(counted == tokens_in + cut as u64, "cut at {cut}: the engine read other tokens ({counted})");
    }
    daemon.stop()?;
    Ok(())
}

fn text(chunks: &[EngineChunk]) -> String {
    chunks.iter().map(|chunk| chunk.text.as_str()).collect()
}

async fn answer(engine: &LlamaCpp, so_far: SoFar, max_tokens: u32) -> Result<(Vec<EngineChunk>, u64)> {
    let message = Message {
        role: "user".to_owned(),
        content: "Write a haiku that includes the word rain".into(),
        rest: serde_json::Map::new(),
    };
    let sampling = Sampling { max_tokens: Some(max_tokens), temperature: Some(0.0), ..Sampling::default() };
    let prompt = Prompt::Messages(vec![message]);
    let request = CompletionRequest { prompt, sampling, cache_prompt: false, so_far };
    let mut stream = engine.submit(EngineRequest::Completion(request), None).await?;
    let mut chunks = Vec::new();
    while let Some(item) = stream.next().await {
        match item? {
            EngineItem::Chunk(chunk) => chunks.push(chunk),
            EngineItem::Finished(finished) => return Ok((chunks, finished.tokens_in)),
        }
    }
    anyhow::bail!("the stream ended without an end")
}
