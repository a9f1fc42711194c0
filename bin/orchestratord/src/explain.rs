//! `orchestratord config`: what is in force, and who said so. stdout is data; nothing is started.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use config_loader::{Env, Explained, Origin, Source};

use crate::cli::ConfigCommand;
use crate::exit::{CONFIG, Fatal};

/// Does what the command says.
pub fn run(config: Option<&Path>, command: &ConfigCommand) -> Result<()> {
    let ConfigCommand::Explain { json } = command;
    let refused = |error: config_loader::ConfigError| Fatal::new(CONFIG, error.to_string());
    let env = Env::from_process().map_err(refused)?;
    let (origin, values) = config_loader::explain(config, &env).map_err(refused)?;
    let text = if *json { lines(&origin, &values) } else { table(&origin, &values) };
    std::io::stdout().write_all(text.as_bytes()).context("printing the configuration")
}

/// `key  value  origin`, each value as it would be written in the file.
fn table(origin: &Origin, values: &[Explained]) -> String {
    let rows: Vec<[String; 3]> =
        values.iter().map(|e| [e.key.clone(), e.value.to_string(), named(origin, e.from)]).collect();
    // One long list of flags must not push every origin off the screen.
    let width = |column: usize, most: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).min(most)
    };
    let (key, value) = (width(0, 60), width(1, 40));
    rows.iter().map(|[k, v, from]| format!("{k:key$}  {v:value$}  {from}\n")).collect()
}

fn lines(origin: &Origin, values: &[Explained]) -> String {
    let line = |e: &Explained| {
        serde_json::json!({"key": e.key, "value": e.value, "from": named(origin, e.from)}).to_string() + "\n"
    };
    values.iter().map(line).collect()
}

fn named(origin: &Origin, from: Source) -> String {
    match (origin, from) {
        (Origin::File(path), Source::File(place)) => format!("{}{place}", path.display()),
        (_, from) => from.to_string(),
    }
}
