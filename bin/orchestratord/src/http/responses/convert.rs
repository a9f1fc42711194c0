//! A request of the Responses API as a chat. What has no counterpart, or needs something to be kept from
//! one request to the next, is refused by name; only earlier reasoning is left out.

use serde_json::{Map, Value, json};
use wire::openai::ChatCompletionRequest;
use wire::responses::ResponsesRequest;
use wire::task::Message;

use crate::http::error::ApiError;
use crate::http::validate;

/// The same conversation for `/v1/chat/completions`.
pub(super) fn chat(request: &ResponsesRequest) -> Result<ChatCompletionRequest, ApiError> {
    refuse_what_is_not_served(request)?;
    validate::max_tokens("max_output_tokens", request.max_output_tokens)?;
    let (tools, tool_choice) = tools(request)?;
    Ok(ChatCompletionRequest {
        model: request.model.clone(),
        messages: messages(request)?,
        stream: request.stream,
        max_completion_tokens: request.max_output_tokens,
        temperature: request.temperature,
        top_p: request.top_p,
        seed: request.seed,
        tools,
        tool_choice,
        parallel_tool_calls: request.parallel_tool_calls,
        response_format: response_format(request.text.as_ref())?,
        reasoning_effort: request.reasoning.as_ref().map(|r| r["effort"].clone()).filter(|e| !e.is_null()),
        ..ChatCompletionRequest::default()
    })
}

fn refuse_what_is_not_served(request: &ResponsesRequest) -> Result<(), ApiError> {
    const NOTHING_KEPT: &str =
        "is not served: nothing is kept between requests; send the whole conversation as input";
    let given = |value: &Option<Value>| value.as_ref().is_some_and(|value| !value.is_null());
    let refused = [
        ("store", request.store == Some(true), "true is not served: nothing is kept between requests"),
        ("previous_response_id", given(&request.previous_response_id), NOTHING_KEPT),
        ("conversation", given(&request.conversation), NOTHING_KEPT),
        ("prompt", given(&request.prompt), "is not served: nothing is kept here; send its text as input"),
        (
            "background",
            request.background == Some(true),
            "true is not served: POST /v2/tasks goes on without its client",
        ),
        (
            "truncation",
            request.truncation.as_deref().is_some_and(|how| how != "disabled"),
            "other than disabled is not served: leave out of the input what does not fit",
        ),
        (
            "top_logprobs",
            request.top_logprobs.is_some_and(|n| n > 0),
            "is not served: /v1/chat/completions has it",
        ),
    ];
    match refused.into_iter().find(|(_, refused, _)| *refused) {
        Some((param, _, why)) => Err(invalid(param, why)),
        None => Ok(()),
    }
}

fn messages(request: &ResponsesRequest) -> Result<Vec<Message>, ApiError> {
    let mut messages = Vec::new();
    if let Some(instructions) = &request.instructions {
        add(&mut messages, "system", Value::from(instructions.as_str()), Map::new());
    }
    match &request.input {
        Value::String(text) => add(&mut messages, "user", Value::from(text.as_str()), Map::new()),
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                add_item(item, &format!("input[{i}]"), &mut messages)?;
            }
        }
        _ => return Err(invalid("input", "must be a text or a list of items")),
    }
    Ok(messages)
}

fn add_item(item: &Value, at: &str, messages: &mut Vec<Message>) -> Result<(), ApiError> {
    match item["type"].as_str() {
        None | Some("message") => {
            let role = match item["role"].as_str() {
                Some("system" | "developer") => "system",
                Some("user") => "user",
                Some("assistant") => "assistant",
                _ => return Err(invalid(at, "must have a `role` of user, assistant, system or developer")),
            };
            let content = content(&item["content"], at)?;
            add(messages, role, content, Map::new());
            Ok(())
        }
        Some("function_call") => add_call(item, at, messages),
        Some("function_call_output") => {
            let Some(id) = item["call_id"].as_str() else { return Err(invalid(at, "must have a `call_id`")) };
            let output = content(&item["output"], at)?;
            messages.push(message(
                "tool",
                output,
                [("tool_call_id".to_owned(), Value::from(id))].into_iter().collect(),
            ));
            Ok(())
        }
        Some("reasoning") => Ok(()),
        Some("item_reference") => Err(invalid(at, "names an item that was not kept; send the item itself")),
        Some(_) => Err(invalid(
            at,
            "must have a `type` of message, function_call, function_call_output or reasoning",
        )),
    }
}

