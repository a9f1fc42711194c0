//! OpenAPI 3.1 from the operations of `wire::operations` and the schemas of the types they name.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use wire::operations::{Access, Body, Daemon, Operation};

use super::Document;

pub(crate) fn documents() -> Result<Vec<Document>> {
    Ok(vec![
        Document::new("contracts/openapi/orchestratord.json", &document(Daemon::Orchestratord)?)?,
        Document::new("contracts/openapi/pool-managerd.json", &document(Daemon::PoolManagerd)?)?,
    ])
}

/// The schemas of every type that an operation may name, with everything they refer to.
pub(super) fn components() -> Map<String, Value> {
    let settings = SchemaSettings::draft2020_12().with(|s| s.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    generator.subschema_for::<wire::ErrorEnvelope>();
    generator.subschema_for::<wire::Health>();
    generator.subschema_for::<wire::Readiness>();
    generator.subschema_for::<wire::Version>();
    generator.subschema_for::<wire::meta::OpenApiDocument>();
    generator.subschema_for::<wire::PoolHealth>();
    generator.subschema_for::<wire::DeviceList>();
    generator.subschema_for::<wire::meta::Capabilities>();
    generator.subschema_for::<wire::usage::UsageReport>();
    generator.subschema_for::<wire::pool::PoolList>();
    generator.subschema_for::<wire::PoolView>();
    generator.subschema_for::<wire::OperationView>();
    generator.subschema_for::<wire::operation::OperationAccepted>();
    generator.subschema_for::<wire::operation::OperationList>();
    generator.subschema_for::<wire::pool::LogLine>();
    generator.subschema_for::<wire::operation::DrainRequest>();
    generator.subschema_for::<wire::operation::PreloadRequest>();
    generator.subschema_for::<wire::operation::ReloadRequest>();
    generator.subschema_for::<wire::TaskRequest>();
    generator.subschema_for::<wire::TaskView>();
    generator.subschema_for::<wire::ArtifactStored>();
    generator.subschema_for::<wire::SessionView>();
    generator.subschema_for::<wire::dashboard::DashboardEvent>();
    generator.subschema_for::<wire::catalog::CatalogList>();
    generator.subschema_for::<wire::catalog::CatalogVerified>();
    generator.subschema_for::<wire::catalog::CatalogRemoved>();
    generator.subschema_for::<wire::worker::RegisterWorker>();
    generator.subschema_for::<wire::worker::WorkerView>();
    generator.subschema_for::<wire::worker::WorkerList>();
    generator.subschema_for::<wire::task::Accepted>();
    generator.subschema_for::<wire::task::TaskList>();
    generator.subschema_for::<wire::event::TaskEvent>();
    generator.subschema_for::<wire::openai::ChatCompletionRequest>();
    generator.subschema_for::<wire::openai::ChatCompletion>();
    generator.subschema_for::<wire::streams::ChatCompletionFrame>();
    generator.subschema_for::<wire::openai::ModelList>();
    generator.subschema_for::<wire::openai::TextCompletionRequest>();
    generator.subschema_for::<wire::openai::TextCompletion>();
    generator.subschema_for::<wire::streams::TextCompletionFrame>();
    generator.subschema_for::<wire::openai::EmbeddingsRequest>();
    generator.subschema_for::<wire::openai::EmbeddingList>();
    generator.subschema_for::<wire::openai::RerankRequest>();
    generator.subschema_for::<wire::openai::Reranked>();
    generator.subschema_for::<wire::responses::ResponsesRequest>();
    generator.subschema_for::<wire::responses::ResponsesAnswer>();
    generator.subschema_for::<wire::streams::ResponsesEvent>();
    generator.subschema_for::<wire::anthropic::MessagesRequest>();
    generator.subschema_for::<wire::anthropic::MessagesAnswer>();
    generator.subschema_for::<wire::streams::MessagesEvent>();
    generator.subschema_for::<wire::anthropic::MessagesError>();
    generator.subschema_for::<wire::anthropic::CountTokensRequest>();
    generator.subschema_for::<wire::anthropic::TokenCount>();
    generator.take_definitions(true)
}

#[cfg(test)]
pub(super) fn schema_names(body: Body) -> Vec<&'static str> {
    match body {
        Body::Json(name) | Body::Sse(name) | Body::TextOrSse(name) => vec![name],
        Body::JsonOrSse(whole, frame) => vec![whole, frame],
        Body::None | Body::Metrics | Body::Bytes => Vec::new(),
    }
}

