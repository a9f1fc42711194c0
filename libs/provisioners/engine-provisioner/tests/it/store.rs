//! What is kept of an engine, how it is checked before it is handed out, and what may go.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use provisioners_engine_provisioner::{Cancel, EngineStore, EnsureError, GcRules};
use wire::config::{EngineSource, ModelsConfig, PathSource, PoolConfig, SdistSource};
use wire::{PreparedEngine, ReplicaId};

use crate::machine::{ENGINE, Log, Machine, manifest};

fn age(machine: &Machine, engine: &PreparedEngine, seconds: u64) {
    let path = machine.cache().join("engines").join(&engine.engine_digest).join("last-used");
    let at = SystemTime::now() - Duration::from_secs(seconds);
    std::fs::File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
}

/// Another engine of the same source, last used so many seconds ago.
fn engine(machine: &Machine, flag: &str, seconds: u64) -> PreparedEngine {
    let mut pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    pool.provisioning.cmake_flags = vec![format!("-DFLAVOUR={flag}")];
    let engine =
        machine.provisioner().ensure(&pool, &ReplicaId::nth(0), &Log::default(), &Cancel::new()).unwrap();
    age(machine, &engine, seconds);
    engine
}

fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// EPROV-012
#[test]
fn the_manifest_says_everything_about_a_build_and_the_bill_of_materials_lies_beside_it() {
    let machine = Machine::new();
    let built = machine.ensure(vec![machine.missing(), machine.archive("a.tar.gz")]).unwrap();
    let text = manifest(&built);
    assert_eq!(text["survey"]["version"], "7 (fake)");
    assert!(text["survey"]["flags"].as_array().unwrap().iter().any(|flag| flag == "--ctx-size"));
    assert_eq!(text["inputs"]["compilers"], serde_json::json!(["fakecc 1.0", "fakec++ 1.0"]));
    assert_eq!(text["inputs"]["definitions"]["CMAKE_BUILD_TYPE"], "Release");
    assert_eq!(text["attempts"].as_array().unwrap().len(), 1);
    assert!(
        text["built_unix_ms"].as_u64().unwrap() > 0 && text["binary_sha256"].as_str().unwrap().len() == 64
    );
    let sbom = built.binary_path.parent().unwrap().with_file_name("sbom.cdx.json");
    let sbom: serde_json::Value = serde_json::from_slice(&std::fs::read(sbom).unwrap()).unwrap();
    assert_eq!((sbom["bomFormat"].as_str(), sbom["specVersion"].as_str()), (Some("CycloneDX"), Some("1.6")));
    let hash = &sbom["metadata"]["component"]["hashes"][0]["content"];
    assert_eq!(hash, &text["binary_sha256"]);
}

/// EPROV-013
#[test]
fn a_binary_that_is_not_the_recorded_one_is_not_handed_out_but_built_again() {
    let machine = Machine::new();
    let sources = || vec![machine.archive("a.tar.gz")];
    let first = machine.ensure(sources()).unwrap();
    damage(&first.binary_path);
    let verdicts = EngineStore::new(&machine.cache()).verify(&Cancel::new()).unwrap();
    assert!(verdicts[0].problem.as_ref().unwrap().contains("recorded is"), "{verdicts:?}");
    machine.calls();
    assert_eq!(machine.ensure(sources()).unwrap(), first);
    assert!(machine.calls().iter().any(|call| call.starts_with("cmake --build")), "it was built again");
    assert_eq!(std::fs::read_to_string(&first.binary_path).unwrap(), ENGINE);
    assert_eq!(EngineStore::new(&machine.cache()).verify(&Cancel::new()).unwrap()[0].problem, None);
}

/// EPROV-013
#[test]
fn an_engine_of_the_first_version_is_asked_for_its_flags_when_it_is_next_used() {
    let machine = Machine::new();
    let first = machine.ensure(vec![machine.archive("a.tar.gz")]).unwrap();
    let path = first.binary_path.parent().unwrap().with_file_name("manifest.json");
    let mut old = manifest(&first);
    old.as_object_mut().unwrap().remove("survey");
    old["schema_version"] = 1.into();
    std::fs::write(&path, old.to_string()).unwrap();
    assert_eq!(machine.ensure(vec![machine.archive("a.tar.gz")]).unwrap(), first);
    assert_eq!(manifest(&first)["survey"]["version"], "7 (fake)");
    assert_eq!(manifest(&first)["schema_version"], 2);
}

