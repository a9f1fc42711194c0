//! Bundles whose list is right and whose content is not: each lie is told with the right digests, as somebody would
//! who wants to be believed.

use std::io::Read as _;
use std::path::Path;

use provisioners_engine_provisioner::{BundleError, Bundled, Cancel, import_bundle};
use sha2::{Digest as _, Sha256};
use wire::config::PoolConfig;

use crate::machine::{Log, Machine};

struct Entry {
    path: String,
    kind: tar::EntryType,
    data: Vec<u8>,
}

fn packed() -> (Machine, PoolConfig, Bundled) {
    let machine = Machine::new();
    let pool =
        PoolConfig { model: "builtin:haiku".into(), ..machine.pool(vec![machine.archive("a.tar.gz")]) };
    let file = machine.path("b.tar");
    let bundled = machine.provisioner().export_bundle(&pool, &file, &Log::default(), &Cancel::new()).unwrap();
    (machine, pool, bundled)
}

fn import(machine: &Machine, file: &Path) -> Result<Bundled, BundleError> {
    import_bundle(&machine.cache(), file, None, &mut |_, _| (), &Cancel::new())
}

/// The bundle after `change`, with the list made right again for every file that it still names.
fn remade(whole: &[u8], change: impl FnOnce(&mut Vec<Entry>, &mut Vec<serde_json::Value>)) -> Vec<u8> {
    let mut archive = tar::Archive::new(whole);
    let mut entries: Vec<Entry> = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        let (kind, mut data) = (tar::EntryType::Regular, Vec::new());
        entry.read_to_end(&mut data).unwrap();
        entries.push(Entry { path, kind, data });
    }
    let list = entries.remove(0);
    let mut contents: serde_json::Value = serde_json::from_slice(&list.data).unwrap();
    let mut files = contents["files"].as_array().unwrap().clone();
    change(&mut entries, &mut files);
    for file in &mut files {
        let named = entries.iter().find(|entry| file["path"] == entry.path.as_str());
        if let Some(entry) = named {
            let digest: String = Sha256::digest(&entry.data).iter().map(|b| format!("{b:02x}")).collect();
            file["sha256"] = digest.into();
            file["bytes"] = entry.data.len().into();
        }
    }
    contents["files"] = files.into();
    let list = Entry { data: contents.to_string().into_bytes(), ..list };
    let mut builder = tar::Builder::new(Vec::new());
    for Entry { path, kind, data } in std::iter::once(list).chain(entries) {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o755);
        header.set_entry_type(kind);
        if kind == tar::EntryType::Symlink {
            header.set_link_name("/etc").unwrap();
        }
        builder.append_data(&mut header, path, data.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn at<'a>(entries: &'a mut [Entry], path: &str) -> &'a mut Entry {
    entries.iter_mut().find(|entry| entry.path == path).unwrap()
}

/// EPROV-026
#[test]
fn a_bundle_that_lies_with_the_right_digests_is_refused() {
    let (_from, _, bundled) = packed();
    let whole = std::fs::read(&bundled.file).unwrap();
    let to = Machine::new();
    let file = to.path("lie.tar");
    let refused = |bytes: Vec<u8>, expected: &str| {
        std::fs::write(&file, bytes).unwrap();
        let error = import(&to, &file).unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert_eq!(error.exit_code(), 7);
        let engines = std::fs::read_dir(to.cache().join("engines")).into_iter().flatten().count();
        assert_eq!(engines, 0, "{expected}");
    };
    refused(
        remade(&whole, |entries, _| {
            let twice = at(entries, "engine/sbom.cdx.json");
            let twice = Entry { path: twice.path.clone(), kind: twice.kind, data: twice.data.clone() };
            entries.push(twice);
        }),
        "engine/sbom.cdx.json is in it twice",
    );
    refused(
        remade(&whole, |entries, _| entries.retain(|entry| entry.path != "engine/sbom.cdx.json")),
        "engine/sbom.cdx.json is listed and not in it",
    );
    refused(
        remade(&whole, |entries, files| {
            let path = "engine/notes".to_owned();
            files.push(serde_json::json!({ "path": path, "sha256": "", "bytes": 0, "executable": false }));
            entries.push(Entry { path, kind: tar::EntryType::Symlink, data: Vec::new() });
        }),
        "\"engine/notes\" is in it and not as bundle.json lists it",
    );
    refused(
        remade(&whole, |entries, _| at(entries, "engine/bin/llama-server").data.push(b'\n')),
        "llama-server is not the file that was recorded when the engine was built",
    );
    refused(
        remade(&whole, |entries, _| {
            let manifest = at(entries, "engine/manifest.json");
            let mut said: serde_json::Value = serde_json::from_slice(&manifest.data).unwrap();
            said["external"] = "/bin/sh".into();
            manifest.data = said.to_string().into_bytes();
        }),
        "its engine is a binary of another machine",
    );
    std::fs::write(&file, remade(&whole, |_, _| ())).unwrap();
    import(&to, &file).unwrap();
}

