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

/// The file outside `helper.rs` that calls `name`.
fn uses(name: &str) -> String {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let calls = |file: &&PathBuf| {
        !file.ends_with("helper.rs") && std::fs::read_to_string(file).unwrap().contains(name)
    };
    let users: Vec<_> =
        files.iter().filter(calls).map(|f| f.file_name().unwrap().to_str().unwrap()).collect();
    users.join(" ")
}

/// OV-001
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
fn the_list_of_helpers_is_closed_and_an_engine_is_only_asked_for_its_texts() {
    let helper = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/helper.rs");
    let text = std::fs::read_to_string(helper).unwrap();
    let body = text.split("pub(crate) enum Tool {").nth(1).unwrap().split('}').next().unwrap();
    let tools: Vec<_> =
        body.lines().map(|line| line.trim().trim_end_matches(',')).filter(|l| !l.is_empty()).collect();
    let expected = [
        "Python",
        "Cmake",
        "Builder",
        "Compiler",
        "Git",
        "Nvcc",
        "PackageManager",
        "EngineText",
        "ModelVerifier",
    ];
    assert_eq!(tools, expected);
    assert_eq!(text.matches("Command::new").count(), 1);
    // The engine's own binary is only asked for its texts; the fixed arguments are all it is given.
    assert_eq!(text.matches("Tool::EngineText,").count(), 3);
    for fixed in ["--version", "--help", "--list-devices"] {
        let made =
            format!("Tool::EngineText, binary, cancel);\n        helper.args = vec![\"{fixed}\".into()];");
        assert!(text.contains(&made), "{fixed}");
    }
    let users: Vec<_> =
        ["engine_version(", "engine_help(", "engine_devices("].iter().map(|name| uses(name)).collect();
    assert_eq!(users, ["survey.rs"; 3], "only the smoke gate asks it");
}
