//! An engine from one machine to another in one file.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use provisioners_engine_provisioner::{Bundled, Cancel, import_bundle};
use provisioners_model_provisioner::Catalog;
use wire::PreparedEngine;
use wire::config::PoolConfig;

use crate::machine::{ENGINE, Log, Machine};

fn pool(machine: &Machine) -> PoolConfig {
    PoolConfig { model: "builtin:haiku".into(), ..machine.pool(vec![machine.archive("a.tar.gz")]) }
}

/// A machine that has built its engine, and the bundle that it packed.
fn packed() -> (Machine, PathBuf, Bundled) {
    let machine = Machine::new();
    let file = machine.path("pool.bundle");
    let packed = machine.provisioner().export_bundle(&pool(&machine), &file, &Log::default(), &Cancel::new());
    (machine, file, packed.unwrap())
}

/// A machine that is not able to build anything.
fn elsewhere() -> Machine {
    let machine = Machine::new();
    machine.tool("cc", "echo fakecc 2.0");
    machine.flag("broken");
    machine
}

fn import(machine: &Machine, file: &Path, sha256: Option<&str>) -> Result<Bundled, String> {
    import_bundle(&machine.cache(), file, sha256, &mut |_, _| (), &Cancel::new()).map_err(|error| {
        assert_eq!(error.exit_code(), 7, "{error}");
        error.to_string()
    })
}

fn prepared(machine: &Machine) -> Result<PreparedEngine, String> {
    let provisioner = machine.provisioner().offline(true);
    let prepared = provisioner.ensure_pool(&pool(machine), &Log::default(), &Cancel::new());
    prepared.map(|mut all| all.remove(0)).map_err(|error| error.to_string())
}

/// EPROV-037
#[test]
fn a_bundle_that_the_disk_has_no_room_for_is_refused_before_it_is_unpacked() {
    let (_from, file, _) = packed();
    let to = elsewhere();
    std::fs::create_dir_all(to.cache()).unwrap();
    let disk = rustix::fs::statvfs(to.cache()).unwrap();
    // A hole at its end: it takes no room here, and would take more than there is.
    let longer = std::fs::File::options().write(true).open(&file).unwrap();
    longer.set_len(disk.f_bavail * disk.f_frsize + (1 << 40)).unwrap();
    let refused = import_bundle(&to.cache(), &file, None, &mut |_, _| (), &Cancel::new()).unwrap_err();
    let why = std::error::Error::source(&refused).unwrap().to_string();
    assert!(why.contains(" MiB are needed and ") && why.ends_with(" MiB are free"), "{why}");
    assert_eq!(refused.exit_code(), 4);
    let left = std::fs::read_dir(to.cache()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with(".import-")).collect();
    assert!(left.is_empty() && !to.cache().join("models").exists(), "{left:?}");
}

/// EPROV-025
#[test]
fn a_bundle_serves_a_machine_that_can_build_nothing() {
    let (_from, file, bundled) = packed();
    let to = elsewhere();
    prepared(&to).unwrap_err();
    let taken = import(&to, &file, Some(&bundled.sha256.to_uppercase())).unwrap();
    assert_eq!((&taken.engine_digest, &taken.sha256), (&bundled.engine_digest, &bundled.sha256));
    to.calls();
    let engine = prepared(&to).unwrap();
    assert_eq!(engine.engine_digest, bundled.engine_digest);
    assert!(engine.binary_path.starts_with(to.cache()), "{:?}", engine.binary_path);
    assert!(to.calls().iter().all(|call| call.ends_with("--version")), "nothing is built");
    import(&to, &file, None).unwrap();
    let other = PoolConfig { model: "builtin:haiku".into(), ..to.pool(vec![to.archive("b.tar.gz")]) };
    let other = to.provisioner().offline(true).ensure_pool(&other, &Log::default(), &Cancel::new());
    other.expect_err("an engine of another source is another engine");
}

/// EPROV-026
#[test]
fn of_a_bundle_that_is_not_as_it_says_nothing_is_used() {
    let (_from, file, bundled) = packed();
    let bytes = std::fs::read(&file).unwrap();
    let engine = bytes.windows(ENGINE.len()).position(|window| window == ENGINE.as_bytes()).unwrap();
    let to = elsewhere();
    let refused = |bytes: &[u8], sha256: Option<&str>| {
        let file = to.path("damaged.bundle");
        std::fs::write(&file, bytes).unwrap();
        let problem = import(&to, &file, sha256).unwrap_err();
        prepared(&to).unwrap_err();
        problem
    };
    for at in (0..bytes.len()).step_by(bytes.len() / 40) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(refused(&damaged, Some(&bundled.sha256)).contains("expected is"), "byte {at}");
    }
    let mut other = bytes.clone();
    other[engine + ENGINE.len() - 2] ^= 1;
    assert!(refused(&other, None).contains("llama-server has SHA-256"));
    for cut in [0, 511, 512, engine, engine + 10, bytes.len() - 2048] {
        refused(&bytes[..cut], None);
    }
    assert!(refused(b"GGUF and so on", None).contains("bundle"), "something else");
}

