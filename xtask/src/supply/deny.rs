//! `cargo xtask deny`: the rules of `deny.toml`, by cargo-deny. Advisories only where somebody has put a
//! database on the machine: nothing here fetches one, and a check that silently did nothing would be worse.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};

use super::{cargo, cargo_home};

pub(crate) fn run() -> Result<()> {
    let found = cargo().args(["deny", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        bail!(
            "cargo-deny is not installed; install it with `cargo install --locked cargo-deny`, then run this again"
        );
    }
    check(&["bans", "licenses", "sources"])?;
    match database() {
        Some(path) => {
            say(&format!("advisories: from {}", path.display()))?;
            check(&["--disable-fetch", "advisories"])
        }
        None => say("advisories: not looked at, because there is no database below $CARGO_HOME/advisory-dbs"),
    }
}

fn check(what: &[&str]) -> Result<()> {
    let status = cargo().args(["deny", "--locked", "check"]).args(what).status();
    let status = status.context("running cargo deny")?;
    ensure!(status.success(), "cargo deny refuses {}; its reasons are above", what.join(", "));
    Ok(())
}

/// A directory in which cargo-deny finds databases, if there is one in it.
fn database() -> Option<PathBuf> {
    let path = cargo_home()?.join("advisory-dbs");
    let mut entries = std::fs::read_dir(&path).ok()?;
    entries.any(|entry| entry.is_ok_and(|entry| entry.path().is_dir())).then_some(path)
}

fn say(words: &str) -> Result<()> {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{words}").context("writing to stdout")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::supply::sbom;

    /// The quoted words of a list of deny.toml; its test needs no reader for all of TOML.
    fn listed(section: &str, key: &str) -> BTreeSet<String> {
        let text = std::fs::read_to_string(crate::root().join("deny.toml")).unwrap();
        let section = text.split(&format!("[{section}]")).nth(1).unwrap();
        let list = section.split(&format!("\n{key} = [")).nth(1).unwrap().split("\n]").next().unwrap();
        let code = list.lines().map(|line| line.split('#').next().unwrap_or_default());
        // Of a ban only its crate, not what to use instead.
        let words = if key == "deny" { 1 } else { usize::MAX };
        code.flat_map(|line| line.split('"').skip(1).step_by(2).take(words).map(str::to_owned)).collect()
    }

    /// An expression holds if every part of an `AND` has one licence that is allowed.
    fn holds(expression: &str, allowed: &BTreeSet<String>) -> bool {
        let plain = expression.replace(['(', ')'], " ").replace('/', " OR ");
        plain.split(" AND ").all(|part| {
            part.split(" OR ").any(|licence| {
                let licence = licence.split(" WITH ").next().unwrap_or_default().trim();
                allowed.contains(licence)
            })
        })
    }

    /// PROOF-005: what cargo-deny would say of what we ship, where it is not installed.
    #[test]
    fn what_is_shipped_has_a_licence_that_is_allowed_and_is_not_banned() {
        let allowed = listed("licenses", "allow");
        let exceptions = listed("licenses", "exceptions");
        let banned = listed("bans", "deny");
        assert!(allowed.contains("MIT") && banned.contains("openssl-sys"), "{allowed:?} {banned:?}");
        for crate_ in sbom::shipped().unwrap() {
            let licence =
                crate_.licence.as_deref().unwrap_or_else(|| panic!("{} has no licence", crate_.name));
            let excepted = exceptions.contains(&crate_.name) && exceptions.contains(licence);
            assert!(excepted || holds(licence, &allowed), "{}: {licence}", crate_.name);
            let old_only = crate_.name == "time" && !crate_.version.starts_with("0.1");
            assert!(old_only || !banned.contains(&crate_.name), "{} is banned", crate_.name);
        }
    }

    #[test]
    fn every_part_of_an_and_must_be_allowed() {
        let allowed = BTreeSet::from(["MIT".to_owned(), "ISC".to_owned()]);
        assert!(holds("MIT OR GPL-3.0", &allowed) && holds("Apache-2.0/MIT", &allowed));
        assert!(holds("(MIT OR Apache-2.0) AND ISC", &allowed));
        assert!(!holds("MIT AND OpenSSL", &allowed) && !holds("GPL-3.0", &allowed));
    }
}
