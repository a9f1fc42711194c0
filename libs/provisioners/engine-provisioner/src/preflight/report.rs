//! The report as a value and as text: what was found, what the provisioner brings itself, and what somebody
//! has to install, each with the one key of the configuration that changes it.

use std::fmt;

use serde::Serialize;

/// What a build asks of this machine, everything at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Report {
    /// In the order in which a build needs them.
    pub checks: Vec<Check>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is looked at, as `C++ compiler`.
    pub what: String,
    /// What came of it.
    #[serde(flatten)]
    pub finding: Finding,
    /// The key of the configuration that changes it, as `provisioning.sources`.
    pub key: &'static str,
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Finding {
    /// It is there and good enough.
    Found {
        /// Version and place, as `3.30.1 (/usr/bin/cmake)`.
        found: String,
    },
    /// It is not, and nobody has to do anything.
    Handled {
        /// What happens instead.
        how: String,
    },
    /// It is not, and the build needs it.
    Missing {
        /// What for, or what is there instead.
        why: String,
        /// What to install on this distribution, or what else to do.
        remedy: String,
        /// This distribution's packages that would help; none for what no package brings.
        #[serde(skip)]
        packages: Vec<&'static str>,
    },
}

/// The key that has missing packages installed.
const INSTALLS: &str = "provisioning.allow_package_installs";

impl Report {
    /// Whether anything stops the build.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing().next().is_none()
    }

    /// What stops it.
    pub fn missing(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.is_missing())
    }

    /// The packages that would help, each once, sorted.
    pub(crate) fn packages(&self) -> Vec<&'static str> {
        let lists = self.checks.iter().filter_map(|check| match &check.finding {
            Finding::Missing { packages, .. } => Some(packages),
            _ => None,
        });
        let mut packages: Vec<_> = lists.flatten().copied().collect();
        packages.sort_unstable();
        packages.dedup();
        packages
    }

    pub(super) fn found(&mut self, what: impl Into<String>, found: impl Into<String>, key: &'static str) {
        self.add(what, Finding::Found { found: found.into() }, key);
    }

    pub(super) fn handled(&mut self, what: impl Into<String>, how: impl Into<String>, key: &'static str) {
        self.add(what, Finding::Handled { how: how.into() }, key);
    }

    /// `packages` are separated by spaces; where there are some, installing them is what a key can do.
    pub(super) fn missing_one(
        &mut self,
        what: impl Into<String>,
        why: impl Into<String>,
        remedy: impl Into<String>,
        packages: &'static str,
        key: &'static str,
    ) {
        let packages: Vec<_> = packages.split_whitespace().collect();
        let key = if packages.is_empty() { key } else { INSTALLS };
        self.add(what, Finding::Missing { why: why.into(), remedy: remedy.into(), packages }, key);
    }

    fn add(&mut self, what: impl Into<String>, finding: Finding, key: &'static str) {
        self.checks.push(Check { what: what.into(), finding, key });
    }
}

impl Check {
    /// Whether packages of this distribution would help.
    pub(crate) fn has_packages(&self) -> bool {
        matches!(&self.finding, Finding::Missing { packages, .. } if !packages.is_empty())
    }

    /// In one line, without the column that [`Report`] aligns.
    pub(crate) fn in_words(&self) -> String {
        self.to_string().replacen("  ", " ", 1)
    }

    /// Whether it stops the build.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self.finding, Finding::Missing { .. })
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, finding, key } = self;
        match finding {
            Finding::Found { found } => write!(f, "ok       {what}: {found} [{key}]"),
            Finding::Handled { how } => write!(f, "ok       {what}: {how} [{key}]"),
            Finding::Missing { why, remedy, .. } => write!(f, "MISSING  {what} ({why}): {remedy} [{key}]"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.checks.iter().try_for_each(|check| writeln!(f, "{check}"))
    }
}
