//! The environment as a value: read once, in [`Env::from_process`], so that nothing else in the
//! product depends on the process's own environment and tests can choose theirs.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::ConfigError;

/// Variables and the working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Env {
    working_dir: PathBuf,
    variables: BTreeMap<OsString, OsString>,
}

impl Env {
    /// The environment of this process.
    pub fn from_process() -> Result<Self, ConfigError> {
        let working_dir =
            std::env::current_dir().map_err(|e| ConfigError::WorkingDir { problem: e.to_string() })?;
        Ok(Self { working_dir, variables: std::env::vars_os().collect() })
    }

    /// An environment of exactly these variables. `working_dir` must be absolute.
    pub fn new<K: Into<OsString>, V: Into<OsString>>(
        working_dir: impl Into<PathBuf>,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let variables = variables.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        Self { working_dir: working_dir.into(), variables }
    }

    /// A variable; set but empty counts as absent.
    #[must_use]
    pub fn var(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|v| !v.is_empty())
    }

    /// A variable that must be text.
    pub fn text(&self, name: &'static str) -> Result<Option<&str>, ConfigError> {
        let Some(value) = self.var(name) else { return Ok(None) };
        value.to_str().map(Some).ok_or_else(|| ConfigError::Variable {
            name,
            value: value.to_string_lossy().into_owned(),
            problem: "is not valid UTF-8".to_owned(),
        })
    }

    /// All variables, for those who pass an allow-list of them on to a child.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.variables.iter().map(|(k, v)| (k.as_os_str(), v.as_os_str()))
    }

    /// The directory that relative paths are relative to.
    #[must_use]
    pub fn working_dir(&self) -> &Path {
        &self.working_dir
    }

    /// `path` with a leading `~` replaced by the home directory, made absolute. Touches no disk.
    pub fn absolute(&self, path: &Path) -> Result<PathBuf, ConfigError> {
        let Ok(rest) = path.strip_prefix("~") else { return Ok(self.working_dir.join(path)) };
        match self.var("HOME") {
            Some(home) if rest.as_os_str().is_empty() => Ok(self.working_dir.join(home)),
            Some(home) => Ok(self.working_dir.join(home).join(rest)),
            None => Err(ConfigError::NoHome { path: path.to_path_buf() }),
        }
    }
}
