//! What this program was built from, as the build script found it.

use std::sync::LazyLock;

use wire::Version;

/// The version with the commit, for whoever asks on the command line.
pub(crate) fn version_line() -> &'static str {
    static LINE: LazyLock<String> = LazyLock::new(|| {
        let version = env!("CARGO_PKG_VERSION");
        match (option_env!("LLAMA_ORCH_COMMIT"), modified()) {
            (Some(commit), Some(true)) => format!("{version} (commit {commit}, modified)"),
            (Some(commit), _) => format!("{version} (commit {commit})"),
            (None, _) => format!("{version} (built outside a git checkout)"),
        }
    });
    &LINE
}

/// The same for programs.
pub(crate) fn version(service: &str) -> Version {
    Version {
        service: service.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: option_env!("LLAMA_ORCH_COMMIT").map(str::to_owned),
        modified: modified(),
    }
}

fn modified() -> Option<bool> {
    option_env!("LLAMA_ORCH_MODIFIED")?.parse().ok()
}

#[cfg(test)]
#[path = "../build/commit.rs"]
mod commit;

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    fn git(root: &Path, args: &[&str]) -> String {
        let mut git = Command::new("git");
        git.arg("-C").arg(root).args(args).env("GIT_CONFIG_GLOBAL", "/dev/null");
        for who in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{who}_NAME"), "a").env(format!("GIT_{who}_EMAIL"), "a@b");
        }
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            git.env_remove(name);
        }
        let output = git.output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn write(root: &Path, path: &str, text: &str) {
        std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        std::fs::write(root.join(path), text).unwrap();
    }

    /// ORCHD-META-003
    #[test]
    fn a_commit_is_told_of_the_checkout_itself_and_only_what_the_program_is_made_of_modifies_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for path in ["Cargo.toml", "libs/a/b/Cargo.toml", "libs/a/b/src/lib.rs", "README.md"] {
            write(root, path, "one");
        }
        let sources = commit::sources(root);
        let named: [std::path::PathBuf; 3] =
            ["Cargo.toml", "libs/a/b/Cargo.toml", "libs/a/b/src"].map(Into::into);
        assert_eq!(sources, named);
        assert_eq!(commit::of(root, &sources), None, "a plain tree");

        git(root, &["init", "--quiet"]);
        assert_eq!(commit::of(root, &sources), None, "no commit yet");
        git(root, &["add", "."]);
        git(root, &["commit", "--quiet", "-m", "one"]);
        let id = git(root, &["rev-parse", "HEAD"]);
        let told = |modified| Some(commit::Commit { id: id.clone(), modified });
        assert_eq!(commit::of(root, &sources), told(false));
        write(root, "README.md", "two");
        assert_eq!(commit::of(root, &sources), told(false), "not of the program");
        write(root, "libs/a/b/src/lib.rs", "two");
        assert_eq!(commit::of(root, &sources), told(true));

        // A tarball, unpacked inside somebody's repository.
        let inner = root.join("inner");
        write(&inner, "Cargo.toml", "one");
        assert_eq!(commit::of(&inner, &commit::sources(&inner)), None);
    }

    /// ORCHD-META-003
    #[test]
    fn the_program_says_the_commit_of_the_checkout_that_it_was_built_in_and_none_without() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let told = version("x");
        let line = version_line();
        match commit::of(&root, &[]) {
            // Not necessarily the head of now: what changes nothing of the program builds nothing again.
            Some(_) => {
                let commit = told.commit.unwrap();
                assert!(commit.len() >= 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()), "{commit}");
                assert!(line.contains(&commit), "{line}");
                assert_eq!(line.contains("modified"), told.modified.unwrap(), "{line}");
            }
            None => assert!(line.contains("outside a git checkout") || told.commit.is_some(), "{line}"),
        }
    }
}
