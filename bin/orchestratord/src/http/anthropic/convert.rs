//! Anthropic's request as OpenAI's. What has no counterpart is refused by name, never dropped in
//! silence; only the text of earlier reasoning is left out, as Anthropic's own servers do.

use serde_json::{Map, Value, json};
use wire::anthropic::{MessagesRequest, Tool, Turn};
use wire::openai::ChatCompletionRequest;
use wire::task::Message;

use crate::http::error::ApiError;

/// The same conversation for `/v1/chat/completions`.
pub(super) fn chat(request: &MessagesRequest) -> Result<ChatCompletionRequest, ApiError> {
    let mut messages = Vec::new();
    if let Some(system) = &request.system {
        let content = Value::from(text_of(system, "system")?);
        messages.push(message("system", content, Map::new()));
    }
    for (i, turn) in request.messages.iter().enumerate() {
        add_turn(turn, &format!("messages[{i}]"), &mut messages)?;
    }
    let (tools, tool_choice) = tools(request)?;
    let one_call = request.tool_choice.as_ref().and_then(|choice| choice.disable_parallel_tool_use);
    Ok(ChatCompletionRequest {
        model: request.model.clone(),
        messages,
        stream: request.stream,
        max_completion_tokens: Some(request.max_tokens),
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        stop: request.stop_sequences.as_ref().map(|stops| json!(stops)),
        tools,
        tool_choice,
        parallel_tool_calls: one_call.map(|one| !one),
        ..ChatCompletionRequest::default()
    })
}

fn add_turn(turn: &Turn, at: &str, messages: &mut Vec<Message>) -> Result<(), ApiError> {
    let blocks = match &turn.content {
        Value::String(text) => vec![json!({"type": "text", "text": text})],
        Value::Array(blocks) => blocks.clone(),
        _ => return Err(invalid(at, "content must be text or a list of blocks")),
    };
    match turn.role.as_str() {
        "user" => add_user(&blocks, at, messages),
        "assistant" => add_assistant(&blocks, at, messages),
        _ => Err(invalid(at, "role must be user or assistant")),
    }
}

/// Results of tools come first: OpenAI's conversation has them as messages of their own.
fn add_user(blocks: &[Value], at: &str, messages: &mut Vec<Message>) -> Result<(), ApiError> {
    let mut parts = Vec::new();
    for (i, block) in blocks.iter().enumerate() {
        let at = format!("{at}.content[{i}]");
        match block["type"].as_str() {
            Some("text") => parts.push(json!({"type": "text", "text": text(block, &at)?})),
            Some("image") => parts.push(image(block, &at)?),
            Some("tool_result") => messages.push(tool_result(block, &at)?),
            _ => return Err(invalid(&at, "must have a `type` of text, image or tool_result")),
        }
    }
    // Text alone goes as text: not every chat template reads parts.
    let only_text = parts.iter().all(|part| part["type"] == "text");
    let content = if only_text {
        let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
        Value::from(texts.join("\n"))
    } else {
        Value::from(parts.clone())
    };
    if !parts.is_empty() {
        messages.push(message("user", content, Map::new()));
    }
    Ok(())
}

fn add_assistant(blocks: &[Value], at: &str, messages: &mut Vec<Message>) -> Result<(), ApiError> {
    let (mut texts, mut calls) = (Vec::new(), Vec::new());
    for (i, block) in blocks.iter().enumerate() {
        let at = format!("{at}.content[{i}]");
        match block["type"].as_str() {
            Some("text") => texts.push(text(block, &at)?),
            Some("tool_use") => {
                let (Some(id), Some(name)) = (block["id"].as_str(), block["name"].as_str()) else {
                    return Err(invalid(&at, "must have an `id` and a `name`"));
                };
                let arguments = block["input"].to_string();
                calls.push(
                    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}),
                );
            }
            Some("thinking" | "redacted_thinking") => {}
            _ => return Err(invalid(&at, "must have a `type` of text, tool_use or thinking")),
        }
    }
    let mut rest = Map::new();
    if !calls.is_empty() {
        rest.insert("tool_calls".to_owned(), Value::from(calls));
    }
    let content = if texts.is_empty() { Value::Null } else { Value::from(texts.join("\n")) };
    messages.push(message("assistant", content, rest));
    Ok(())
}

fn tool_result(block: &Value, at: &str) -> Result<Message, ApiError> {
    let Some(id) = block["tool_use_id"].as_str() else {
        return Err(invalid(at, "must have a `tool_use_id`"));
    };
    let content = match &block["content"] {
        Value::Null => String::new(),
        content => text_of(content, at)?,
    };
    let failed = block["is_error"].as_bool().unwrap_or(false);
    let content = if failed { format!("error: {content}") } else { content };
    let mut rest = Map::new();
    rest.insert("tool_call_id".to_owned(), Value::from(id));
    Ok(message("tool", Value::from(content), rest))
}

fn image(block: &Value, at: &str) -> Result<Value, ApiError> {
    let source = &block["source"];
    match (source["type"].as_str(), source["media_type"].as_str(), source["data"].as_str()) {
        (Some("base64"), Some(media), Some(data)) => {
            let url = format!("data:{media};base64,{data}");
            Ok(json!({"type": "image_url", "image_url": {"url": url}}))
        }
        _ => Err(invalid(at, "must carry its image as base64; a remote one would make the engine fetch it")),
    }
}

type Choice = (Option<Value>, Option<Value>);

