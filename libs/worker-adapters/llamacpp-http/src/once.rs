//! Requests that are answered at once, without tokens: vectors and scores. The engine's answer is one
//! chunk without text; its counts become [`Finished`].

use adapter_host::{EmbeddingRequest, EngineItem, Finished, Input, RerankRequest, TokenStream};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use wire::event::FinishReason;
use wire::{EngineChunk, RawJson};

/// `POST /v1/embeddings`.
#[derive(Serialize)]
pub(crate) struct Embedding<'a> {
    input: Vec<Part<'a>>,
    encoding_format: &'static str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Part<'a> {
    Text(&'a str),
    Ids(&'a [u32]),
}

impl<'a> Embedding<'a> {
    pub(crate) fn new(request: &'a EmbeddingRequest) -> Self {
        let input = request.inputs.iter().map(|input| match input {
            Input::Text(text) => Part::Text(text),
            Input::Ids(ids) => Part::Ids(ids),
        });
        let encoding_format = if request.base64 { "base64" } else { "float" };
        Self { input: input.collect(), encoding_format }
    }
}

/// `POST /v1/rerank`.
#[derive(Serialize)]
pub(crate) struct Rerank<'a> {
    query: &'a str,
    documents: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    top_n: Option<u32>,
}

impl<'a> Rerank<'a> {
    pub(crate) fn new(request: &'a RerankRequest) -> Self {
        Self { query: &request.query, documents: &request.documents, top_n: request.top_n }
    }
}

#[derive(Deserialize)]
struct Answer {
    usage: Usage,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: u64,
}

/// The answer as a stream of one chunk; the error is the reason of a loss.
pub(crate) fn answer(path: &str, body: Vec<u8>) -> Result<TokenStream, String> {
    let strange = || format!("its answer to {path} is not llama-server's");
    let text = String::from_utf8(body).map_err(|_| strange())?;
    let usage = serde_json::from_str::<Answer>(&text).map_err(|_| strange())?.usage;
    let raw = Some(RawJson::parse(&text).map_err(|_| strange())?);
    let chunk = EngineChunk { raw, ..EngineChunk::default() };
    let (reason, tokens_in) = (FinishReason::Stop, usage.prompt_tokens);
    let finished = Finished { reason, tokens_in, tokens_out: 0, sampling: None };
    Ok(TokenStream::new(stream::iter([Ok(EngineItem::Chunk(chunk)), Ok(EngineItem::Finished(finished))])))
}
