//! A configuration file that is looked at again and again: read anew when it has changed, or when
//! somebody asks. What cannot be used is said once per change; which configuration stays in force then
//! is its reader's business.
//!
//! Looks instead of watching: a watch goes silent when a file is replaced in certain ways. A file that
//! changes under the eyes is left alone until it stands still: an editor may be writing it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use wire::config::Config;

use crate::{ConfigError, Env, load};

/// What tells one version of a file from another: device, inode, size, change time; `None` for one that
/// is not there.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// Follows one file. All calls block.
#[derive(Debug, Clone)]
pub struct Follow {
    path: PathBuf,
    env: Env,
    /// As it was when it was last read; `None` before that.
    read: Option<Stamp>,
    /// As it was at the last look.
    seen: Stamp,
}

impl Follow {
    /// Follows `path`, absolute. The first look reads it, in case it has changed since it was loaded.
    #[must_use]
    pub fn new(path: &Path, env: &Env) -> Self {
        Self { path: path.to_path_buf(), env: env.clone(), read: None, seen: stamp(path) }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says, if it has changed since it was last read and stands still since the last look.
    pub fn look(&mut self) -> Option<Result<Config, ConfigError>> {
        let now = stamp(&self.path);
        let stands_still = std::mem::replace(&mut self.seen, now) == now;
        (stands_still && self.read != Some(now)).then(|| self.read())
    }

    /// What it says now, changed or not.
    pub fn read(&mut self) -> Result<Config, ConfigError> {
        // Taken before: what is written meanwhile is another version.
        self.read = Some(stamp(&self.path));
        load(Some(&self.path), &self.env).map(|loaded| loaded.config)
    }
}

fn stamp(file: &Path) -> Stamp {
    let meta = std::fs::metadata(file).ok()?;
    Some((meta.dev(), meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec()))
}

/// The sections (the keys at the top of the file) in which two configurations differ.
#[must_use]
pub fn changed_sections(before: &Config, after: &Config) -> Vec<String> {
    let value = |config: &Config| serde_json::to_value(config).unwrap_or_default();
    let (before, after) = (value(before), value(after));
    let Some(sections) = after.as_object() else { return Vec::new() };
    sections
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(*value))
        .map(|(key, _)| key.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> Env {
        Env::new("/work/dir", [("HOME", "/home/me")])
    }

    /// OV-009
    #[test]
    fn a_file_is_read_when_it_has_changed_and_stands_still() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, "pools: [{id: a, model: m}]\n").unwrap();
        let mut follow = Follow::new(&path, &env());
        let first = follow.look().expect("the first look reads it").unwrap();
        assert_eq!(first.pools[0].id.as_str(), "a");
        assert!(follow.look().is_none());

        std::fs::write(&path, "pools: [{id: b, model: m}]\n# longer\n").unwrap();
        assert!(follow.look().is_none(), "it may still be being written");
        assert_eq!(follow.look().unwrap().unwrap().pools[0].id.as_str(), "b");
        assert!(follow.look().is_none());
    }

    /// OV-009
    #[test]
    fn a_file_that_cannot_be_used_or_is_gone_is_said_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, "pools: [{id: a, modle: m}]\n").unwrap();
        let mut follow = Follow::new(&path, &env());
        assert!(follow.look().unwrap().unwrap_err().to_string().contains("modle"));
        assert!(follow.look().is_none());
        assert!(follow.read().is_err(), "asked for, it is read all the same");
        std::fs::remove_file(&path).unwrap();
        assert!(follow.look().is_none());
        assert!(follow.look().unwrap().is_err(), "never the built-in default");
        assert!(follow.look().is_none());
    }

    #[test]
    fn the_sections_that_differ_are_named() {
        let before = Config::default();
        let mut after = before.clone();
        assert_eq!(changed_sections(&before, &after), Vec::<String>::new());
        after.api.hosts.push("box".to_owned());
        after.pools.clear();
        assert_eq!(changed_sections(&before, &after), ["api", "pools"]);
    }
}