/// EPROV-016
#[test]
fn a_build_that_cannot_say_what_it_is_is_no_engine() {
    let machine = Machine::new();
    machine.executable(&machine.bin().join("engine"), "#!/bin/sh\necho illegal instruction; exit 132\n");
    let error = machine.ensure(vec![machine.archive("a.tar.gz")]).unwrap_err();
    assert!(error.to_string().contains("illegal instruction"), "{error}");
    assert_eq!(error.exit_code(), 5);
    assert_eq!(EngineStore::new(&machine.cache()).list(), vec![]);
    machine.executable(&machine.path("other"), "#!/bin/sh\necho hello\n");
    let source = EngineSource::Path(PathSource { binary: machine.path("other") });
    assert!(machine.ensure(vec![source]).unwrap_err().to_string().contains("no llama-server"));
}

/// EPROV-016
#[test]
fn a_flag_that_this_build_does_not_know_is_refused_although_the_list_allows_it() {
    let machine = Machine::new();
    let mut pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    pool.flags = vec!["--mlock".into()];
    let ensure = |pool: &PoolConfig| machine.provisioner().ensure_pool(pool, &Log::default(), &Cancel::new());
    let error = ensure(&pool).unwrap_err();
    assert!(error.to_string().contains("--mlock is not known to llamacpp-"), "{error}");
    assert_eq!(error.exit_code(), 2);
    pool.flags = vec!["--thread".into(), "2".into()];
    pool.unsafe_flags = true;
    let error = ensure(&pool).unwrap_err();
    assert!(error.to_string().ends_with("did you mean --threads?"), "{error}");
    pool.flags = vec!["--threads=2".into()];
    assert!(ensure(&pool).is_ok());
}

/// EPROV-014
#[test]
fn gc_keeps_the_last_used_and_what_runs_and_what_was_just_handed_out() {
    let machine = Machine::new();
    let (oldest, running, fresh, newest) = (
        engine(&machine, "a", 9000),
        engine(&machine, "b", 8000),
        engine(&machine, "c", 60),
        engine(&machine, "d", 30),
    );
    let store = EngineStore::new(&machine.cache());
    let order: Vec<String> = store.list().into_iter().map(|entry| entry.digest).collect();
    let expected = [&newest, &fresh, &running, &oldest].map(|engine| engine.engine_digest.clone());
    assert_eq!(order, expected);
    let mut process = std::process::Command::new("tail").arg("-f").arg(&running.binary_path).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while !store.list().iter().any(|entry| entry.in_use) && Instant::now() < until {
        std::thread::yield_now();
    }
    let removals = store.gc(&GcRules::keeping(1));
    process.kill().unwrap();
    process.wait().unwrap();
    let reasons: Vec<_> = removals.iter().map(|removal| removal.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "among the last used",
            "it was handed out in the last ten minutes",
            "a process runs it",
            "not among the last used"
        ]
    );
    assert!(!oldest.binary_path.exists() && running.binary_path.exists() && fresh.binary_path.exists());
    assert!(removals[3].removed && removals[3].bytes > 0);
    assert_eq!(
        store.gc(&GcRules::keeping(2)).iter().filter(|removal| removal.removed).count(),
        1,
        "it no longer runs"
    );
}

/// EPROV-033
#[test]
fn an_engine_that_a_later_version_described_is_neither_used_nor_built_over() {
    let machine = Machine::new();
    let path = machine.path("llama-server");
    machine.executable(&path, &format!("{ENGINE}\n# another one\n"));
    let by_path = EngineSource::Path(PathSource { binary: path });
    for source in [machine.archive("a.tar.gz"), by_path] {
        let engine = machine.ensure(vec![source.clone()]).unwrap();
        let manifest = machine.cache().join("engines").join(&engine.engine_digest).join("manifest.json");
        let text = std::fs::read_to_string(&manifest).unwrap();
        let later = text.replace("\"schema_version\": 2", "\"schema_version\": 3");
        assert_ne!(later, text);
        std::fs::write(&manifest, &later).unwrap();
        machine.calls();
        let error = machine.ensure(vec![source]).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("a later version of this program wrote it (format 3"), "{cause}");
        assert_eq!(std::fs::read_to_string(&manifest).unwrap(), later);
        assert!(!machine.calls().iter().any(|call| call.starts_with("cmake --build")), "nothing was built");
    }
}

