//! From a file to a checked [`Config`]: size limit, YAML or JSON, unknown keys with the nearest
//! known one, then the rules that types cannot express.

use std::io::Read as _;
use std::path::Path;

use serde_json::Value;
use wire::config::Config;

use crate::error::{ConfigError, LocatedProblem, Place};
use crate::unknown::Unknown;
use crate::{locate, words};

/// No configuration is anywhere near this; a wrong file (a model) is.
const MAX_BYTES: u64 = 1024 * 1024;

/// The configuration, and what the file has written down of it, untyped.
pub(crate) fn file(path: &Path) -> Result<(Config, Value), ConfigError> {
    let text = text(path)?;
    let config =
        if path.extension().is_some_and(|e| e == "json") { json(path, &text)? } else { yaml(path, &text)? };
    let problems = config.problems();
    if problems.is_empty() {
        return Ok((config, written(path, &text)?));
    }
    let located = |problem: wire::config::ConfigProblem| LocatedProblem {
        file: path.to_path_buf(),
        place: locate::key(&text, &problem.path),
        key: problem.path,
        problem: problem.problem,
    };
    Err(ConfigError::Values { problems: problems.into_iter().map(located).collect() })
}

/// The file's text.
pub(crate) fn text(path: &Path) -> Result<String, ConfigError> {
    let refuse = |problem: String| ConfigError::Read { path: path.to_path_buf(), problem };
    let file = std::fs::File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            refuse("it does not exist; check --config or ORCHD_CONFIG".to_owned())
        }
        _ => refuse(e.to_string()),
    })?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| refuse(e.to_string()))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(refuse(format!("it is larger than {MAX_BYTES} bytes; this is not a configuration")));
    }
    String::from_utf8(bytes).map_err(|e| refuse(format!("it is not UTF-8 text: {e}")))
}

fn yaml(path: &Path, text: &str) -> Result<Config, ConfigError> {
    let only_comments = |line: &str| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    };
    if text.lines().all(only_comments) {
        return Ok(Config::default());
    }
    // A source is an enum written as a map with one key, which YAML's own enum form is not.
    let parsed =
        serde_yaml::with::singleton_map_recursive::deserialize(serde_yaml::Deserializer::from_str(text));
    parsed.map_err(|e: serde_yaml::Error| {
        let place = e.location().map(|at| (at.line(), at.column()));
        let mut message = e.to_string();
        if let Some((line, column)) = place
            && let Some(stripped) = message.strip_suffix(&format!(" at line {line} column {column}"))
        {
            message = stripped.to_owned();
        }
        parse_error(path, text, place, &message)
    })
}

fn json(path: &Path, text: &str) -> Result<Config, ConfigError> {
    serde_json::from_str(text).map_err(|e| {
        let message = e.to_string();
        let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(head, _)| head);
        parse_error(path, text, Some((e.line(), e.column())), message)
    })
}

fn parse_error(path: &Path, text: &str, place: Option<(usize, usize)>, message: &str) -> ConfigError {
    let (mut place, mut problem) = (place, words::for_people(message));
    if let Some(unknown) = Unknown::from_message(message) {
        // Parsers report where the surrounding map or the value begins; a person wants the key.
        place = place.map(|(line, column)| locate::word(text, line, unknown.name).unwrap_or((line, column)));
        problem = unknown.to_string();
    }
    let place = match place {
        Some((line, column)) => Place::At { line, column },
        None => Place::Unknown,
    };
    ConfigError::Parse { path: path.to_path_buf(), place, problem }
}

/// What a file that [`file`] accepts has written down, untyped.
pub(crate) fn written(path: &Path, text: &str) -> Result<Value, ConfigError> {
    if path.extension().is_some_and(|e| e == "json") {
        return serde_json::from_str(text).map_err(|e| parse_error(path, text, None, &e.to_string()));
    }
    serde_yaml::from_str(text).map_err(|e| parse_error(path, text, None, &e.to_string()))
}
