//! The command line, which is llama-server's as far as the stub minds: flags that do not matter
//! here are accepted and ignored, with their values.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use crate::Faults;

/// How a stub behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StubConfig {
    /// `--host`.
    pub host: IpAddr,
    /// `--port`; 0 is any free one.
    pub port: u16,
    /// `--parallel`: generations at once.
    pub parallel: u32,
    /// `--ctx-size`: tokens of context over all slots.
    pub ctx_size: u32,
    /// `--model`, shown in `/props`; never opened.
    pub model: String,
    /// `--alias`.
    pub alias: Option<String>,
    /// `--api-key` or the lines of `--api-key-file`; empty: open to all.
    pub api_keys: Vec<String>,
    /// `--metrics`.
    pub metrics: bool,
    /// `--version`: say it and exit.
    pub version: bool,
    /// `--help`: list the flags and exit.
    pub help: bool,
    /// `--list-devices`: name the cards that it may use, as a build for CUDA does, and exit.
    pub list_devices: bool,
    /// What goes wrong.
    pub faults: Faults,
}

impl Default for StubConfig {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
            parallel: 1,
            ctx_size: 4096,
            model: "/models/stub.gguf".to_owned(),
            alias: None,
            api_keys: Vec::new(),
            metrics: true,
            version: false,
            help: false,
            list_devices: false,
            faults: Faults::default(),
        }
    }
}

/// Why the command line is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A flag or variable has a value it cannot have.
    #[error("{name} {value:?} {rule}")]
    Value {
        /// The flag or variable.
        name: String,
        /// Its value.
        value: String,
        /// What it must be.
        rule: &'static str,
    },
    /// No such switch.
    #[error("there is no switch {0}")]
    UnknownSwitch(String),
    /// A line of the file that `STUB_SWITCHES_FILE` names is no `name=value`.
    #[error("{} has a line that is no NAME=VALUE: {line:?}", path.display())]
    SwitchLine {
        /// The file.
        path: PathBuf,
        /// The line.
        line: String,
    },
    /// The key file cannot be read.
    #[error("cannot read the API key file {}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl StubConfig {
    /// Reads the arguments (without the program's name) and the `STUB_*` variables among
    /// `variables`; arguments win. `STUB_SWITCHES_FILE` names a file with a switch a line, as
    /// `hang-after=3`, that is read where it exists: the lives of an engine differ by what is in it when
    /// they begin, though its pool's environment is the same.
    pub fn parse(
        arguments: impl IntoIterator<Item = String>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        // The real server answers 501 on /metrics unless it is asked for; in-process tests are not
        // asked to ask.
        let mut config = Self { port: 8080, metrics: false, ..Self::default() };
        for (variable, value) in variables {
            if variable == "STUB_SWITCHES_FILE" {
                config.switches(Path::new(&value))?;
            } else if let Some(name) = variable.strip_prefix("STUB_") {
                config.switch(&variable, &name.to_lowercase().replace('_', "-"), &value)?;
            }
        }
        let mut arguments = arguments.into_iter().peekable();
        while let Some(argument) = arguments.next() {
            let (name, inline) = match argument.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (argument, None),
            };
            let mut value = || inline.clone().or_else(|| arguments.next_if(|next| !next.starts_with("--")));
            if let Some(switch) = name.strip_prefix("--stub-") {
                let value = value().unwrap_or_else(|| "1".to_owned());
                config.switch(&name, switch, &value)?;
            } else {
                match name.as_str() {
                    "--metrics" => config.metrics = true,
                    "--version" => config.version = true,
                    "--help" => config.help = true,
                    "--list-devices" => config.list_devices = true,
                    _ => config.flag(&name, &value().unwrap_or_default())?,
                }
            }
        }
        Ok(config)
    }

    /// Tokens of context in one slot.
    #[must_use]
    pub fn slot_ctx(&self) -> u32 {
        self.ctx_size / self.parallel.max(1)
    }

    /// The name the engine gives its model.
    #[must_use]
    pub fn model_name(&self) -> &str {
        self.alias.as_deref().unwrap_or_else(|| self.model.rsplit('/').next().unwrap_or_default())
    }

    fn switches(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().filter(|line| !line.is_empty()).try_for_each(|line| {
            let no_switch = || ConfigError::SwitchLine { path: path.to_owned(), line: line.to_owned() };
            let (name, value) = line.split_once('=').ok_or_else(no_switch)?;
            self.switch(name, name, value)
        })
    }

    fn switch(&mut self, shown: &str, name: &str, value: &str) -> Result<(), ConfigError> {
        match self.faults.set(name, value) {
            Ok(true) => Ok(()),
            Ok(false) => Err(ConfigError::UnknownSwitch(shown.to_owned())),
            Err(rule) => Err(ConfigError::Value { name: shown.to_owned(), value: value.to_owned(), rule }),
        }
    }

    fn flag(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let bad = |rule| ConfigError::Value { name: name.to_owned(), value: value.to_owned(), rule };
        let number = || value.parse::<u32>().map_err(|_| bad("must be a number"));
        match name {
            "--host" => self.host = value.parse().map_err(|_| bad("must be an address"))?,
            "--port" => self.port = value.parse().map_err(|_| bad("must be a port"))?,
            "--parallel" | "-np" => self.parallel = number()?.max(1),
            "--ctx-size" | "-c" => self.ctx_size = number()?,
            "--model" | "-m" => self.model = value.to_owned(),
            "--alias" | "-a" => self.alias = Some(value.to_owned()),
            "--api-key" => self.api_keys.extend(value.split(',').map(str::to_owned)),
            "--api-key-file" => self.api_keys.extend(read_keys(value)?),
            _ => {}
        }
        Ok(())
    }
}

