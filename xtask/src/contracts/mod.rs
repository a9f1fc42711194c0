//! The generated contracts: OpenAPI documents and JSON Schemas, rendered from `contracts/wire`,
//! committed, and compared by a test.

mod openapi;
mod schemas;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

pub(crate) use openapi::documents as openapi;
pub(crate) use schemas::documents as schemas;

/// One generated file: its path below the repository's root and its text.
pub(crate) struct Document {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl Document {
    fn new(path: impl Into<PathBuf>, value: &serde_json::Value) -> Result<Self> {
        let text = serde_json::to_string_pretty(value).context("rendering JSON")? + "\n";
        Ok(Self { path: path.into(), text })
    }
}

pub(crate) fn write(documents: &[Document]) -> Result<()> {
    for document in documents {
        let path = crate::root().join(&document.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        }
        fs::write(&path, &document.text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_fresh(documents: &[Document], command: &str) {
        for document in documents {
            let committed = fs::read_to_string(crate::root().join(&document.path)).unwrap_or_default();
            let path = document.path.display();
            assert_eq!(committed, document.text, "{path} is stale: run `cargo xtask {command}`");
        }
    }

    #[test]
    fn the_committed_openapi_documents_are_fresh() {
        assert_fresh(&openapi().unwrap(), "regen-openapi");
    }

    #[test]
    fn the_committed_schemas_are_fresh() {
        assert_fresh(&schemas().unwrap(), "regen-schema");
    }

    #[test]
    fn every_body_of_every_operation_has_a_schema() {
        let known = openapi::components();
        for op in wire::operations::all() {
            for name in [op.request, op.success.1].into_iter().flat_map(openapi::schema_names) {
                assert!(known.contains_key(name), "{} {} uses the unknown schema {name}", op.method, op.path);
            }
        }
    }
}