/// A certain tool is asked for by offering only that one: engines know `required`, not names.
fn tools(request: &MessagesRequest) -> Result<Choice, ApiError> {
    let Some(tools) = &request.tools else { return Ok((None, None)) };
    if let Some(tool) = tools.iter().find(|tool| tool.kind.as_deref().is_some_and(|kind| kind != "custom")) {
        return Err(invalid("tools", &format!("{:?} is a tool that nobody here runs", tool.name)));
    }
    let offer = |tools: &[&Tool]| Some(tools.iter().map(|tool| function(tool)).collect::<Value>());
    let all: Vec<&Tool> = tools.iter().collect();
    let choice = request.tool_choice.as_ref();
    match choice.map(|choice| choice.kind.as_str()) {
        None => Ok((offer(&all), None)),
        Some("auto") => Ok((offer(&all), Some(json!("auto")))),
        Some("any") => Ok((offer(&all), Some(json!("required")))),
        Some("none") => Ok((offer(&all), Some(json!("none")))),
        Some("tool") => {
            let name = choice.and_then(|choice| choice.name.as_deref());
            match all.iter().find(|tool| Some(tool.name.as_str()) == name) {
                Some(tool) => Ok((offer(&[tool]), Some(json!("required")))),
                None => Err(invalid("tool_choice", "names no tool of the request")),
            }
        }
        Some(_) => Err(invalid("tool_choice", "must have a `type` of auto, any, tool or none")),
    }
}

fn function(tool: &Tool) -> Value {
    let mut function = json!({"name": tool.name, "parameters": tool.input_schema});
    if let Some(description) = &tool.description {
        function["description"] = json!(description);
    }
    json!({"type": "function", "function": function})
}

/// Text, or the text blocks of a list.
fn text_of(value: &Value, at: &str) -> Result<String, ApiError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Array(blocks) => {
            let texts: Result<Vec<&str>, ApiError> = blocks.iter().map(|block| text(block, at)).collect();
            Ok(texts?.join("\n"))
        }
        _ => Err(invalid(at, "must be text or a list of text blocks")),
    }
}

fn text<'a>(block: &'a Value, at: &str) -> Result<&'a str, ApiError> {
    match (block["type"].as_str(), block["text"].as_str()) {
        (Some("text"), Some(text)) => Ok(text),
        _ => Err(invalid(at, "must be a text block with its `text`")),
    }
}

fn message(role: &str, content: Value, rest: Map<String, Value>) -> Message {
    Message { role: role.to_owned(), content, rest }
}

fn invalid(at: &str, rule: &str) -> ApiError {
    ApiError::invalid(at, format!("{at} {rule}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(more: Value) -> Result<Value, ApiError> {
        let mut request = json!({"model": "m", "max_tokens": 5, "messages": []});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        chat(&serde_json::from_value(request).unwrap()).map(|chat| serde_json::to_value(chat).unwrap())
    }

    /// ORCHD-MESSAGES-001
    #[test]
    fn a_conversation_with_tools_is_the_same_in_the_other_words() {
        let chat = convert(json!({
            "system": [{"type": "text", "text": "be brief"}],
            "stop_sequences": ["END"],
            "tools": [{"name": "get", "description": "d", "input_schema": {"type": "object"}}, {"name": "put"}],
            "tool_choice": {"type": "tool", "name": "get", "disable_parallel_tool_use": true},
            "messages": [
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": ""},
                    {"type": "tool_use", "id": "t1", "name": "get", "input": {"x": 1}}]},
                {"role": "user", "content": [
                    {"type": "text", "text": "there"},
                    {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "7"}]}]},
            ],
        }))
        .unwrap();
        assert_eq!(
            chat["messages"],
            json!([
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": null, "tool_calls": [
                    {"id": "t1", "type": "function", "function": {"name": "get", "arguments": "{\"x\":1}"}}]},
                {"role": "tool", "content": "7", "tool_call_id": "t1"},
                {"role": "user", "content": "there"},
            ])
        );
        assert_eq!(chat["tools"].as_array().unwrap().len(), 1);
        assert_eq!((&chat["tool_choice"], &chat["parallel_tool_calls"]), (&json!("required"), &json!(false)));
        assert_eq!((&chat["max_completion_tokens"], &chat["stop"]), (&json!(5), &json!(["END"])));
    }

    /// SEC-006
    #[test]
    fn what_has_no_counterpart_is_refused_by_name() {
        let turn = |block: Value| json!({"messages": [{"role": "user", "content": [block]}]});
        for (more, param) in [
            (
                turn(json!({"type": "image", "source": {"type": "url", "url": "http://x"}})),
                "messages[0].content[0]",
            ),
            (turn(json!({"type": "document"})), "messages[0].content[0]"),
            (json!({"messages": [{"role": "system", "content": "x"}]}), "messages[0]"),
            (json!({"tools": [{"type": "web_search_20250305", "name": "web"}]}), "tools"),
            (json!({"tools": [{"name": "a"}], "tool_choice": {"type": "tool", "name": "b"}}), "tool_choice"),
        ] {
            assert_eq!(convert(more.clone()).unwrap_err().0.param.as_deref(), Some(param), "{more}");
        }
        let image =
            json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="}});
        let chat = convert(turn(image)).unwrap();
        assert_eq!(chat["messages"][0]["content"][0]["image_url"]["url"], "data:image/png;base64,QQ==");
    }
}
