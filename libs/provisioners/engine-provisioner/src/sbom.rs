//! A bill of materials (CycloneDX 1.6) of an engine: what it was built from and with. It lists what
//! the manifest and the source tree show, and guesses no versions.

use std::path::Path;

use serde_json::{Value, json};
use wire::config::EngineSource;

use crate::cuda::runtime;
use crate::manifest::Manifest;
use crate::source;

/// The bill. `tree` is the source tree, whose `vendor` directory names what it carries.
pub(crate) fn cyclonedx(manifest: &Manifest, tree: &Path) -> Value {
    let version = manifest.version();
    let mut source_part = json!({
        "type": "library",
        "bom-ref": "source",
        "name": source::describe(&manifest.source),
        "version": source::label(&manifest.source),
    });
    if let Some(purl) = purl(&manifest.source) {
        source_part["purl"] = purl.into();
    }
    if source::pin(&manifest.source).len() == 64 {
        source_part["hashes"] = json!([{ "alg": "SHA-256", "content": source::pin(&manifest.source) }]);
    }
    let mut engine = json!({
        "type": "application",
        "bom-ref": version,
        "name": "llama-server",
        "version": version,
        "hashes": [{ "alg": "SHA-256", "content": manifest.binary_sha256 }],
    });
    if let Some(licence) = &manifest.licence {
        let licences = json!([{ "license": { "id": licence } }]);
        engine["licenses"] = licences.clone();
        source_part["licenses"] = licences;
    }
    let vendored = vendored(tree);
    let mut components = vec![source_part];
    components.extend(vendored.iter().map(|name| {
        json!({ "type": "library", "bom-ref": format!("vendor/{name}"), "name": name,
                "description": "carried in the source tree under vendor" })
    }));
    components.extend(manifest.libraries.iter().map(|(name, sha256)| library(name, sha256)));
    let mut inside: Vec<String> = vec!["source".to_owned()];
    inside.extend(vendored.iter().map(|name| format!("vendor/{name}")));
    inside.extend(manifest.libraries.keys().map(|name| format!("library/{name}")));
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": { "component": engine, "tools": { "components": tools(manifest) } },
        "components": components,
        "dependencies": [{ "ref": version, "dependsOn": inside }],
    })
}

/// Compilers and CMake, by the lines they print about themselves.
fn tools(manifest: &Manifest) -> Vec<Value> {
    let compilers = manifest.inputs["compilers"].as_array().cloned().unwrap_or_default();
    let lines = compilers.iter().filter_map(Value::as_str).chain([manifest.cmake.as_str()]);
    let named = lines.filter(|line| !line.is_empty());
    named.map(|line| json!({ "type": "application", "name": line })).collect()
}

/// A library beside the binary.
fn library(name: &str, sha256: &str) -> Value {
    let mut part = json!({
        "type": "library",
        "bom-ref": format!("library/{name}"),
        "name": name,
        "hashes": [{ "alg": "SHA-256", "content": sha256 }],
    });
    if runtime::is_one(name) {
        part["licenses"] = json!([{ "license": { "name": "LicenseRef-NVIDIA-Proprietary" } }]);
    }
    part
}

fn purl(source: &EngineSource) -> Option<String> {
    match source {
        EngineSource::Sdist(sdist) => Some(format!("pkg:pypi/{}@{}", sdist.package, sdist.version)),
        EngineSource::Path(_) | EngineSource::Git(_) | EngineSource::Archive(_) => None,
    }
}

fn vendored(tree: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(tree.join("vendor")).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = dirs.filter_map(|dir| dir.file_name().into_string().ok()).collect();
    names.sort();
    names
}
