//! What the program says to people and to programs, and what it ends with.

use std::process::{Command, Output};

use crate::machine::{Log, Machine};

fn program(machine: &Machine, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_engine-provisioner"))
        .args(args)
        .env_clear()
        .env("PATH", "/nonexistent")
        .env("HOME", machine.dir.path())
        .env("LLAMA_ORCH_CACHE", machine.cache())
        .env("LLAMA_ORCH_DEVICES", "none")
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// EPROV-036
#[test]
fn a_program_that_asks_for_json_gets_nothing_else_and_the_error_with_its_exit_code() {
    let machine = Machine::new();
    for (args, code) in [
        (&["--json", "--offline"][..], 4),
        (&["--json", "--gpu", "required"], 3),
        (&["--json", "--config", "/nowhere.yaml"], 2),
        (&["--json", "models", "pin", "0123456789"], 6),
        (&["--json", "bundle", "import", "/nowhere.tar"], 4),
    ] {
        let output = program(&machine, args);
        assert_eq!(output.status.code(), Some(code), "{args:?} {}", said(&output));
        let text = said(&output);
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
            .collect();
        let last = lines.last().unwrap();
        assert_eq!(last["exit_code"], code, "{last}");
        assert!(!last["error"].as_str().unwrap().is_empty());
    }
    let output = program(&machine, &["models", "pin", "0123456789"]);
    assert!(said(&output).starts_with("engine-provisioner: no model's digest begins with \"0123456789\""));
    let output = program(&machine, &["--json", "models", "gc"]);
    assert_eq!(output.status.code(), Some(0));
    let notice: serde_json::Value = serde_json::from_str(said(&output).trim()).unwrap();
    assert!(notice["notice"].as_str().unwrap().contains("--quota-gib"), "{notice}");
}

/// EPROV-026
#[test]
fn a_bundle_is_taken_in_for_a_digest_of_the_right_form_and_by_a_strict_machine_for_no_other() {
    let from = Machine::new();
    let mut pool = from.pool(vec![from.archive("a.tar.gz")]);
    pool.model = "builtin:haiku".into();
    let file = from.path("b.tar");
    let cancel = provisioners_engine_provisioner::Cancel::new();
    let bundled = from.provisioner().export_bundle(&pool, &file, &Log::default(), &cancel).unwrap();
    let file = file.to_str().unwrap();
    let to = Machine::new();
    let config = to.path("strict.yaml");
    std::fs::write(&config, "models: { trust: strict }\npools:\n  - { id: p, model: 'builtin:haiku' }\n")
        .unwrap();
    let strict = config.to_str().unwrap();
    let mistyped = program(&to, &["bundle", "import", file, "--sha256", "123"]);
    assert_eq!(mistyped.status.code(), Some(2));
    assert!(said(&mistyped).contains("must be 64 hexadecimal digits"), "{}", said(&mistyped));
    let nobody = program(&to, &["--config", strict, "bundle", "import", file]);
    assert_eq!(nobody.status.code(), Some(7));
    assert!(said(&nobody).contains("takes in no bundle that nobody vouches for"), "{}", said(&nobody));
    assert!(!to.cache().join("engines").exists());
    let vouched = program(&to, &["--config", strict, "bundle", "import", file, "--sha256", &bundled.sha256]);
    assert_eq!(vouched.status.code(), Some(0), "{}", said(&vouched));
    let easy = program(&to, &["--json", "bundle", "import", file]);
    assert_eq!(easy.status.code(), Some(0));
    assert!(said(&easy).lines().all(|line| line.starts_with('{')), "{}", said(&easy));
    assert!(said(&easy).contains("\"notice\":\"nobody vouches"), "{}", said(&easy));
}
