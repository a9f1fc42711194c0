//! Bundles with a model of the hub, taken to a machine without any network, and bundles that lie.

use std::io::Read as _;
use std::path::Path;

use provisioners_engine_provisioner::{
    BundleError, Bundled, Cancel, EngineProvisioner, EnsureError, import_bundle,
};
use wire::PreparedEngine;
use wire::config::{EngineSource, ModelsConfig, PathSource, PoolConfig, TrustPolicy};

use crate::kills::Hub;
use crate::machine::{ENGINE, Log, Machine, no_card};

const REFERENCE: &str = "hf:o/r:Q4_K_M";

/// A machine that has packed what a pool of it needs, and the pool.
fn packed() -> (Machine, PoolConfig, Bundled) {
    let machine = Machine::new();
    let hub = Hub::start(std::fs::read(machine.path("model.gguf")).unwrap(), std::time::Duration::ZERO);
    let mut pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    pool.model = REFERENCE.to_owned();
    let path = format!("{}:/usr/bin:/bin", machine.bin().display());
    let home = machine.dir.path().to_str().unwrap();
    let env = config_loader::Env::new(
        machine.dir.path(),
        [("PATH", path.as_str()), ("HOME", home), ("HF_ENDPOINT", hub.base.as_str())],
    );
    let provisioner =
        EngineProvisioner::new(machine.cache(), &env).with_cards(Box::new(no_card)).with_free_disk(1 << 40);
    let bundled = provisioner
        .export_bundle(&pool, &machine.path("bundle.tar"), &Log::default(), &Cancel::new())
        .unwrap();
    (machine, pool, bundled)
}

fn import(machine: &Machine, file: &Path, sha256: Option<&str>) -> Result<Bundled, BundleError> {
    import_bundle(&machine.cache(), file, sha256, &mut |_, _| (), &Cancel::new())
}

fn ensure_offline(
    machine: &Machine,
    pool: &PoolConfig,
    rules: &ModelsConfig,
) -> Result<Vec<PreparedEngine>, EnsureError> {
    let provisioner = machine.provisioner().with_model_rules(rules).offline(true);
    provisioner.ensure_pool(pool, &Log::default(), &Cancel::new())
}

/// Whatever lies in the machine's stores, and what an import left behind.
fn taken_in(machine: &Machine) -> Vec<String> {
    let names = |dir: std::path::PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten();
    let hex = |name: &String| name.len() == 64;
    let stored = ["engines", "models"].into_iter().flat_map(|dir| names(machine.cache().join(dir)));
    let stored = stored.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(hex);
    let left = names(machine.cache()).map(|entry| entry.file_name().to_string_lossy().into_owned());
    stored.chain(left.filter(|name| name.starts_with(".import-"))).collect()
}

/// EPROV-025
#[test]
fn a_bundle_prepares_its_pool_on_a_machine_without_network_and_with_another_compiler() {
    let (_origin, pool, bundled) = packed();
    let other = Machine::new();
    other.tool("cc", "echo fakecc 9.9");
    let error = ensure_offline(&other, &pool, &ModelsConfig::default()).unwrap_err();
    assert!(!error.to_string().is_empty(), "it has neither");
    let taken = import(&other, &bundled.file, Some(&bundled.sha256)).unwrap();
    assert_eq!(taken, Bundled { notice: None, ..bundled.clone() });
    other.calls();
    let strict = ModelsConfig { trust: TrustPolicy::Strict, ..ModelsConfig::default() };
    let engine = ensure_offline(&other, &pool, &strict).unwrap().remove(0);
    assert_eq!(engine.engine_digest, bundled.engine_digest);
    assert!(engine.binary_path.starts_with(other.cache()), "{}", engine.binary_path.display());
    assert!(engine.model_path.starts_with(other.cache()), "{}", engine.model_path.display());
    assert_eq!(engine.model_digest, bundled.model_digest);
    assert!(!other.calls().iter().any(|call| call.starts_with("cmake --build")), "nothing was built");
    // A pool that wants another build gets none of this.
    let mut flavoured = pool.clone();
    flavoured.provisioning.cmake_flags = vec!["-DFLAVOUR=mint".into()];
    let another = ensure_offline(&other, &flavoured, &strict);
    assert!(another.is_err() || another.unwrap()[0].engine_digest != bundled.engine_digest);
    // Again: it is there, and stays.
    import(&other, &bundled.file, Some(&bundled.sha256)).unwrap();
    assert_eq!(ensure_offline(&other, &pool, &strict).unwrap().remove(0), engine);
}

