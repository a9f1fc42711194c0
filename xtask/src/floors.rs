//! The floors of the house: every dependency between our crates goes strictly down, siblings never
//! know each other. Dev-dependencies may reach the test harness, nothing else may.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Crate and floor, as the README's map draws them.
const FLOORS: &[(&str, u8)] = &[
    ("wire", 0),
    ("adapter-host", 1),
    ("child", 1),
    ("config-loader", 1),
    ("devices", 1),
    ("handoff", 1),
    ("provisioners-model-provisioner", 1),
    ("registry", 1),
    ("task-log", 1),
    ("daemon", 2),
    ("dispatch", 2),
    ("provisioners-engine-provisioner", 2),
    ("worker-adapters-llamacpp-http", 2),
    ("pool-managerd", 3),
    ("orchestratord", 4),
    ("gguf-random", 5),
    ("haiku-trainer", 5),
    ("mutate", 5),
    ("proof-bundle", 5),
    ("stub-llama", 5),
    ("test-harness-e2e-haiku", 6),
    ("test-harness-bdd", 7),
    ("test-harness-chaos", 8),
    ("determinism-suite", 7),
    ("xtask", 8),
];

/// Crates of ours, or others, that a crate may never depend on (DESIGN: "may never reach").
const WALLS: &[(&str, &[&str])] = &[
    ("wire", &["tokio", "reqwest", "hyper", "axum", "nix", "rustix"]),
    ("registry", &["reqwest", "hyper", "axum", "nix", "rustix", "notify"]),
    ("handoff", &["reqwest", "hyper", "axum", "registry"]),
    ("adapter-host", &["reqwest", "hyper", "axum", "registry"]),
    ("task-log", &["reqwest", "hyper", "axum"]),
    ("dispatch", &["axum", "hyper", "reqwest", "notify"]),
    ("worker-adapters-llamacpp-http", &["axum", "dispatch", "registry"]),
    ("pool-managerd", &["dispatch", "worker-adapters-llamacpp-http"]),
    ("orchestratord", &["child", "nix", "provisioners-engine-provisioner"]),
];

struct Edge {
    from: String,
    to: String,
    dev: bool,
}

pub(crate) fn check() -> Result<()> {
    let wrong = violations(&members()?, &edges()?);
    ensure!(wrong.is_empty(), "edges that break the floors:\n  {}", wrong.join("\n  "));
    Ok(())
}

fn metadata() -> Result<Value> {
    let output = stub_llama::cargo()
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(crate::root())
        .output()
        .context("running cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("reading cargo metadata")
}

fn packages() -> Result<Vec<Value>> {
    let mut metadata = metadata()?;
    match metadata.get_mut("packages").map(Value::take) {
        Some(Value::Array(packages)) => Ok(packages),
        _ => bail!("cargo metadata lists no packages"),
    }
}

fn name_of(value: &Value) -> String {
    value["name"].as_str().unwrap_or_default().to_owned()
}

pub(crate) fn members() -> Result<Vec<String>> {
    Ok(packages()?.iter().map(name_of).collect())
}

/// Where a package lies.
pub(crate) fn directory(package: &str) -> Result<std::path::PathBuf> {
    let packages = packages()?;
    let found = packages.iter().find(|known| name_of(known) == package);
    let manifest = found.and_then(|known| known["manifest_path"].as_str());
    let dir = manifest.and_then(|manifest| std::path::Path::new(manifest).parent());
    Ok(dir.with_context(|| format!("{package} is no package of this workspace"))?.to_owned())
}

fn edges() -> Result<Vec<Edge>> {
    let mut edges = Vec::new();
    for package in packages()? {
        let from = name_of(&package);
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let dev = dependency["kind"].as_str() == Some("dev");
            edges.push(Edge { from: from.clone(), to: name_of(dependency), dev });
        }
    }
    Ok(edges)
}

fn violations(members: &[String], edges: &[Edge]) -> Vec<String> {
    let floors: BTreeMap<&str, u8> = FLOORS.iter().copied().collect();
    let mut wrong: Vec<String> = members
        .iter()
        .filter(|name| !floors.contains_key(name.as_str()))
        .map(|name| format!("{name} has no floor; give it one in xtask/src/floors.rs"))
        .collect();
    for edge in edges {
        let (Some(from), to) = (floors.get(edge.from.as_str()), floors.get(edge.to.as_str())) else {
            continue;
        };
        let to_harness = to.is_some_and(|to| *to >= 5);
        if let Some(to) = to
            && to >= from
            && !(edge.dev && to_harness)
        {
            wrong.push(format!("{} (floor {from}) depends on {} (floor {to})", edge.from, edge.to));
        }
        let walls = WALLS.iter().filter(|(name, _)| *name == edge.from).flat_map(|(_, walls)| *walls);
        if !edge.dev && walls.into_iter().any(|wall| *wall == edge.to) {
            wrong.push(format!("{} may never reach {}", edge.from, edge.to));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(from: &str, to: &str, dev: bool) -> Edge {
        Edge { from: from.to_owned(), to: to.to_owned(), dev }
    }

    /// OV-002, OV-005
    #[test]
    fn every_edge_of_the_workspace_goes_down() {
        check().unwrap();
    }

    #[test]
    fn an_edge_up_a_sibling_edge_and_a_wall_are_found() {
        let edges = [
            edge("wire", "registry", false),
            edge("handoff", "registry", false),
            edge("dispatch", "axum", false),
            edge("dispatch", "stub-llama", true),
            edge("dispatch", "wire", false),
        ];
        let wrong = violations(&["unheard-of".to_owned()], &edges);
        assert_eq!(wrong.len(), 5, "{wrong:#?}"); // handoff → registry is both a sibling and a wall
    }
}
