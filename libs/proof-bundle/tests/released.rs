//! Bundles as each released version wrote them, kept for ever: whoever collects evidence reads old and new.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proof_bundle::{Kind, ProofBundle, Root, SCHEMA_VERSION};
use serde_json::{Value, json};

fn kept(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/released/v{version}"))
}

fn files(dir: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

fn parsed(file: PathBuf) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// What `old` has and `new` has not, or not as the same kind of value. Null is what was not known.
fn lost(old: &Value, new: &Value, path: &str) -> Vec<String> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => old
            .iter()
            .flat_map(|(key, value)| match new.get(key) {
                Some(now) => lost(value, now, &format!("{path}/{key}")),
                None => vec![format!("{path}/{key} is gone")],
            })
            .collect(),
        (Value::Null, _) | (_, Value::Null) => Vec::new(),
        _ if std::mem::discriminant(old) == std::mem::discriminant(new) => Vec::new(),
        _ => vec![format!("{path} was {old} and is {new}")],
    }
}

/// PROOF-003
#[test]
fn what_a_released_version_had_is_there_under_the_same_name() {
    let tmp = tempfile::tempdir().unwrap();
    let mut bundle = ProofBundle::create_in(&Root::default(), tmp.path(), Kind::E2e, None).unwrap();
    bundle.fact("seed", "7").unwrap();
    bundle.append_event(&json!({"event": "started"})).unwrap();
    let now = bundle.finish("# done\n").unwrap();
    for version in 1..=SCHEMA_VERSION {
        let kept = kept(version);
        assert!(files(&kept).is_subset(&files(&now)), "{:?}", files(&now));
        let (old, new) = (parsed(kept.join("metadata.json")), parsed(now.join("metadata.json")));
        assert_eq!(
            (&old["schema_version"], &new["schema_version"]),
            (&json!(version), &json!(SCHEMA_VERSION))
        );
        assert_eq!(lost(&old, &new, ""), Vec::<String>::new());
        let events = fs::read_to_string(kept.join("events.ndjson")).unwrap();
        assert!(events.ends_with('\n') && events.lines().count() > 1);
        for line in events.lines() {
            assert!(serde_json::from_str::<Value>(line).unwrap().is_object(), "{line}");
        }
    }
}

#[test]
fn what_is_gone_or_is_something_else_is_noticed() {
    let old = json!({"a": 1, "b": {"c": "x", "d": null}, "e": "f"});
    assert_eq!(lost(&old, &old, ""), Vec::<String>::new());
    let new = json!({"a": "1", "b": {"d": 2}, "e": null});
    assert_eq!(lost(&old, &new, ""), ["/a was 1 and is \"1\"", "/b/c is gone"]);
}