/// EPROV-026
#[test]
fn a_strict_machine_refuses_the_model_of_a_bundle_that_nobody_vouches_for() {
    let (_origin, pool, bundled) = packed();
    let other = Machine::new();
    import(&other, &bundled.file, None).unwrap();
    let strict = ModelsConfig { trust: TrustPolicy::Strict, ..ModelsConfig::default() };
    let error = ensure_offline(&other, &pool, &strict).unwrap_err();
    assert_eq!(error.exit_code(), 7, "{error}");
    assert!(ensure_offline(&other, &pool, &ModelsConfig::default()).is_ok());
}

/// EPROV-026
#[test]
fn nothing_is_left_of_a_bundle_that_is_not_as_it_says() {
    let (_origin, _, bundled) = packed();
    let other = Machine::new();
    let error = import(&other, &bundled.file, Some(&"0".repeat(64))).unwrap_err();
    assert!(error.to_string().contains("expected is 000"), "{error}");
    assert_eq!(error.exit_code(), 7);
    let whole = std::fs::read(&bundled.file).unwrap();
    let file = other.path("changed.tar");
    // One byte of each file's content, and the file cut at several places.
    let mut archive = tar::Archive::new(whole.as_slice());
    let entries: Vec<(u64, u64)> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.map(|entry| (entry.raw_file_position(), entry.size())).unwrap())
        .collect();
    assert!(entries.len() > 5, "{entries:?}");
    for (at, size) in entries {
        let mut changed = whole.clone();
        changed[usize::try_from(at + size / 2).unwrap()] ^= 1;
        std::fs::write(&file, changed).unwrap();
        import(&other, &file, None).unwrap_err();
        assert_eq!(taken_in(&other), Vec::<String>::new(), "byte {at} + {size} / 2");
    }
    for eighth in 0..8 {
        std::fs::write(&file, &whole[..whole.len() * eighth / 8]).unwrap();
        import(&other, &file, None).unwrap_err();
        assert_eq!(taken_in(&other), Vec::<String>::new(), "{eighth}/8 of it");
    }
}

/// The bundle with an entry more, or with its table of contents rewritten.
fn rewritten(whole: &[u8], change: impl Fn(&str) -> String, more: Option<(&str, tar::EntryType)>) -> Vec<u8> {
    let mut archive = tar::Archive::new(whole);
    let mut builder = tar::Builder::new(Vec::new());
    let mut put = |path: &str, kind: tar::EntryType, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o755);
        header.set_entry_type(kind);
        // As a hostile packer would: no check of the path.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        if kind == tar::EntryType::Symlink {
            header.set_link_name("/etc").unwrap();
        }
        header.set_cksum();
        builder.append(&header, data).unwrap();
    };
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).unwrap();
        if path == "bundle.json" {
            data = change(std::str::from_utf8(&data).unwrap()).into_bytes();
        }
        put(&path, tar::EntryType::Regular, &data);
    }
    if let Some((path, kind)) = more {
        put(path, kind, b"");
    }
    builder.into_inner().unwrap()
}