/// EPROV-014
#[test]
fn what_is_known_of_a_binary_that_is_gone_goes_and_keeps_no_engine_from_being_kept() {
    let machine = Machine::new();
    let built = machine.ensure(vec![machine.archive("a.tar.gz")]).unwrap();
    let binary = machine.path("llama-server");
    machine.executable(&binary, &format!("{ENGINE}\n# another one\n"));
    machine.ensure(vec![EngineSource::Path(PathSource { binary: binary.clone() })]).unwrap();
    std::fs::remove_file(&binary).unwrap();
    let removals = EngineStore::new(&machine.cache()).gc(&GcRules::keeping(1));
    let said: Vec<_> = removals.iter().map(|removal| (removal.removed, removal.reason.as_str())).collect();
    let gone = format!("its binary {} is not there any more", binary.display());
    assert_eq!(said, [(false, "among the last used"), (true, gone.as_str())]);
    assert!(built.binary_path.exists());
    assert_eq!(EngineStore::new(&machine.cache()).list().len(), 1);
}

/// EPROV-015
#[test]
fn offline_uses_what_is_here_and_names_what_is_not() {
    let machine = Machine::new();
    let sdist = || vec![EngineSource::Sdist(SdistSource::pinned())];
    let ensure = |sources, model: &str| {
        let mut pool = machine.pool(sources);
        if !model.is_empty() {
            pool.model = model.to_owned();
        }
        machine.provisioner().offline(true).ensure_pool(&pool, &Log::default(), &Cancel::new())
    };
    let error = ensure(sdist(), "").unwrap_err();
    assert!(error.to_string().contains("offline: neither the engine nor its source"), "{error}");
    assert!(machine.calls().iter().all(|call| call.ends_with("--version")), "nothing was fetched");
    let error = ensure(vec![machine.archive("a.tar.gz")], "hf:org/repo:Q4_K_M").unwrap_err();
    let EnsureError::Model { source, .. } = &error else { panic!("{error}") };
    assert!(std::error::Error::source(source).unwrap().to_string().starts_with("offline: it is not in"));
    // A local archive needs no network, nor does an engine that is there.
    let built = ensure(vec![machine.archive("a.tar.gz")], "").unwrap();
    assert_eq!(ensure(vec![machine.archive("a.tar.gz")], "").unwrap(), built);
}

/// MPROV-012
#[test]
fn the_owners_program_gets_the_model_file_and_decides() {
    let machine = Machine::new();
    machine.tool("agree", "[ -e \"$d/no\" ] && { echo not signed; exit 3; }; exit 0");
    machine.flag("no");
    let words = [machine.bin().join("agree").display().to_string(), "--strict".to_owned()];
    let rules = ModelsConfig { verify_command: words.to_vec(), ..ModelsConfig::default() };
    let pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    let ensure = || {
        let provisioner = machine.provisioner().with_model_rules(&rules);
        provisioner.ensure_pool(&pool, &Log::default(), &Cancel::new())
    };
    let error = ensure().unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.starts_with("UNTRUSTED_ARTIFACT") && source.contains("not signed"), "{source}");
    assert_eq!(error.exit_code(), 7);
    assert_eq!(machine.calls(), [format!("agree --strict {}", machine.path("model.gguf").display())]);
    std::fs::remove_file(machine.bin().join("no")).unwrap();
    ensure().unwrap();
    machine.calls();
    ensure().unwrap();
    assert!(!machine.calls().iter().any(|call| call.starts_with("agree")), "its yes is remembered");
}