/// Calls of one turn are one message, beside its text.
fn add_call(item: &Value, at: &str, messages: &mut Vec<Message>) -> Result<(), ApiError> {
    let field = |name: &str| item[name].as_str();
    let (Some(id), Some(name), Some(arguments)) = (field("call_id"), field("name"), field("arguments"))
    else {
        return Err(invalid(at, "must have `call_id`, `name` and `arguments`"));
    };
    let call = json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    match messages.last_mut().filter(|last| last.role == "assistant") {
        Some(last) => match last.rest.get_mut("tool_calls") {
            Some(Value::Array(calls)) => calls.push(call),
            _ => {
                last.rest.insert("tool_calls".to_owned(), json!([call]));
            }
        },
        None => {
            let calls = [("tool_calls".to_owned(), json!([call]))].into_iter().collect();
            messages.push(message("assistant", Value::Null, calls));
        }
    }
    Ok(())
}

/// Instructions and what follows them from the system are one message: not every chat template takes two.
fn add(messages: &mut Vec<Message>, role: &str, content: Value, rest: Map<String, Value>) {
    if role == "system"
        && let [before] = messages.as_mut_slice()
        && before.role == "system"
        && let (Some(one), Some(two)) = (before.content.as_str(), content.as_str())
    {
        before.content = Value::from(format!("{one}\n\n{two}"));
        return;
    }
    messages.push(message(role, content, rest));
}

/// Text alone goes as text: not every chat template reads parts.
fn content(content: &Value, at: &str) -> Result<Value, ApiError> {
    let parts = match content {
        Value::String(text) => return Ok(Value::from(text.as_str())),
        Value::Array(parts) => parts,
        _ => return Err(invalid(at, "must hold a text or a list of parts")),
    };
    let mut converted = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        converted.push(self::part(part).map_err(|rule| invalid(&format!("{at}.content[{i}]"), rule))?);
    }
    if converted.iter().all(|part| part["type"] == "text") {
        let texts: Vec<&str> = converted.iter().filter_map(|part| part["text"].as_str()).collect();
        return Ok(Value::from(texts.join("\n")));
    }
    Ok(Value::from(converted))
}

fn part(part: &Value) -> Result<Value, &'static str> {
    let text = |text: &Value| match text.as_str() {
        Some(text) => Ok(json!({"type": "text", "text": text})),
        None => Err("must have its text"),
    };
    match part["type"].as_str() {
        Some("input_text" | "output_text" | "text") => text(&part["text"]),
        Some("refusal") => text(&part["refusal"]),
        Some("input_image") => match part["image_url"].as_str() {
            Some(url) if url.starts_with("data:") => {
                Ok(json!({"type": "image_url", "image_url": {"url": url}}))
            }
            _ => Err("must carry its image as a data: URL; a remote one would make the engine fetch it"),
        },
        _ => Err("must have a `type` of input_text, output_text or input_image"),
    }
}

type Choice = (Option<Value>, Option<Value>);

/// A certain tool is asked for by offering only that one: engines know `required`, not names.
fn tools(request: &ResponsesRequest) -> Result<Choice, ApiError> {
    let tools = request.tools.as_deref().unwrap_or_default();
    let mut offered = Vec::new();
    for (i, tool) in tools.iter().enumerate() {
        let at = format!("tools[{i}]");
        let Some(name) = tool["name"].as_str().filter(|_| tool["type"] == "function") else {
            return Err(invalid(&at, "must be a function with its name: nobody here runs other tools"));
        };
        let mut function = json!({"name": name});
        for field in ["description", "parameters", "strict"] {
            if !tool[field].is_null() {
                function[field] = tool[field].clone();
            }
        }
        offered.push(json!({"type": "function", "function": function}));
    }
    let all = || Some(Value::from(offered.clone())).filter(|_| !offered.is_empty());
    match &request.tool_choice {
        None | Some(Value::Null) => Ok((all(), None)),
        Some(Value::String(choice)) if matches!(choice.as_str(), "auto" | "none" | "required") => {
            Ok((all(), Some(Value::from(choice.as_str())).filter(|_| !offered.is_empty())))
        }
        Some(choice) if choice["type"] == "function" => {
            match offered.iter().find(|tool| tool["function"]["name"] == choice["name"]) {
                Some(tool) => Ok((Some(json!([tool])), Some(json!("required")))),
                None => Err(invalid("tool_choice", "names no tool of the request")),
            }
        }
        Some(_) => Err(invalid("tool_choice", "must be auto, none, required or a function")),
    }
}

