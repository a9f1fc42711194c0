//! `cargo xtask sbom`: a CycloneDX list of what is linked into each program, from cargo's own resolution:
//! nothing that only tests or build scripts use. The same lock file gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{PROGRAMS, cargo};

/// The platforms that are shipped.
const PLATFORMS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

/// A crate that is linked into a program.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) version: String,
    /// As its manifest says it; an SPDX expression.
    pub(crate) licence: Option<String>,
    /// Of its package on the registry; absent for ours.
    sha256: Option<String>,
}

/// What cargo resolved.
struct Graph {
    crates: BTreeMap<String, Crate>,
    /// Normal dependencies, by package id.
    edges: BTreeMap<String, BTreeSet<String>>,
}

pub(crate) fn run() -> Result<()> {
    use std::io::Write as _;
    for (path, count) in write_to(&crate::root().join("target/sbom"))? {
        writeln!(std::io::stdout(), "{}: {count} crates", path.display()).context("writing to stdout")?;
    }
    Ok(())
}

/// Writes the list of each program, and says where and of how many crates.
pub(crate) fn write_to(dir: &Path) -> Result<Vec<(PathBuf, usize)>> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let graph = Graph::read()?;
    let write_one = |(package, program)| {
        let path = write(dir, program, &graph.document(package, program)?)?;
        Ok((path, graph.linked(package)?.len()))
    };
    PROGRAMS.into_iter().map(write_one).collect()
}

fn write(dir: &Path, program: &str, document: &Value) -> Result<PathBuf> {
    let path = dir.join(format!("{program}.cdx.json"));
    let text = serde_json::to_string_pretty(document).context("writing JSON")?;
    std::fs::write(&path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// Every crate that is linked into any program.
#[cfg(test)]
pub(crate) fn shipped() -> Result<BTreeSet<Crate>> {
    let graph = Graph::read()?;
    let mut all = BTreeSet::new();
    for (package, _) in PROGRAMS {
        all.extend(graph.linked(package)?.into_iter().map(|id| graph.crates[&id].clone()));
    }
    Ok(all)
}

impl Graph {
    fn read() -> Result<Self> {
        let mut command = cargo();
        command.args(["metadata", "--format-version", "1", "--locked"]);
        command.args(PLATFORMS.iter().flat_map(|platform| ["--filter-platform", platform]));
        let output = command.output().context("running cargo metadata")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cargo metadata failed: {said}");
        let metadata: Value = serde_json::from_slice(&output.stdout).context("reading cargo metadata")?;
        let lock = crate::root().join("Cargo.lock");
        let lock = std::fs::read_to_string(&lock).with_context(|| format!("reading {}", lock.display()))?;
        Ok(Self { crates: crates(&metadata, &checksums(&lock)), edges: edges(&metadata) })
    }

    /// The package ids of what is linked into a package, itself included.
    fn linked(&self, package: &str) -> Result<BTreeSet<String>> {
        let own = |(_, of): &(&String, &Crate)| of.name == package && of.sha256.is_none();
        let (root, _) = self.crates.iter().find(own).with_context(|| format!("no package {package}"))?;
        let (mut found, mut open) = (BTreeSet::new(), vec![root.clone()]);
        while let Some(id) = open.pop() {
            if found.insert(id.clone()) {
                open.extend(self.edges.get(&id).into_iter().flatten().cloned());
            }
        }
        Ok(found)
    }

    fn document(&self, package: &str, program: &str) -> Result<Value> {
        let linked = self.linked(package)?;
        let of = |id: &String| &self.crates[id];
        let own = linked.iter().map(of).find(|of| of.name == package && of.sha256.is_none());
        let own = own.with_context(|| format!("no package {package}"))?;
        let mut components: Vec<&Crate> = linked.iter().map(of).filter(|of| *of != own).collect();
        components.sort();
        let mut dependencies: Vec<Value> = linked
            .iter()
            .map(|id| {
                let mut on: Vec<String> =
                    self.edges.get(id).into_iter().flatten().map(|to| of(to).purl()).collect();
                on.sort();
                json!({"ref": of(id).purl(), "dependsOn": on})
            })
            .collect();
        dependencies.sort_by_key(|dependency| dependency["ref"].to_string());
        Ok(json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": {"component": {
                "type": "application", "bom-ref": own.purl(), "name": program, "version": own.version,
                "purl": own.purl(), "licenses": own.licences(),
            }},
            "components": components.iter().map(|of| of.component()).collect::<Vec<_>>(),
            "dependencies": dependencies,
        }))
    }
}