fn read_keys(path: &str) -> Result<Vec<String>, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::KeyFile { path: PathBuf::from(path), source })?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str, variables: &[(&str, &str)]) -> Result<StubConfig, ConfigError> {
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        StubConfig::parse(line.split_whitespace().map(str::to_owned), variables)
    }

    #[test]
    fn a_real_command_line_is_understood() {
        let config = parse(
            "--model /m/haiku.gguf --ctx-size 4096 --parallel 2 --no-cont-batching --no-webui --metrics \
             --fit off --n-gpu-layers 0 --host 127.0.0.1 --port 4001 --api-key k",
            &[],
        )
        .unwrap();
        assert_eq!((config.port, config.parallel, config.slot_ctx()), (4001, 2, 2048));
        assert_eq!(config.model_name(), "haiku.gguf");
        assert_eq!(config.api_keys, ["k"]);
        assert!(config.metrics);
    }

    #[test]
    fn switches_come_from_flags_and_variables_and_flags_win() {
        let config =
            parse("--stub-mute --stub-token-ms 5", &[("STUB_TOKEN_MS", "9"), ("STUB_HANG_AFTER", "3")])
                .unwrap();
        assert!(config.faults.mute);
        assert_eq!(config.faults.token.as_millis(), 5);
        assert_eq!(config.faults.hang_after, Some(3));
    }

    #[test]
    fn a_file_of_switches_is_read_where_it_exists() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "exit-at-start=3\nsay=the sky = fell\n").unwrap();
        let named = |path: &Path| parse("", &[("STUB_SWITCHES_FILE", path.to_str().unwrap())]);
        let faults = named(file.path()).unwrap().faults;
        assert_eq!((faults.exit_at_start, faults.say.as_deref()), (Some(3), Some("the sky = fell")));
        assert_eq!(named(Path::new("/absent/switches")).unwrap().faults, Faults::default());
        std::fs::write(file.path(), "mutee=1\n").unwrap();
        assert!(matches!(named(file.path()), Err(ConfigError::UnknownSwitch(_))));
        std::fs::write(file.path(), "mute\n").unwrap();
        assert!(matches!(named(file.path()), Err(ConfigError::SwitchLine { .. })));
    }

    #[test]
    fn a_misspelt_switch_is_an_error_and_not_a_test_without_its_fault() {
        assert!(matches!(parse("--stub-mutee", &[]), Err(ConfigError::UnknownSwitch(_))));
        assert!(matches!(parse("", &[("STUB_MUTEE", "1")]), Err(ConfigError::UnknownSwitch(_))));
        assert!(matches!(parse("--stub-hang-after x", &[]), Err(ConfigError::Value { .. })));
    }
}
