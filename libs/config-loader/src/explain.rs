//! Each effective value beside where it came from: the built-in default, a line of the file, or a
//! variable of the environment. It loads like [`load`](crate::load) and decides nothing by itself.

use std::fmt;
use std::path::Path;

use serde_json::Value;

use crate::{ConfigError, Env, Loaded, Origin, Place, locate, overlay, parse};

/// One value of the effective configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Explained {
    /// Dotted path, as `pools[0].ctx`.
    pub key: String,
    /// The value in force: a scalar, or a list of scalars.
    pub value: Value,
    /// Who set it.
    pub from: Source,
}

/// Who set a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Nobody; the built-in default holds.
    Default,
    /// The configuration file.
    File(Place),
    /// This variable of the environment.
    Variable(&'static str),
}

impl fmt::Display for Source {
    /// `default`, `file:LINE:COLUMN`, `$NAME`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(place) => write!(f, "file{place}"),
            Self::Variable(name) => write!(f, "${name}"),
        }
    }
}

/// The effective configuration, value by value in the order of the schema, and where its file is.
///
/// Fails as [`load`](crate::load) does.
pub fn explain(path: Option<&Path>, env: &Env) -> Result<(Origin, Vec<Explained>), ConfigError> {
    let (loaded, applied) = crate::load_and_note(path, env)?;
    let Loaded { config, origin } = loaded;
    let file = match &origin {
        Origin::BuiltIn => None,
        Origin::File(path) => {
            let text = parse::text(path)?;
            let written = parse::written(path, &text)?;
            Some((text, written))
        }
    };
    let effective = serde_json::to_value(&config)
        .map_err(|error| ConfigError::Unshowable { problem: error.to_string() })?;
    let mut values = Vec::new();
    leaves(String::new(), effective, &mut values);
    // The gate decides for every pool, whatever the pool says.
    let gated = |key: &str| config.require_gpu && key.ends_with(".provisioning.gpu");
    let explained = values.into_iter().map(|(key, value)| {
        let decides = |key: &str| if gated(key) { "require_gpu".to_owned() } else { key.to_owned() };
        let from = match applied.iter().find(|applied| applied.key == key) {
            Some(overlay::Applied { variable, .. }) => Source::Variable(variable),
            None => match &file {
                Some((text, written)) if holds(written, &decides(&key)) => {
                    Source::File(locate::key(text, &decides(&key)))
                }
                _ => Source::Default,
            },
        };
        Explained { key, value, from }
    });
    Ok((origin, explained.collect()))
}

/// Takes a value apart down to scalars and lists of scalars; an empty map is a value of its own.
fn leaves(key: String, value: Value, out: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                leaves(if key.is_empty() { name } else { format!("{key}.{name}") }, value, out);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, item) in items.into_iter().enumerate() {
                leaves(format!("{key}[{index}]"), item, out);
            }
        }
        value => out.push((key, value)),
    }
}

/// Whether the file's text gives this key a value; one that it leaves empty is nobody's.
fn holds(written: &Value, key: &str) -> bool {
    let mut at = written;
    for step in key.split('.').flat_map(locate::steps) {
        let next = match step {
            locate::Step::Key(name) => at.get(name),
            locate::Step::Item(index) => at.get(index),
        };
        match next {
            Some(value) => at = value,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(text: &str, vars: &[(&str, &str)]) -> Vec<Explained> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.yaml");
        std::fs::write(&path, text).unwrap();
        let vars = vars.iter().copied().chain([("HOME", "/h")]);
        explain(Some(&path), &Env::new("/w", vars)).unwrap().1
    }

    fn of<'a>(all: &'a [Explained], key: &str) -> &'a Explained {
        all.iter().find(|e| e.key == key).unwrap_or_else(|| panic!("no {key} in {all:#?}"))
    }

    /// OV-008
    #[test]
    fn each_value_names_who_set_it() {
        let text = "paths: { cache: ~/c }\npools:\n  - id: a\n    model: builtin:haiku\n  - id: b\n    model: builtin:haiku\n    ctx: 512\n    flags: [--threads, '2']\n    provisioning:\n      sources:\n        - path: { binary: /x }\n";
        let all = explained(
            text,
            &[("ORCHD_ADDR", "127.0.0.1:9"), ("RUNTIME_DIRECTORY", "/run/x"), ("LLAMA_ORCH_ON_EXIT", "keep")],
        );
        assert_eq!(of(&all, "pools[1].on_exit").value, "keep");
        assert_eq!(of(&all, "pools[1].on_exit").from, Source::Variable("LLAMA_ORCH_ON_EXIT"));
        assert_eq!(of(&all, "api.listen").from, Source::Variable("ORCHD_ADDR"));
        assert_eq!(of(&all, "api.listen").value, "127.0.0.1:9");
        assert_eq!(of(&all, "paths.runtime").from, Source::Variable("RUNTIME_DIRECTORY"));
        assert_eq!(of(&all, "paths.cache").value, "/h/c");
        assert_eq!(of(&all, "paths.cache").from, Source::File(Place::At { line: 1, column: 10 }));
        assert_eq!(of(&all, "pools[0].ctx").from, Source::Default);
        assert_eq!(of(&all, "pools[1].ctx").from, Source::File(Place::At { line: 7, column: 5 }));
        assert_eq!(of(&all, "pools[1].flags").value, serde_json::json!(["--threads", "2"]));
        let binary = of(&all, "pools[1].provisioning.sources[0].path.binary");
        assert_eq!(binary.from.to_string(), "file:11:19");
    }

    /// OV-008
    #[test]
    fn without_a_file_everything_is_a_default() {
        let (origin, all) = explain(None, &Env::new("/w", [("HOME", "/h")])).unwrap();
        assert_eq!(origin, Origin::BuiltIn);
        assert!(all.iter().all(|e| e.from == Source::Default));
        assert_eq!(of(&all, "pools[0].model").value, "builtin:haiku");
    }

    /// OV-008
    #[test]
    fn json_is_explained_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.json");
        std::fs::write(&path, "{\n\t\"journal\": {\"keep_tasks\": 7}\n}").unwrap();
        let all = explain(Some(&path), &Env::new("/w", [("HOME", "/h")])).unwrap().1;
        assert_eq!(of(&all, "journal.keep_tasks").from, Source::File(Place::At { line: 2, column: 15 }));
        assert_eq!(of(&all, "journal.keep_bytes").from, Source::Default);
    }
}