fn response_format(text: Option<&Value>) -> Result<Option<Value>, ApiError> {
    let format = text.map(|text| &text["format"]).filter(|format| !format.is_null());
    let Some(format) = format else { return Ok(None) };
    match format["type"].as_str() {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(json!({"type": "json_object"}))),
        Some("json_schema") if format["schema"].is_object() => Ok(Some(json!({
            "type": "json_schema",
            "json_schema": {"name": format["name"], "schema": format["schema"], "strict": format["strict"]},
        }))),
        Some("json_schema") => Err(invalid("text.format", "must have its `schema`")),
        _ => Err(invalid("text.format", "must have a `type` of text, json_object or json_schema")),
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
        let mut request = json!({"model": "m", "input": "hi"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        chat(&serde_json::from_value(request).unwrap()).map(|chat| serde_json::to_value(chat).unwrap())
    }

    /// ORCHD-RESPONSES-001
    #[test]
    fn a_conversation_with_calls_is_the_same_in_the_other_words() {
        let chat = convert(json!({
            "instructions": "be brief",
            "store": false,
            "max_output_tokens": 5,
            "reasoning": {"effort": "low"},
            "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": true}},
            "tools": [{"type": "function", "name": "get", "parameters": {"type": "object"}, "strict": null},
                {"type": "function", "name": "put"}],
            "tool_choice": {"type": "function", "name": "get"},
            "input": [
                {"role": "developer", "content": "and kind"},
                {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
                {"type": "reasoning", "summary": []},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "c"}]},
                {"type": "function_call", "call_id": "1", "name": "get", "arguments": "{}"},
                {"type": "function_call", "call_id": "2", "name": "get", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": "7"},
            ],
        }))
        .unwrap();
        let call =
            |id: &str| json!({"id": id, "type": "function", "function": {"name": "get", "arguments": "{}"}});
        assert_eq!(
            chat["messages"],
            json!([
                {"role": "system", "content": "be brief\n\nand kind"},
                {"role": "user", "content": "a\nb"},
                {"role": "assistant", "content": "c", "tool_calls": [call("1"), call("2")]},
                {"role": "tool", "content": "7", "tool_call_id": "1"},
            ])
        );
        let get = json!({"type": "function", "function": {"name": "get", "parameters": {"type": "object"}}});
        assert_eq!((&chat["tools"], &chat["tool_choice"]), (&json!([get]), &json!("required")));
        assert_eq!((&chat["max_completion_tokens"], &chat["reasoning_effort"]), (&json!(5), &json!("low")));
        assert_eq!(chat["response_format"]["json_schema"]["schema"], json!({"type": "object"}));
    }

    /// ORCHD-RESPONSES-002, SEC-006
    #[test]
    fn what_is_not_served_is_refused_by_name() {
        let part = |part: Value| json!({"input": [{"role": "user", "content": [part]}]});
        for (more, param) in [
            (json!({"store": true}), "store"),
            (json!({"previous_response_id": "resp_1"}), "previous_response_id"),
            (json!({"conversation": "conv_1"}), "conversation"),
            (json!({"prompt": {"id": "p"}}), "prompt"),
            (json!({"background": true}), "background"),
            (json!({"truncation": "auto"}), "truncation"),
            (json!({"top_logprobs": 3}), "top_logprobs"),
            (json!({"max_output_tokens": 0}), "max_output_tokens"),
            (json!({"input": 7}), "input"),
            (json!({"input": [{"type": "item_reference", "id": "x"}]}), "input[0]"),
            (json!({"input": [{"type": "computer_call"}]}), "input[0]"),
            (part(json!({"type": "input_image", "image_url": "http://10.0.0.1/x"})), "input[0].content[0]"),
            (part(json!({"type": "input_file", "file_id": "f"})), "input[0].content[0]"),
            (json!({"tools": [{"type": "web_search"}]}), "tools[0]"),
            (json!({"tool_choice": {"type": "function", "name": "x"}}), "tool_choice"),
            (json!({"text": {"format": {"type": "xml"}}}), "text.format"),
        ] {
            let error = convert(more.clone()).unwrap_err();
            assert_eq!(error.0.param.as_deref(), Some(param), "{more}: {}", error.0.message);
        }
        let null = json!({"previous_response_id": null, "store": false, "truncation": "disabled", "background": false});
        assert!(convert(null).is_ok());
    }
}
