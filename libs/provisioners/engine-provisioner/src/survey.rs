//! The smoke gate: a binary must say its version and its flags before anybody is told that it is an
//! engine. What it says is kept, so that a pool's `flags` are checked against the build they are for.
//! It runs to completion with nothing but `--version`, `--help` and `--list-devices`: no engine is started.

use std::path::Path;
use std::time::Duration;

use provisioners_model_provisioner::Cancel;
use serde::{Deserialize, Serialize};

use crate::helper::{Helper, HelperError};
use crate::host::Host;

/// What a build says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Survey {
    /// The line of `--version` that names the version.
    pub(crate) version: String,
    /// Every spelling of every flag in `--help`, sorted.
    pub(crate) flags: Vec<String>,
    /// The CUDA devices of `--list-devices`; asked only of an engine that is to have some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) cuda_devices: Vec<String>,
}

/// Why a binary is no engine.
#[derive(Debug)]
pub(crate) enum SurveyError {
    Cancelled,
    Failed(String),
}

/// It prints two texts; loading CUDA libraries from a cold disk takes some seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// llama-server has some hundred; a program without these is another one.
const EXPECTED: [&str; 4] = ["--model", "--ctx-size", "--port", "--host"];

impl Survey {
    /// Asks `binary`. `scratch` exists and is empty: it stands for home and configuration. An engine for
    /// the cards of `device_mask` must see one of them: what the build was told proves nothing.
    pub(crate) fn take(
        host: &Host,
        binary: &Path,
        scratch: &Path,
        device_mask: Option<&str>,
        cancel: &Cancel,
    ) -> Result<Self, SurveyError> {
        let ask = |helper: Helper<'_>, on_line: &mut dyn FnMut(&str)| {
            let helper = helper.env("HOME", scratch).env("XDG_CONFIG_HOME", scratch).limit(LIMIT);
            helper.run(on_line).map_err(|error| match error {
                HelperError::Cancelled => SurveyError::Cancelled,
                other => {
                    SurveyError::Failed(format!("it does not even print its version and flags: {other}"))
                }
            })
        };
        let mut version = None;
        ask(Helper::engine_version(host, binary, cancel), &mut |line| {
            if version.is_none() && line.starts_with("version:") {
                version = Some(line.trim_start_matches("version:").trim().to_owned());
            }
        })?;
        let mut flags = Vec::new();
        ask(Helper::engine_help(host, binary, cancel), &mut |line| flags.extend(spellings(line)))?;
        flags.sort();
        flags.dedup();
        let knows = |name: &str| flags.iter().any(|flag| flag == name);
        if let Some(absent) = EXPECTED.iter().find(|name| !knows(name)) {
            return Err(SurveyError::Failed(format!("its --help knows no {absent}: it is no llama-server")));
        }
        let mut cuda_devices = Vec::new();
        if let Some(mask) = device_mask {
            let helper = Helper::engine_devices(host, binary, cancel).env("CUDA_VISIBLE_DEVICES", mask);
            ask(helper, &mut |line| {
                cuda_devices.extend(line.trim().starts_with("CUDA").then(|| line.trim().to_owned()));
            })?;
            if cuda_devices.is_empty() {
                let problem = "it came out without CUDA, or cannot use the card: its --list-devices names no CUDA device";
                return Err(SurveyError::Failed(problem.to_owned()));
            }
        }
        let version = version.unwrap_or_else(|| "unknown".to_owned());
        Ok(Self { version, flags, cuda_devices })
    }

    /// What is wrong with a planned command line, for people; `engine` is the version of ours.
    pub(crate) fn refusal(&self, engine: &str, argv: &[String]) -> Option<String> {
        let (flag, nearest) = self.unknown(argv)?;
        let nearest = nearest.map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"));
        Some(format!("flags: {flag} is not known to {engine} ({}){nearest}", self.version))
    }

    /// The first flag of a planned command line that this build does not know, with the nearest it does.
    fn unknown(&self, argv: &[String]) -> Option<(String, Option<String>)> {
        let flag = argv.iter().find(|item| is_flag(item) && self.flags.binary_search(item).is_err())?;
        let distance = |known: &&String| strsim::damerau_levenshtein(flag, known);
        let nearest = self.flags.iter().min_by_key(distance).filter(|known| distance(known) <= 3);
        Some((flag.clone(), nearest.cloned()))
    }
}

/// `-fa,   --flash-attn [on|off|auto]   set …`: the spellings before the first value or text.
fn spellings(line: &str) -> Vec<String> {
    let mut out = Vec::new();
    for word in line.split_whitespace() {
        let (name, more) = word.strip_suffix(',').map_or((word, false), |name| (name, true));
        if !is_flag(name) {
            break;
        }
        out.push(name.to_owned());
        if !more {
            break;
        }
    }
    // A continuation line is indented; a description may begin with a flag.
    if line.starts_with('-') { out } else { Vec::new() }
}

/// Not a negative number, which is a value.
fn is_flag(item: &str) -> bool {
    let name = item.strip_prefix("--").or_else(|| item.strip_prefix('-')).unwrap_or_default();
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && !matches!(name, "inf" | "infinity" | "nan")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spellings_of_a_help_text_are_read_and_its_prose_is_not() {
        let at = |line| spellings(line).join(" ");
        assert_eq!(
            at("-n,    --predict, --n-predict N         number of tokens"),
            "-n --predict --n-predict"
        );
        assert_eq!(at("--cpu-strict <0|1>                      use strict"), "--cpu-strict");
        assert_eq!(at("-h,    --help, --usage                  print usage"), "-h --help --usage");
        assert_eq!(at("                                        --threads)"), "");
        assert_eq!(at("----- common params -----"), "");
    }

    /// EPROV-016
    #[test]
    fn a_flag_this_build_does_not_know_is_named_with_the_nearest_it_does() {
        let flags = ["--seed", "--threads", "-t"].map(str::to_owned).to_vec();
        let survey = Survey { version: "1".into(), flags, cuda_devices: Vec::new() };
        let unknown =
            |items: &[&str]| survey.unknown(&items.iter().map(|i| (*i).to_owned()).collect::<Vec<_>>());
        assert_eq!(unknown(&["--threads", "4", "--seed", "-1"]), None);
        assert_eq!(unknown(&["--treads", "4"]), Some(("--treads".into(), Some("--threads".into()))));
        assert_eq!(unknown(&["--something-else"]), Some(("--something-else".into(), None)));
    }
}