/// EPROV-031: an engine of scripts and a model of random weights, packed by the version that began the
/// format. Kept for ever.
#[test]
fn a_bundle_of_every_released_format_is_taken_in_and_another_format_is_refused_by_its_number() {
    let kept = [&include_bytes!("../fixtures/released/bundle-v1.tar.gz")[..]];
    for packed in kept {
        let mut bundle = Vec::new();
        flate2::read::GzDecoder::new(packed).read_to_end(&mut bundle).unwrap();
        let to = elsewhere();
        let file = to.path("released.bundle");
        std::fs::write(&file, &bundle).unwrap();
        if std::env::consts::ARCH == "x86_64" {
            let taken = import(&to, &file, None).unwrap();
            assert_eq!(taken.engine_version, "llamacpp-2942e8dc-214d2451f831");
            let engine = to.cache().join("engines").join(&taken.engine_digest);
            assert_eq!(std::fs::read_to_string(engine.join("bin/llama-server")).unwrap(), ENGINE);
            let models = Catalog::new(&to.cache()).list();
            let model = models.iter().find(|model| model.digest == taken.model_digest).unwrap();
            assert_eq!((&model.source, model.problem.as_deref()), (&taken.model_reference, None));
        } else {
            assert!(import(&to, &file, None).unwrap_err().contains("it is for x86_64"));
        }
        // The list is the first entry; a number of the same length leaves the rest where it is.
        let number = b"\"format\": 1";
        let at = bundle.windows(number.len()).position(|window| window == number).unwrap();
        bundle[at + number.len() - 1] = b'9';
        std::fs::write(&file, &bundle).unwrap();
        let problem = import(&to, &file, None).unwrap_err();
        assert!(problem.contains("it has format 9, this program reads 1"), "{problem}");
    }
}

/// EPROV-025
#[test]
fn of_several_that_were_the_binary_of_one_path_the_one_that_came_last_stands_for_it() {
    let from = Machine::new();
    let binary = from.path("opt/llama-server");
    std::fs::create_dir_all(binary.parent().unwrap()).unwrap();
    let source = wire::config::EngineSource::Path(wire::config::PathSource { binary: binary.clone() });
    let pool = PoolConfig { model: "builtin:haiku".into(), ..from.pool(vec![source]) };
    let to = elsewhere();
    let digests = ["one", "two"].map(|name| {
        from.executable(&binary, &format!("{ENGINE}\n# {name}\n"));
        let file = from.path(name);
        let packed = from.provisioner().export_bundle(&pool, &file, &Log::default(), &Cancel::new()).unwrap();
        import(&to, &file, None).unwrap();
        packed.engine_digest
    });
    std::fs::remove_file(&binary).unwrap();
    let came = |digest: &str, at: u64| {
        let path = to.cache().join("engines").join(digest).join("manifest.json");
        let mut manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        manifest["imported_unix_ms"] = at.into();
        std::fs::write(&path, manifest.to_string()).unwrap();
    };
    for last in [0, 1] {
        came(&digests[last], 2);
        came(&digests[1 - last], 1);
        let provisioner = to.provisioner().offline(true);
        let engine = provisioner.ensure_pool(&pool, &Log::default(), &Cancel::new()).unwrap().remove(0);
        assert_eq!(engine.engine_digest, digests[last]);
    }
}

/// EPROV-026
#[test]
fn a_bundle_cannot_write_beside_the_cache() {
    let to = elsewhere();
    for path in
        ["../evil", "engine/../../evil", "/evil", "engine/.hidden", "engine/bin", "other/x", "engine/a/b"]
    {
        let contents = serde_json::json!({
            "format": 1, "architecture": std::env::consts::ARCH, "engine_digest": "0".repeat(64),
            "engine_version": "v", "model_reference": "builtin:haiku", "model_digest": "0".repeat(64),
            "files": [{"path": path, "sha256": "0".repeat(64), "bytes": 1, "executable": true}],
        });
        let text = contents.to_string();
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, "bundle.json", text.as_bytes()).unwrap();
        let file = to.path("evil.bundle");
        std::fs::write(&file, archive.into_inner().unwrap()).unwrap();
        let problem = import(&to, &file, None).unwrap_err();
        assert!(problem.contains("no place for a file"), "{path}: {problem}");
    }
    let left = std::fs::read_dir(to.cache()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with(".import-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// EPROV-025
#[test]
fn a_model_that_was_a_file_of_one_machine_comes_along_and_stands_for_that_file() {
    let from = Machine::new();
    let with_file = from.pool(vec![from.archive("a.tar.gz")]);
    let file = from.path("pool.bundle");
    let cancel = Cancel::new();
    let bundled = from.provisioner().export_bundle(&with_file, &file, &Log::default(), &cancel).unwrap();
    // On the other machine nothing is at that place.
    std::fs::remove_file(from.path("model.gguf")).unwrap();
    let to = elsewhere();
    let ensure = || to.provisioner().offline(true).ensure_pool(&with_file, &Log::default(), &cancel);
    assert_eq!(ensure().unwrap_err().exit_code(), 6);
    import(&to, &file, Some(&bundled.sha256)).unwrap();
    let engine = ensure().unwrap().remove(0);
    assert_eq!(engine.model_digest, bundled.model_digest);
    assert!(engine.model_path.starts_with(to.cache()), "{:?}", engine.model_path);
    let plan = to.provisioner().plan(&with_file, &cancel).unwrap().to_string();
    assert!(plan.contains("it came in a bundle"), "{plan}");
    let mut bytes = std::fs::read(&engine.model_path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&engine.model_path, bytes).unwrap();
    assert_eq!(ensure().unwrap_err().exit_code(), 7, "damaged, it is not used");
    // A file that is there is the model, whatever a bundle brought.
    let other = gguf_random::Shape { layers: 1, width: 32, heads: 2, ..Default::default() };
    other.write(&from.path("model.gguf")).unwrap();
    assert_eq!(ensure().unwrap()[0].model_path, from.path("model.gguf"));
}
