//! The provisioner returns a value and never starts an engine. This holds it in the sources: one
//! module may start processes, and only from a closed list of build helpers.
#![allow(clippy::unwrap_used, reason = "a failed step of a test should panic")]

use std::path::{Path, PathBuf};

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { sources(&path, out) } else { out.push(path) }
    }
}

#[test]
fn only_the_helper_module_can_start_a_process() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 15, "the sources were found");
    for file in files.iter().filter(|file| !file.ends_with("helper.rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        for forbidden in ["Command", "fork(", "exec(", "posix_spawn", "tokio::process"] {
            assert!(!text.contains(forbidden), "{} names {forbidden}", file.display());
        }
    }
}

#[test]
fn the_list_of_helpers_is_closed_and_has_no_engine() {
    let helper = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/helper.rs");
    let text = std::fs::read_to_string(helper).unwrap();
    let body = text.split("pub(crate) enum Tool {").nth(1).unwrap().split('}').next().unwrap();
    let tools: Vec<_> =
        body.lines().map(|line| line.trim().trim_end_matches(',')).filter(|l| !l.is_empty()).collect();
    assert_eq!(tools, ["Python", "Cmake", "Compiler", "Git", "NvidiaSmi", "Nvcc", "PackageManager"]);
    assert_eq!(text.matches("Command::new").count(), 1);
}
