//! `ensure` from the outside, with a toolchain of scripts: what is run, in which order, what is kept,
//! what the errors say. The real build is the end-to-end suite's.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use provisioners_engine_provisioner::{Cancel, EngineProvisioner, EnsureError, Observer};
use wire::config::{EngineSource, GitSource, GpuPolicy, PathSource, SdistSource};
use wire::{PreparationStep, PreparedEngine, ReplicaId, StepStatus};

use crate::machine::{ENGINE, Log, Machine, manifest, no_card, write_archive};

/// EPROV-001, EPROV-002
#[test]
fn a_source_that_fails_is_followed_by_the_next_and_kept_in_the_manifest() {
    let machine = Machine::new();
    let engine = machine.ensure(vec![machine.missing(), machine.archive("good.tar.gz")]).unwrap();
    assert!(engine.binary_path.starts_with(machine.cache().join("engines").join(&engine.engine_digest)));
    assert_eq!(std::fs::read_to_string(&engine.binary_path).unwrap(), ENGINE);
    assert!(engine.engine_version.ends_with(&engine.engine_digest[..12]), "{}", engine.engine_version);
    let manifest = manifest(&engine);
    assert_eq!(manifest["attempts"][0]["kind"], "fetch");
    assert!(manifest["attempts"][0]["reason"].as_str().unwrap().contains("nowhere.tar.gz"));
    assert_eq!(manifest["cmake"], "cmake version 3.30.1");
}

/// EPROV-002
#[test]
fn when_no_source_works_each_reason_is_listed() {
    let machine = Machine::new();
    machine.flag("no-index");
    let sdist = EngineSource::Sdist(SdistSource::pinned());
    let error = machine.ensure(vec![machine.missing(), sdist]).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("nowhere.tar.gz does not exist"), "{text}");
    assert!(text.contains("llama-cpp-python 0.3.36") && text.contains("No matching distribution"), "{text}");
    assert_eq!(error.exit_code(), 4);
}

/// EPROV-008
#[test]
fn a_failing_build_shows_its_last_forty_lines_and_its_log() {
    let machine = Machine::new();
    machine.flag("broken");
    let error = machine.ensure(vec![machine.archive("a.tar.gz")]).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("error line 60") && text.contains("error line 99") && !text.contains("error line 59"),
        "{text}"
    );
    let log = text.split_whitespace().find(|word| word.ends_with("build.log")).unwrap();
    assert_eq!(std::fs::read_to_string(log).unwrap().lines().count(), 100);
    assert_eq!(error.exit_code(), 5);
    std::fs::remove_file(machine.bin().join("broken")).unwrap();
    assert!(machine.ensure(vec![machine.archive("a.tar.gz")]).is_ok(), "the next attempt may succeed");
}

#[test]
fn a_second_ensure_asks_the_compilers_for_their_version_and_runs_nothing_else() {
    let machine = Machine::new();
    let first = machine.ensure(vec![machine.archive("a.tar.gz")]).unwrap();
    machine.calls();
    let second = machine.ensure(vec![machine.archive("a.tar.gz")]).unwrap();
    assert_eq!(second, first);
    assert_eq!(machine.calls(), ["cc --version", "c++ --version"]);
}

#[test]
fn an_engine_that_was_built_before_is_used_although_an_earlier_source_still_fails() {
    let machine = Machine::new();
    let first = machine.ensure(vec![machine.missing(), machine.archive("a.tar.gz")]).unwrap();
    machine.calls();
    assert_eq!(machine.ensure(vec![machine.missing(), machine.archive("a.tar.gz")]).unwrap(), first);
    assert!(machine.calls().iter().all(|call| call.ends_with("--version")));
}

/// EPROV-006
#[test]
fn another_compiler_or_another_flag_is_another_engine() {
    let machine = Machine::new();
    let first = machine.ensure(vec![machine.archive("a.tar.gz")]).unwrap();
    machine.tool("cc", "echo fakecc 2.0");
    let second = machine.ensure(vec![machine.archive("a.tar.gz")]).unwrap();
    assert_ne!(second.engine_digest, first.engine_digest);
    let mut pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    pool.provisioning.cmake_flags = vec!["-DLLAMA_CUBLAS=OFF".into()];
    let third = machine.provisioner().ensure_pool(&pool, &Log::default(), &Cancel::new()).unwrap();
    assert_ne!(third[0].engine_digest, second.engine_digest);
    assert!(machine.calls().iter().any(|call| call.contains("-DGGML_CUDA=OFF")));
}

