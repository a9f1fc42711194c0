//! What the command line asks for.

use std::str::FromStr;

use crate::bars;

const HELP: &str = "cargo test -p test-harness-chaos -- [R1 R2 …] [--runs N] [--full] [--seed N] [--list]";

/// How to run.
pub(crate) struct Options {
    /// Times each bar is run.
    pub(crate) runs: u32,
    /// Full lengths.
    pub(crate) full: bool,
    /// Chances of an earlier run.
    pub(crate) seed: Option<u64>,
    /// Bars by id; all when empty.
    pub(crate) ids: Vec<String>,
}

/// What to do.
pub(crate) enum Asked {
    Run(Options),
    /// `terse`: as test runners ask which tests there are.
    List {
        terse: bool,
    },
    /// A filter that is none of ours, as `cargo test --workspace NAME` hands it to every suite.
    Nothing(String),
}

impl Options {
    pub(crate) fn read(arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
        let mut options = Self { runs: 1, full: false, seed: None, ids: Vec::new() };
        let (mut list, mut terse, mut ignored, mut foreign) = (false, false, false, None);
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--runs" => options.runs = number(&argument, arguments.next())?,
                "--seed" => options.seed = Some(number(&argument, arguments.next())?),
                "--full" => options.full = true,
                "--list" => list = true,
                // Of the usual harness, for those who run every suite alike.
                "--format" | "--test-threads" => terse |= arguments.next().as_deref() == Some("terse"),
                "--ignored" => ignored = true,
                "--nocapture" | "--no-capture" | "--exact" | "--quiet" | "--show-output" => {}
                "chaos" => {}
                flag if flag.starts_with('-') => return Err(format!("there is no {flag}; {HELP}")),
                name => match bars::all().iter().find(|bar| bar.id.eq_ignore_ascii_case(name)) {
                    Some(bar) => options.ids.push(bar.id.to_owned()),
                    None if looks_like_an_id(name) => return Err(format!("there is no bar {name}; {HELP}")),
                    None => foreign = Some(name.to_owned()),
                },
            }
        }
        if list {
            return Ok(if ignored { Asked::Nothing(String::new()) } else { Asked::List { terse } });
        }
        match foreign {
            Some(name) if options.ids.is_empty() => {
                Ok(Asked::Nothing(format!("no bar is called {name}; 0 bars run")))
            }
            _ => Ok(Asked::Run(options)),
        }
    }
}

fn number<N: FromStr>(name: &str, value: Option<String>) -> Result<N, String> {
    let parsed = value.as_deref().and_then(|value| value.parse().ok());
    parsed.ok_or_else(|| format!("{name} needs a number and was given {value:?}; {HELP}"))
}

fn looks_like_an_id(name: &str) -> bool {
    let digits = name.strip_prefix(['R', 'r']).unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}