impl Crate {
    fn purl(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version)
    }

    fn licences(&self) -> Value {
        match &self.licence {
            Some(expression) => json!([{"expression": expression.replace('/', " OR ")}]),
            None => json!([]),
        }
    }

    fn component(&self) -> Value {
        let mut component = json!({
            "type": "library", "bom-ref": self.purl(), "name": self.name, "version": self.version,
            "purl": self.purl(), "licenses": self.licences(),
        });
        if let Some(sha256) = &self.sha256 {
            component["hashes"] = json!([{"alg": "SHA-256", "content": sha256}]);
        }
        component
    }
}

fn crates(metadata: &Value, checksums: &BTreeMap<(String, String), String>) -> BTreeMap<String, Crate> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    packages
        .map(|package| {
            let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
            let (name, version) = (text("name"), text("version"));
            let sha256 = checksums.get(&(name.clone(), version.clone())).cloned();
            let licence = package["license"].as_str().map(str::to_owned);
            (text("id"), Crate { name, version, licence, sha256 })
        })
        .collect()
}

fn edges(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let nodes = metadata["resolve"]["nodes"].as_array().into_iter().flatten();
    let is_normal = |dependency: &&Value| {
        let kinds = dependency["dep_kinds"].as_array().into_iter().flatten();
        kinds.into_iter().any(|kind| kind["kind"].is_null())
    };
    nodes
        .map(|node| {
            let all = node["deps"].as_array().into_iter().flatten().filter(is_normal);
            let on = all.filter_map(|dependency| dependency["pkg"].as_str().map(str::to_owned));
            (node["id"].as_str().unwrap_or_default().to_owned(), on.collect())
        })
        .collect()
}

/// Of the lock file, whose shape is one key a line: name and version to SHA-256.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let packages = lock.split("[[package]]").skip(1);
    packages
        .filter_map(|package| {
            let value = |key: &str| {
                let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""))?;
                line.strip_suffix('"').map(str::to_owned)
            };
            Some(((value("name")?, value("version")?), value("checksum")?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PROOF-006
    #[test]
    fn the_list_names_what_is_linked_with_its_hash_and_nothing_that_only_tests_use() {
        let graph = Graph::read().unwrap();
        let document = graph.document("orchestratord", "orchestratord").unwrap();
        let components = document["components"].as_array().unwrap();
        let named = |name: &str| components.iter().find(|component| component["name"] == name);
        for name in ["hyper", "redb", "dispatch"] {
            assert!(named(name).is_some(), "{name} is linked");
        }
        for name in ["wiremock", "jsonschema", "proptest", "stub-llama", "test-harness-e2e-haiku"] {
            assert!(named(name).is_none(), "{name} is not linked");
        }
        let hash = &named("hyper").unwrap()["hashes"][0];
        assert!(hash["alg"] == "SHA-256" && hash["content"].as_str().unwrap().len() == 64, "{hash}");
        for component in components {
            assert!(component["licenses"][0]["expression"].is_string(), "{component}");
        }
        let refs: BTreeSet<&str> =
            document["dependencies"].as_array().unwrap().iter().filter_map(|d| d["ref"].as_str()).collect();
        assert_eq!(refs.len(), components.len() + 1, "each component, and the program, once");
        assert_eq!(document, graph.document("orchestratord", "orchestratord").unwrap());
    }

    #[test]
    fn checksums_are_read_from_the_lock_file() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1\"\nchecksum = \"ff\"\n\n\
                    [[package]]\nname = \"ours\"\nversion = \"0\"\n";
        assert_eq!(checksums(lock), BTreeMap::from([(("a".to_owned(), "1".to_owned()), "ff".to_owned())]));
    }
}