/// MPROV-024
#[test]
fn gc_removes_sources_that_nobody_fetched_or_unpacked_to_their_end_and_what_is_left_of_bundles() {
    let machine = Machine::new();
    let sources = machine.cache().join("sources");
    std::fs::create_dir_all(sources.join(".partial")).unwrap();
    let path = |name: &str| sources.join(name);
    for name in [".partial/old.part", ".partial/young.part"] {
        std::fs::write(path(name), "bytes").unwrap();
    }
    for name in [".new-old", ".new-young", "a-tree-that-is-old", "../.import-old", "../.export-young"] {
        std::fs::create_dir(path(name)).unwrap();
        std::fs::write(path(name).join("file"), "bytes").unwrap();
    }
    for name in [".partial/old.part", ".new-old", "a-tree-that-is-old", "../.import-old"] {
        let file = std::fs::File::open(path(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(8 * 24 * 3600)).unwrap();
    }
    for name in [".partial/young.part", ".new-young", "../.export-young"] {
        let file = std::fs::File::open(path(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(6 * 24 * 3600)).unwrap();
    }
    let store = EngineStore::new(&machine.cache());
    assert_eq!(store.unfinished_sources().len(), 2);
    let removals = store.gc(&GcRules::keeping(9));
    assert!(
        removals.len() == 3 && removals.iter().all(|removal| removal.removed && removal.bytes > 0),
        "{removals:?}"
    );
    for gone in [".partial/old.part", ".new-old", "../.import-old"] {
        assert!(!path(gone).exists(), "{gone}");
    }
    for kept in [".partial/young.part", ".new-young", "a-tree-that-is-old", "../.export-young"] {
        assert!(path(kept).exists(), "{kept}");
    }
}

/// EPROV-014
#[test]
fn gc_removes_the_sources_and_tools_that_no_engine_that_stays_was_built_with_and_says_so_before() {
    let machine = Machine::new();
    let cache = machine.cache();
    let old = machine.ensure(vec![machine.archive("a.tar.gz")]).unwrap();
    let new = machine.ensure(vec![machine.archive("b.tar.gz")]).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    for (engine, at) in [(&old, long_ago), (&new, long_ago + Duration::from_secs(60))] {
        let note = cache.join("engines").join(&engine.engine_digest).join("last-used");
        std::fs::File::options().write(true).open(note).unwrap().set_modified(at).unwrap();
    }
    let trees = || {
        let names = std::fs::read_dir(cache.join("sources")).unwrap().map(|e| e.unwrap().file_name());
        names.filter(|name| name.len() == 64).count()
    };
    assert_eq!(trees(), 2, "one for each archive");
    let stale = cache.join("tools/cmake-0.0.1-ninja-0.0.1");
    std::fs::create_dir_all(&stale).unwrap();
    std::fs::write(stale.join("cmake"), "bytes").unwrap();
    let build = cache.join("engines/.build-0123");
    std::fs::create_dir(&build).unwrap();
    std::fs::write(build.join("object"), "bytes").unwrap();

    let store = EngineStore::new(&cache);
    let rules = GcRules::keeping(1);
    let all = GcRules { unfinished: Duration::ZERO, ..rules };
    let removed = |rules: &GcRules| -> Vec<String> {
        store.gc(rules).into_iter().filter(|removal| removal.removed).map(|removal| removal.what).collect()
    };
    assert_eq!(store.unfinished_builds().len(), 1);
    let dry = removed(&GcRules { dry_run: true, ..all });
    assert_eq!(dry.len(), 4, "an engine, a build, a source and tools: {dry:?}");
    assert!(
        old.binary_path.exists() && build.exists() && stale.exists() && trees() == 2,
        "nothing was removed"
    );
    assert_eq!(removed(&rules).len(), 1, "for the build that may go on everything stays but the engine");
    assert!(build.exists() && stale.exists() && trees() == 2);
    let mut rest = dry.clone();
    rest.remove(0);
    assert_eq!(removed(&all), rest, "what was said before");
    assert!(new.binary_path.exists() && !build.exists() && !stale.exists() && trees() == 1);
    assert_eq!(removed(&all), Vec::<String>::new());
    std::fs::create_dir_all(&stale).unwrap();
    let building = std::fs::File::open(cache.join("engines/.lock-materials")).unwrap();
    building.lock_shared().unwrap();
    assert_eq!(removed(&all), Vec::<String>::new());
    assert_eq!(store.gc(&all).last().unwrap().reason, "an engine is being built");
    drop(building);
    assert_eq!(removed(&all), ["cmake-0.0.1-ninja-0.0.1"]);
    // What stays is what another build of the engine that stays would take.
    machine.calls();
    assert_eq!(machine.ensure(vec![machine.archive("b.tar.gz")]).unwrap(), new);
}