/// EPROV-026
#[test]
fn what_a_bundle_does_not_list_and_what_would_lie_elsewhere_is_refused() {
    let (_origin, _, bundled) = packed();
    let whole = std::fs::read(&bundled.file).unwrap();
    let other = Machine::new();
    let file = other.path("hostile.tar");
    let refused = |bytes: Vec<u8>, expected: &str| {
        std::fs::write(&file, bytes).unwrap();
        let error = import(&other, &file, None).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(taken_in(&other), Vec::<String>::new());
        assert!(!other.path("evil").exists() && !other.cache().join("evil").exists());
    };
    let same = |text: &str| text.to_owned();
    let more = |path| rewritten(&whole, same, Some((path, tar::EntryType::Regular)));
    refused(more("engine/bin/evil.so"), "not as bundle.json lists it");
    refused(more("../evil"), "not as bundle.json lists it");
    refused(rewritten(&whole, same, Some(("engine/bin", tar::EntryType::Symlink))), "not as bundle.json");
    let swapped = |from: &'static str, to: &'static str| {
        rewritten(&whole, move |text| text.replacen(from, to, 1), None)
    };
    refused(swapped("engine/sbom.cdx.json", "../../evil"), "no place for a file");
    refused(swapped("\"format\": 1", "\"format\": 2"), "format 2");
    refused(swapped("\"architecture\": \"", "\"architecture\": \"sparc-"), "it is for sparc-");
    refused(b"no tar at all".repeat(100), "it");
    // An engine that its own manifest does not describe, and a model that is another than announced.
    let zeros: &'static str = Box::leak("0".repeat(64).into_boxed_str());
    let lies = |digest: &str| rewritten(&whole, |text| text.replace(digest, zeros), None);
    let (engine, model) = (bundled.engine_digest.as_str(), bundled.model_digest.as_str());
    refused(lies(engine), "not the one that its manifest describes");
    // The model's digest is that of its file, too.
    refused(lies(model), "has SHA-256");
    let empty = |path: &'static str| {
        let change = move |text: &str| {
            let mut contents: serde_json::Value = serde_json::from_str(text).unwrap();
            let sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
            let file = serde_json::json!({ "path": path, "sha256": sha256, "bytes": 0, "executable": true });
            contents["files"].as_array_mut().unwrap().push(file);
            contents.to_string()
        };
        rewritten(&whole, change, Some((path, tar::EntryType::Regular)))
    };
    refused(empty("engine/bin/evil.so"), "not of the engine that its manifest describes");
}

/// A binary that somebody else built, with a library beside it, and a pool that names it by its path.
fn with_binary(machine: &Machine, text: &str) -> (std::path::PathBuf, PoolConfig) {
    let binary = machine.path("opt/llama/llama-server");
    std::fs::create_dir_all(binary.parent().unwrap()).unwrap();
    machine.executable(&binary, text);
    std::fs::write(binary.with_file_name("libggml.so.0"), "library").unwrap();
    let mut pool = machine.pool(vec![EngineSource::Path(PathSource { binary: binary.clone() })]);
    pool.model = "builtin:haiku".into();
    (binary, pool)
}

fn export(machine: &Machine, pool: &PoolConfig) -> Result<Bundled, BundleError> {
    machine.provisioner().export_bundle(pool, &machine.path("b.tar"), &Log::default(), &Cancel::new())
}