fn document(daemon: Daemon) -> Result<Value> {
    let mut paths: Map<String, Value> = Map::new();
    for op in wire::operations::of(daemon) {
        let item = paths.entry(op.path).or_insert_with(|| json!({}));
        item[op.method.to_lowercase()] = operation(op);
    }
    let mut schemas = components();
    keep_reachable(&mut schemas, &Value::Object(paths.clone()))?;
    let title = match daemon {
        Daemon::Orchestratord => "orchestratord",
        Daemon::PoolManagerd => "pool-managerd",
    };
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Generated by `cargo xtask regen-openapi` from contracts/wire. Every response carries X-Correlation-Id.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }))
}

fn operation(op: &Operation) -> Value {
    let (status, body) = op.success;
    let mut responses = Map::new();
    responses.insert(status.to_string(), response("Success", body));
    let refusals: BTreeSet<u16> = op.errors.iter().copied().chain(of_any(op.daemon)).collect();
    for status in refusals {
        responses.insert(status.to_string(), response(reason(status), Body::Json(op.error)));
    }
    // The listener's own, before anything is known of the request.
    responses.insert("431".to_owned(), response("The headers are too many or too large", Body::None));
    let mut value = json!({
        "summary": op.summary,
        "operationId": operation_id(op),
        "parameters": parameters(op),
        "responses": responses,
    });
    if let Some(content) = content(op.request) {
        value["requestBody"] = json!({"required": true, "content": content});
    }
    if op.access != Access::Open {
        value["security"] = json!([{"bearer": []}, {}]);
    }
    value
}

/// What any operation of a daemon may answer: orchestratord looks at the host, the origin and the
/// scope before it looks at the path.
fn of_any(daemon: Daemon) -> Option<u16> {
    (daemon == Daemon::Orchestratord).then_some(403)
}

fn operation_id(op: &Operation) -> String {
    let words = op.path.split(['/', '{', '}', '-']).filter(|w| !w.is_empty());
    std::iter::once(op.method.to_lowercase()).chain(words.map(str::to_owned)).collect::<Vec<_>>().join("_")
}

fn parameters(op: &Operation) -> Vec<Value> {
    let in_path = op.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path = in_path
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    let in_query = op.query.iter().map(
        |(name, meaning)| json!({"name": name, "in": "query", "description": meaning, "schema": {"type": "string"}}),
    );
    in_path.chain(in_query).collect()
}

fn response(description: &str, body: Body) -> Value {
    match content(body) {
        Some(content) => json!({"description": description, "content": content}),
        None => json!({"description": description}),
    }
}

fn content(body: Body) -> Option<Value> {
    let schema = |name: &str| json!({"schema": {"$ref": format!("#/components/schemas/{name}")}});
    match body {
        Body::None => None,
        Body::Bytes => {
            Some(json!({"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}))
        }
        Body::Metrics => Some(json!({"application/openmetrics-text": {"schema": {"type": "string"}}})),
        Body::Json(name) => Some(json!({"application/json": schema(name)})),
        Body::Sse(name) => Some(json!({"text/event-stream": schema(name)})),
        Body::TextOrSse(name) => {
            Some(json!({"text/plain": {"schema": {"type": "string"}}, "text/event-stream": schema(name)}))
        }
        Body::JsonOrSse(whole, frame) => {
            Some(json!({"application/json": schema(whole), "text/event-stream": schema(frame)}))
        }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        400 => "The request is not valid",
        401 => "Token missing or wrong",
        403 => "From another origin, for an unknown host, or with a token that has not the scope",
        404 => "Unknown",
        409 => "Conflicts with what exists",
        413 => "The body is too large",
        429 => "The queue is full; see Retry-After",
        500 => "The task failed before its answer began",
        503 => "Not ready; see Retry-After",
        _ => "Error",
    }
}

/// Drops the schemas that neither the paths nor another kept schema refer to.
fn keep_reachable(schemas: &mut Map<String, Value>, paths: &Value) -> Result<()> {
    let mut keep = BTreeSet::new();
    let mut open = references(paths);
    while let Some(name) = open.pop() {
        let Some(schema) = schemas.get(&name) else { bail!("no schema is called {name}") };
        if keep.insert(name) {
            open.extend(references(schema));
        }
    }
    schemas.retain(|name, _| keep.contains(name));
    Ok(())
}

fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, inner)| match (key.as_str(), inner.as_str()) {
                ("$ref", Some(target)) => target.rsplit('/').next().map(str::to_owned).into_iter().collect(),
                _ => references(inner),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}
