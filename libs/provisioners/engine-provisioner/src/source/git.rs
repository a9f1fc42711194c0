//! A git source: one shallow fetch of the named ref, accepted only when it is the pinned commit.
//! No hooks, https or a local path and no other transport, submodules only where they are asked for, no
//! questions, no configuration of the user.

use std::path::Path;
use std::time::Duration;

use wire::config::GitSource;

use super::{Fetch, helper_failed};
use crate::error::SourceFailure;
use crate::helper::{Helper, Tool};

const FETCH_LIMIT: Duration = Duration::from_secs(1800);

pub(super) fn fetch(source: &GitSource, tree: &Path, fetch: &Fetch<'_>) -> Result<(), SourceFailure> {
    let Some(program) = fetch.host.find("git") else {
        return Err(SourceFailure::fetch("git is not installed"));
    };
    std::fs::create_dir_all(tree).map_err(SourceFailure::cache("create", tree))?;
    // A mirror on this machine has its submodules there, too; another host may not point at our files.
    let local = if Path::new(&source.repo).is_absolute() { "always" } else { "never" };
    let settings = [
        "core.hooksPath=/dev/null".to_owned(),
        "core.symlinks=true".to_owned(),
        "init.defaultBranch=x".to_owned(),
        "protocol.allow=never".to_owned(),
        "protocol.https.allow=always".to_owned(),
        format!("protocol.file.allow={local}"),
    ];
    let git = |args: &[&str]| {
        let safety = settings.iter().flat_map(|setting| ["-c", setting.as_str()]);
        Helper::new(fetch.host, Tool::Git, &program, fetch.cancel)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .dir(tree)
            .limit(FETCH_LIMIT)
            .args(safety)
            .args(args)
            .run(&mut |_| ())
            .map_err(helper_failed)
    };
    fetch.step.doing(format!("fetching {} from {} with git", source.reference, source.repo));
    git(&["init", "--quiet"])?;
    let shallow = ["fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules"];
    git(&[&shallow[..], &["--", &source.repo, &source.reference]].concat())?;
    let head = git(&["rev-parse", "--verify", "FETCH_HEAD^{commit}"])?.pop().unwrap_or_default();
    if !head.eq_ignore_ascii_case(&source.commit) {
        return Err(SourceFailure::verification(format!(
            "{} of {} is now commit {head}, pinned is {}; the ref was moved. Correct the pin only if you know why",
            source.reference, source.repo, source.commit
        )));
    }
    git(&["checkout", "--quiet", "--detach", "FETCH_HEAD"])?;
    if source.submodules {
        fetch.step.doing(format!("fetching the submodules of {}", source.repo));
        git(&["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"])?;
    }
    // The history is of no use to the build, and CMake would ask it questions.
    let history = tree.join(".git");
    std::fs::remove_dir_all(&history).map_err(SourceFailure::cache("remove", &history))
}