/// EPROV-025
#[test]
fn an_engine_that_was_a_file_of_one_machine_comes_along_with_its_libraries_and_stands_for_that_file() {
    let origin = Machine::new();
    let (binary, pool) = with_binary(&origin, ENGINE);
    let prepared = origin.provisioner().ensure_pool(&pool, &Log::default(), &Cancel::new()).unwrap();
    let bundled = export(&origin, &pool).unwrap();
    let rest = std::fs::read_dir(origin.cache()).unwrap().flatten().map(|entry| entry.file_name());
    assert!(
        rest.into_iter().all(|name| name == "engines" || name == "models"),
        "the copy that was tried is gone"
    );
    let other = Machine::new();
    import(&other, &bundled.file, Some(&bundled.sha256)).unwrap();
    let rules = ModelsConfig::default();
    let own = ensure_offline(&other, &pool, &rules).unwrap().remove(0);
    assert_eq!(own.binary_path, binary, "a file that is there is used");
    std::fs::remove_dir_all(origin.path("opt")).unwrap();
    import(&other, &bundled.file, Some(&bundled.sha256)).unwrap();
    let engine = ensure_offline(&other, &pool, &rules).unwrap().remove(0);
    assert!(engine.binary_path.starts_with(other.cache()), "{}", engine.binary_path.display());
    assert_eq!(
        (&engine.engine_digest, &engine.engine_version),
        (&prepared[0].engine_digest, &prepared[0].engine_version)
    );
    let library = engine.binary_path.with_file_name("libggml.so.0");
    assert_eq!(std::fs::read_to_string(&library).unwrap(), "library");
    let planned = other.provisioner().offline(true).plan(&pool, &Cancel::new()).unwrap();
    assert_eq!(planned.stopped_by, [], "{planned}");
    assert!(planned.to_string().contains("it came in a bundle, use"), "{planned}");
    // With another library it is another engine, although the binary is the same.
    let (binary, _) = with_binary(&origin, ENGINE);
    std::fs::write(binary.with_file_name("libggml.so.0"), "newer").unwrap();
    let newer = export(&origin, &pool).unwrap();
    std::fs::remove_dir_all(origin.path("opt")).unwrap();
    import(&other, &newer.file, Some(&newer.sha256)).unwrap();
    ensure_offline(&other, &pool, &rules).unwrap();
    assert_eq!(std::fs::read_to_string(&library).unwrap(), "newer");
    // Another path is another engine.
    let elsewhere = EngineSource::Path(PathSource { binary: origin.path("elsewhere/llama-server") });
    let mut another = pool.clone();
    another.provisioning.sources = vec![elsewhere];
    ensure_offline(&other, &another, &rules).unwrap_err();
    // It is held to what it was, with its libraries.
    std::fs::write(&library, "changed").unwrap();
    let error = ensure_offline(&other, &pool, &rules).unwrap_err().to_string();
    assert!(error.contains("libggml.so.0 is not the library that came with the engine"), "{error}");
}

/// EPROV-025
#[test]
fn an_engine_that_this_processor_may_not_run_is_not_used_and_whoever_needs_it_is_told() {
    let origin = Machine::new();
    let (_, pool) = with_binary(&origin, ENGINE);
    let bundled = export(&origin, &pool).unwrap();
    std::fs::remove_dir_all(origin.path("opt")).unwrap();
    let other = Machine::new();
    assert_eq!(import(&other, &bundled.file, None).unwrap().notice, None, "it is for this very processor");
    let manifest = other.cache().join("engines").join(&bundled.engine_digest).join("manifest.json");
    let mut text: serde_json::Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    let target = text["inputs"]["target"].as_str().unwrap().to_owned();
    text["inputs"]["target"] = target
        .replacen("flags : ", "flags : avx999 ", 1)
        .replacen("Features : ", "Features : avx999 ", 1)
        .into();
    std::fs::write(&manifest, text.to_string()).unwrap();
    let error = ensure_offline(&other, &pool, &ModelsConfig::default()).unwrap_err().to_string();
    assert!(error.contains("came in a bundle and may use what this processor has not (avx999)"), "{error}");
    // So it is of an engine that was built from a source.
    let built = PoolConfig { model: "builtin:haiku".into(), ..origin.pool(vec![origin.archive("a.tar.gz")]) };
    assert!(export(&origin, &built).unwrap().notice.unwrap().contains("-DGGML_NATIVE=OFF"));
}

/// EPROV-025
#[test]
fn what_another_machine_could_not_use_is_not_packed() {
    let machine = Machine::new();
    let refused = |pool: &PoolConfig| {
        let error = export(&machine, pool).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(!machine.path("b.tar").exists());
        error.to_string()
    };
    // It finds at home what it would not find elsewhere.
    let needy = format!("#!/bin/sh\n. \"$(dirname \"$0\")/../share/settings\" || exit 3\n{ENGINE}");
    let (binary, pool) = with_binary(&machine, &needy);
    let settings = binary.parent().unwrap().with_file_name("share");
    std::fs::create_dir_all(&settings).unwrap();
    std::fs::write(settings.join("settings"), "").unwrap();
    let problem = refused(&pool);
    assert!(problem.contains("does not run without what lies around it"), "{problem}");
}