/// EPROV-025
#[test]
fn what_an_engine_said_of_itself_on_another_machine_is_not_believed() {
    let (_from, _, bundled) = packed();
    let to = Machine::new();
    import(&to, &bundled.file).unwrap();
    let manifest = to.cache().join("engines").join(&bundled.engine_digest).join("manifest.json");
    let said: serde_json::Value = serde_json::from_slice(&std::fs::read(manifest).unwrap()).unwrap();
    assert!(said["imported_unix_ms"].is_number() && said.get("survey").is_none(), "{said}");
}

/// EPROV-033
#[test]
fn a_bundle_does_not_replace_what_a_later_version_wrote() {
    let (_from, _, bundled) = packed();
    let to = Machine::new();
    import(&to, &bundled.file).unwrap();
    let manifest = to.cache().join("engines").join(&bundled.engine_digest).join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let later = text.replace("\"schema_version\": 2", "\"schema_version\": 3");
    assert_ne!(later, text);
    std::fs::write(&manifest, &later).unwrap();
    let error = import(&to, &bundled.file).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap();
    let cause = std::error::Error::source(cause).map_or(cause.to_string(), ToString::to_string);
    assert!(cause.contains("a later version of this program wrote it (format 3"), "{cause}");
    assert_eq!(std::fs::read_to_string(&manifest).unwrap(), later);
}

/// EPROV-025, EPROV-026
#[test]
fn where_a_bundle_cannot_be_written_is_said_before_anything_is_built() {
    let machine = Machine::new();
    let pool =
        PoolConfig { model: "builtin:haiku".into(), ..machine.pool(vec![machine.archive("a.tar.gz")]) };
    let export = |to: &Path| {
        machine.provisioner().export_bundle(&pool, to, &Log::default(), &Cancel::new()).unwrap_err()
    };
    let nowhere = export(&machine.path("no/such/b.tar"));
    let shown = format!("{nowhere}: {}", std::error::Error::source(&nowhere).unwrap());
    assert!(
        shown.contains("cannot write the bundle in ") && shown.contains("there is no such directory"),
        "{shown}"
    );
    assert_eq!(nowhere.exit_code(), 4);
    let directory = export(machine.dir.path());
    assert!(directory.to_string().contains("cannot write the bundle to "), "{directory}");
    assert_eq!(machine.calls(), Vec::<String>::new(), "nothing was asked or built");
    assert!(!machine.cache().exists());
}

/// EPROV-026
#[test]
fn a_file_that_is_no_bundle_is_called_that_and_not_quoted() {
    let machine = Machine::new();
    let file = machine.path("notes.txt");
    for content in ["a secret in a file that somebody named by mistake\n".repeat(60), "short".to_owned()] {
        std::fs::write(&file, content).unwrap();
        let error = import(&machine, &file).unwrap_err().to_string();
        assert!(error.contains("does not begin with bundle.json, so it is no bundle"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}
