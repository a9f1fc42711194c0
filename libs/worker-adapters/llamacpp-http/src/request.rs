//! Request bodies, field by field: what is not named here is not sent.

use std::borrow::Cow;

use adapter_host::{ChatRequest, CompletionRequest, Sampling, SoFar};
use serde::Serialize;
use serde_json::Value;
use wire::task::Message;

/// `POST /completion`.
#[derive(Serialize)]
pub(crate) struct Completion<'a> {
    prompt: PromptBody<'a>,
    stream: bool,
    return_tokens: bool,
    cache_prompt: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    n_predict: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repeat_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logit_bias: Option<&'a Value>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    grammar: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    json_schema: Option<&'a Value>,
}

impl<'a> Completion<'a> {
    pub(crate) fn new(request: &'a CompletionRequest, prompt: &'a str) -> Self {
        let Sampling {
            max_tokens,
            seed,
            temperature,
            top_p,
            top_k,
            min_p,
            repeat_penalty,
            presence_penalty,
            frequency_penalty,
            logit_bias,
            stop,
            grammar,
            json_schema,
        } = &request.sampling;
        Self {
            prompt: PromptBody::new(prompt, &request.so_far),
            stream: true,
            return_tokens: true,
            cache_prompt: request.cache_prompt,
            n_predict: *max_tokens,
            seed: *seed,
            temperature: *temperature,
            top_p: *top_p,
            top_k: *top_k,
            min_p: *min_p,
            repeat_penalty: *repeat_penalty,
            presence_penalty: *presence_penalty,
            frequency_penalty: *frequency_penalty,
            logit_bias: logit_bias.as_ref(),
            stop,
            grammar: grammar.as_deref(),
            json_schema: json_schema.as_ref(),
        }
    }
}

/// A prompt and what was answered already. In a list the text comes first and gets what the model's
/// tokenizer puts before every text; the ids behind it stay as they are.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum PromptBody<'a> {
    Text(Cow<'a, str>),
    Parts(Vec<Part<'a>>),
}

#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Part<'a> {
    Text(&'a str),
    Id(u32),
}

impl<'a> PromptBody<'a> {
    fn new(prompt: &'a str, so_far: &SoFar) -> Self {
        match so_far {
            SoFar::Ids(ids) if !ids.is_empty() => {
                let ids = ids.iter().copied().map(Part::Id);
                Self::Parts(std::iter::once(Part::Text(prompt)).chain(ids).collect())
            }
            SoFar::Nothing | SoFar::Ids(_) => Self::Text(prompt.into()),
            SoFar::Text(text) => Self::Text(format!("{prompt}{text}").into()),
        }
    }
}

/// `POST /apply-template`.
#[derive(Serialize)]
pub(crate) struct ApplyTemplate<'a> {
    messages: &'a [Message],
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_template_kwargs: Option<&'a Value>,
}

impl<'a> ApplyTemplate<'a> {
    pub(crate) fn of_messages(messages: &'a [Message]) -> Self {
        Self {
            messages,
            tools: None,
            tool_choice: None,
            parallel_tool_calls: None,
            reasoning_effort: None,
            chat_template_kwargs: None,
        }
    }

    /// All of a chat that shapes its prompt.
    pub(crate) fn of_chat(chat: &'a ChatRequest) -> Self {
        let request = &chat.request;
        Self {
            messages: &request.messages,
            tools: request.tools.as_ref(),
            tool_choice: request.tool_choice.as_ref(),
            parallel_tool_calls: request.parallel_tool_calls,
            reasoning_effort: request.reasoning_effort.as_ref(),
            chat_template_kwargs: request.chat_template_kwargs.as_ref(),
        }
    }
}

/// `POST /tokenize`.
#[derive(Serialize)]
pub(crate) struct Tokenize<'a> {
    pub(crate) content: &'a str,
    /// With what the model's tokenizer puts before every text.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) add_special: bool,
}

/// `POST /v1/chat/completions`. The model is left out: the engine has one.
#[derive(Serialize)]
pub(crate) struct Chat<'a> {
    messages: &'a [Message],
    stream: bool,
    stream_options: StreamOptions,
    cache_prompt: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repeat_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logit_bias: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_template_kwargs: Option<&'a Value>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

impl<'a> Chat<'a> {
    pub(crate) fn new(chat: &'a ChatRequest) -> Self {
        let request = &chat.request;
        Self {
            messages: &request.messages,
            stream: true,
            // Always: the counts of `Finished` come from it.
            stream_options: StreamOptions { include_usage: true },
            cache_prompt: chat.cache_prompt,
            max_tokens: request.max_completion_tokens.or(request.max_tokens),
            temperature: request.temperature,
            top_p: request.top_p,
            top_k: request.top_k,
            min_p: request.min_p,
            repeat_penalty: request.repeat_penalty,
            presence_penalty: request.presence_penalty,
            frequency_penalty: request.frequency_penalty,
            seed: request.seed,
            stop: request.stop.as_ref(),
            logprobs: request.logprobs,
            top_logprobs: request.top_logprobs,
            logit_bias: request.logit_bias.as_ref(),
            tools: request.tools.as_ref(),
            tool_choice: request.tool_choice.as_ref(),
            parallel_tool_calls: request.parallel_tool_calls,
            response_format: request.response_format.as_ref(),
            reasoning_effort: request.reasoning_effort.as_ref(),
            chat_template_kwargs: request.chat_template_kwargs.as_ref(),
        }
    }
}