/// Lets the held build go on as soon as someone waits for it.
struct ReleaseOnWait(PathBuf);
impl Observer for ReleaseOnWait {
    fn step(&self, step: &PreparationStep) {
        if step.description.contains("waiting for another process") {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

/// EPROV-007
#[test]
fn two_at_once_build_once() {
    let machine = Machine::new();
    machine.flag("hold");
    let pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    let engines: Vec<PreparedEngine> = std::thread::scope(|scope| {
        let one = || {
            let observer = ReleaseOnWait(machine.bin().join("hold"));
            machine.provisioner().ensure(&pool, &ReplicaId::nth(0), &observer, &Cancel::new()).unwrap()
        };
        let threads = [scope.spawn(one), scope.spawn(one)];
        threads.map(|thread| thread.join().unwrap()).into()
    });
    assert_eq!(engines[0], engines[1]);
    assert!(!machine.bin().join("hold").exists(), "one of them waited and said so");
    assert_eq!(machine.calls().iter().filter(|call| call.starts_with("cmake --build")).count(), 1);
}

#[test]
fn replicas_share_one_engine() {
    let machine = Machine::new();
    let mut pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    pool.replicas = 3;
    let engines = machine.provisioner().ensure_pool(&pool, &Log::default(), &Cancel::new()).unwrap();
    let names: Vec<_> = engines.iter().map(|engine| engine.replica_id.as_str().to_owned()).collect();
    assert_eq!(names, ["r0", "r1", "r2"]);
    assert_eq!(machine.calls().iter().filter(|call| call.starts_with("cmake --build")).count(), 1);
}

#[test]
fn progress_counts_compile_steps_and_ends_completed() {
    let machine = Machine::new();
    let log = Log::default();
    let pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    machine.provisioner().ensure_pool(&pool, &log, &Cancel::new()).unwrap();
    let steps = log.0.into_inner().unwrap();
    let built = steps.iter().find(|s| s.bytes_done == Some(2)).unwrap();
    assert_eq!((built.id.as_str(), built.bytes_total), ("haiku/engine", Some(2)));
    assert_eq!(built.description, "building llama-server: 100 % (2 of 2), 0 min so far");
    for id in ["haiku/model", "haiku/engine"] {
        let last = steps.iter().rfind(|s| s.id == id).unwrap();
        assert_eq!(last.status, StepStatus::Completed, "{last:?}");
    }
}

#[test]
fn an_existing_binary_is_used_as_it_is_and_nothing_runs() {
    let machine = Machine::new();
    let binary = machine.path("my-server");
    std::fs::write(&binary, ENGINE).unwrap();
    let source = || vec![EngineSource::Path(PathSource { binary: binary.clone() })];
    let error = machine.ensure(source()).unwrap_err();
    assert!(error.to_string().contains("not executable"), "{error}");
    std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
    let engine = machine.ensure(source()).unwrap();
    assert_eq!(engine.binary_path, binary);
    assert!(engine.engine_version.starts_with("llamacpp-path-"), "{}", engine.engine_version);
    assert_eq!(machine.calls(), Vec::<String>::new());
}

/// EPROV-003
#[test]
fn an_archive_that_is_not_the_pinned_one_is_not_used() {
    let machine = Machine::new();
    let EngineSource::Archive(mut source) = machine.archive("a.tar.gz") else { panic!() };
    let actual = std::mem::replace(&mut source.sha256, "2".repeat(64));
    let error = machine.ensure(vec![EngineSource::Archive(source)]).unwrap_err();
    assert!(error.to_string().contains(&actual) && error.to_string().contains(&"2".repeat(64)), "{error}");
    assert_eq!(error.exit_code(), 7);
    assert_eq!(std::fs::read_dir(machine.cache().join("sources")).unwrap().count(), 0, "nothing was kept");
}

/// EPROV-003
#[test]
fn a_source_distribution_is_fetched_by_pip_and_checked_again() {
    let machine = Machine::new();
    let sha256 = write_archive(&machine.bin().join("sdist.tar.gz"));
    let source = |sha256: &str| {
        vec![EngineSource::Sdist(SdistSource {
            package: "thing".into(),
            version: "1.0".into(),
            sha256: sha256.to_owned(),
            subdir: "vendor/engine".into(),
        })]
    };
    let engine = machine.ensure(source(&sha256)).unwrap();
    assert!(engine.engine_version.starts_with("llamacpp-1.0-"), "{}", engine.engine_version);
    let pip = machine.calls().into_iter().find(|call| call.contains("pip download")).unwrap();
    for flag in ["--require-hashes", "--no-deps", "--no-build-isolation", "--no-binary :all:"] {
        assert!(pip.contains(flag), "{pip}");
    }
    assert_eq!(machine.ensure(source(&"3".repeat(64))).unwrap_err().exit_code(), 7);
}

/// EPROV-003
#[test]
fn a_tag_that_was_moved_is_refused_and_the_pinned_commit_is_built() {
    let machine = Machine::new();
    let path = std::env::var_os("PATH").unwrap();
    let git = std::env::split_paths(&path).map(|dir| dir.join("git")).find(|path| path.exists()).unwrap();
    std::os::unix::fs::symlink(&git, machine.bin().join("git")).unwrap();
    let repo = machine.path("repo");
    std::fs::create_dir(&repo).unwrap();
    let run = |args: &[&str]| {
        let base = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"];
        let out = Command::new(&git).args(base).args(args).current_dir(&repo).output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    run(&["init", "-q"]);
    std::fs::write(repo.join("CMakeLists.txt"), "one").unwrap();
    run(&["add", "."]);
    run(&["commit", "-q", "-m", "one"]);
    run(&["tag", "b1"]);
    let pinned = run(&["rev-parse", "HEAD"]);
    let source = || {
        vec![EngineSource::Git(GitSource {
            repo: repo.to_str().unwrap().to_owned(),
            reference: "b1".into(),
            commit: pinned.clone(),
            submodules: false,
        })]
    };
    let engine = machine.ensure(source()).unwrap();
    assert!(engine.engine_version.starts_with("llamacpp-b1-"), "{}", engine.engine_version);
    std::fs::write(repo.join("CMakeLists.txt"), "two").unwrap();
    run(&["commit", "-q", "-a", "-m", "two"]);
    run(&["tag", "-f", "b1"]);
    std::fs::remove_dir_all(machine.cache()).unwrap();
    let error = machine.ensure(source()).unwrap_err();
    assert!(
        error.to_string().contains("the ref was moved") && error.to_string().contains(&pinned),
        "{error}"
    );
    assert_eq!(error.exit_code(), 7);
}

/// EPROV-004
#[test]
fn missing_tools_are_all_reported_before_anything_is_fetched() {
    let machine = Machine::new();
    let provisioner =
        EngineProvisioner::new(machine.cache(), &machine.env("/nonexistent")).with_cards(Box::new(no_card));
    let pool = machine.pool(vec![EngineSource::Sdist(SdistSource::pinned())]);
    let error = provisioner.ensure_pool(&pool, &Log::default(), &Cancel::new()).unwrap_err();
    let text = error.to_string();
    for needed in ["C compiler", "C++ compiler", "python3 with pip"].map(|what| format!("MISSING  {what}")) {
        assert!(text.contains(&needed), "{text}");
    }
    assert_eq!(error.exit_code(), 3);
    assert!(!machine.cache().join("sources").exists());
}

/// EPROV-005
#[test]
fn a_required_gpu_that_is_not_there_stops_before_anything_is_fetched() {
    let machine = Machine::new();
    let mut pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    pool.provisioning.gpu = GpuPolicy::Required;
    let error = machine.provisioner().ensure_pool(&pool, &Log::default(), &Cancel::new()).unwrap_err();
    assert!(error.to_string().contains("gpu: off"), "{error}");
    assert_eq!(error.exit_code(), 3);
    assert_eq!(machine.calls(), Vec::<String>::new());
}

/// Asks to stop as soon as the build counts.
struct CancelAtBuild(Cancel, Mutex<Option<Instant>>);
impl Observer for CancelAtBuild {
    fn step(&self, step: &PreparationStep) {
        if step.bytes_done.is_some() {
            self.1.lock().unwrap().get_or_insert_with(Instant::now);
            self.0.cancel();
        }
    }
}

/// Processes that were started from `dir`.
fn processes_of(dir: &Path) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let named = |entry: &std::fs::DirEntry| {
        let text = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&text).contains(dir.to_str().unwrap())
    };
    entries.filter(named).count()
}

/// EPROV-001, EPROV-010
#[test]
fn an_interrupted_build_stops_soon_and_goes_on_where_it_was() {
    let machine = Machine::new();
    machine.flag("hold");
    let pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    let cancel = Cancel::new();
    let observer = CancelAtBuild(cancel.clone(), Mutex::default());
    let error = machine.provisioner().ensure_pool(&pool, &observer, &cancel).unwrap_err();
    let took = observer.1.lock().unwrap().unwrap().elapsed();
    assert!(matches!(error, EnsureError::Cancelled), "{error}");
    // How soon a helper ends is asked where helpers are tested.
    assert!(took < Duration::from_secs(15), "it took {took:?}; the held build would take twenty seconds");
    assert_eq!(processes_of(machine.dir.path()), 0, "no helper is left");
    assert_eq!(error.exit_code(), 130);
    let engines = machine.cache().join("engines");
    let kept = std::fs::read_dir(&engines)
        .unwrap()
        .flatten()
        .any(|e| e.file_name().to_string_lossy().starts_with(".build-"));
    assert!(kept, "the objects are kept");
    std::fs::remove_file(machine.bin().join("hold")).unwrap();
    assert!(machine.ensure(vec![machine.archive("a.tar.gz")]).is_ok());
}

#[test]
fn a_bad_flag_or_variable_is_refused_before_anything_happens() {
    let machine = Machine::new();
    let mut pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    pool.flags = vec!["--tools".into(), "all".into()];
    let error = machine.provisioner().ensure_pool(&pool, &Log::default(), &Cancel::new()).unwrap_err();
    assert!(error.to_string().starts_with("pool haiku: flags: --tools"), "{error}");
    assert_eq!(error.exit_code(), 2);
    assert_eq!(machine.calls(), Vec::<String>::new());
}

#[test]
fn a_missing_model_stops_before_the_build() {
    let machine = Machine::new();
    let mut pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    pool.model = "file:/no/such.gguf".into();
    let error = machine.provisioner().ensure_pool(&pool, &Log::default(), &Cancel::new()).unwrap_err();
    assert_eq!(error.exit_code(), 6);
    assert_eq!(machine.calls(), Vec::<String>::new());
}
