//! JSON Schemas of the files and values that cross a process boundary outside HTTP.

use anyhow::{Context, Result};
use schemars::{JsonSchema, schema_for};

use super::Document;

pub(crate) fn documents() -> Result<Vec<Document>> {
    Ok(vec![
        schema::<wire::CatalogModel>("catalog-model")?,
        schema::<wire::config::Config>("config")?,
        schema::<wire::Handoff>("handoff")?,
        schema::<wire::ModelRecord>("model-record")?,
        schema::<wire::PreparedEngine>("prepared-engine")?,
        schema::<wire::event::TaskEvent>("task-event")?,
        schema::<wire::Transcript>("transcript")?,
    ])
}

fn schema<T: JsonSchema>(name: &str) -> Result<Document> {
    let value =
        serde_json::to_value(schema_for!(T)).with_context(|| format!("rendering the schema of {name}"))?;
    Document::new(format!("contracts/schemas/{name}.schema.json"), &value)
}
