//! What `plan` says about a machine, and what builds where there is no Ninja.

use provisioners_engine_provisioner::{Cancel, EngineProvisioner, Plan};
use wire::config::{EngineSource, ModelsConfig, PoolConfig, SdistSource, ToolkitPolicy, TrustPolicy};

use crate::kills::{COMMIT, Hub};
use crate::machine::{Log, Machine, no_card};

fn with_tools() -> Machine {
    let machine = Machine::new();
    machine.tool("git", "echo git version 2.47.0");
    machine.tool("ninja", "echo 1.12.1");
    machine
}

/// The plan as text, the machine's directory and what depends on the processor that runs the test left out.
fn text(machine: &Machine, plan: &Plan) -> String {
    let text = plan.to_string().replace(machine.dir.path().to_str().unwrap(), "/M");
    let mut out = String::new();
    for line in text.lines() {
        let line = match (line.find(" as cores and free memory allow"), line.find(", build as ")) {
            (Some(_), _) => "    N. the build: (what cores and memory allow)".to_owned(),
            (_, Some(at)) => format!("{}, build as DIGEST{}", &line[..at], &line[at + 23..]),
            _ => line.to_owned(),
        };
        out += &format!("{line}\n");
    }
    out
}

fn plan(provisioner: &EngineProvisioner, pool: &PoolConfig) -> Plan {
    provisioner.plan(pool, &Cancel::new()).unwrap()
}

/// Everything that would stop it, one a line.
fn stops(plan: &Plan) -> String {
    plan.stopped_by.iter().map(|blocker| format!("{}: {}\n", blocker.exit_code, blocker.problem)).collect()
}

/// EPROV-004
#[test]
fn a_plan_says_what_is_here_and_each_step_with_its_size_and_reason_and_touches_nothing() {
    let machine = with_tools();
    let mut pool = machine.pool(vec![machine.missing(), EngineSource::Sdist(SdistSource::pinned())]);
    pool.model = "builtin:haiku".into();
    let planned = plan(&machine.alone(), &pool);
    insta::assert_snapshot!(text(&machine, &planned), @r#"
        pool haiku
          this machine, [in brackets the key of the configuration that changes it]
            ok       git: 2.47.0 (/M/bin/git) [provisioning.sources]
            ok       CMake 3.14 or newer: 3.30.1 (/M/bin/cmake) [provisioning.sources]
            ok       Ninja or make: Ninja 1.12.1 (/M/bin/ninja) [provisioning.sources]
            ok       C compiler: fakecc 1.0 (/M/bin/cc) [provisioning.sources]
            ok       C++ compiler: fakec++ 1.0 (/M/bin/c++) [provisioning.sources]
            ok       python3 with pip: 3.11.2 (/M/bin/python3) [provisioning.sources]
            ok       free disk in /M/cache: 40960 MiB; a build takes up to 930 MiB (290 for the source, 512 for objects, 128 for what else there is) [paths.cache]
          steps
            1. build for the CPU (gpu: auto; no NVIDIA card found: the engine runs on the CPU)
            2. model builtin:haiku (1.8 MiB): write it into the cache, it ships with the program
            3. archive file:/M/nowhere.tar.gz: passed over, /M/nowhere.tar.gz is not there
            4. sdist llama-cpp-python 0.3.36: fetch (73 MiB to fetch, 217 MiB unpacked), check against 832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e, build as DIGEST, because nothing in the cache was built from the same
            5. the first source that works is used; it is built with /M/bin/cmake and /M/bin/ninja
            N. the build: (what cores and memory allow)
            7. hand over 1 replica(s), its memory is estimated once the model is here, of: llama-server --model MODEL --ctx-size 2048 --parallel 1 --no-cont-batching --no-webui --metrics --offline --fit off --n-gpu-layers 0
        "#);
    assert!(!machine.cache().exists(), "planning writes nothing");
    let asked = machine.calls();
    assert!(asked.iter().all(|call| call.contains("--version") || call.contains("find_spec")), "{asked:?}");
    let json = serde_json::to_value(&planned).unwrap();
    let git = &json["preflight"][0];
    assert_eq!(
        (&git["what"], &git["state"], &git["key"]),
        (&"git".into(), &"found".into(), &"provisioning.sources".into())
    );
}

/// EPROV-004
#[test]
fn a_plan_for_a_card_has_the_toolkit_and_what_stops_it() {
    let machine = with_tools();
    machine.tool("nvidia-smi", "echo '0, GPU-aa, NVIDIA GeForce RTX 3090, 8.6, 24576, 24000, 580.95, 0'");
    std::fs::remove_file(machine.bin().join("c++")).unwrap();
    std::fs::remove_file(machine.bin().join("ninja")).unwrap();
    let mut pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    pool.provisioning.toolkit = ToolkitPolicy::Managed;
    let provisioner = machine.alone().with_cards(Box::new(machine.cards()));
    let planned = plan(&provisioner, &pool);
    let stopped = stops(&planned);
    assert!(stopped.starts_with("3: MISSING C++ compiler (") && stopped.lines().count() == 1, "{stopped}");
    assert!(stopped.contains("set CXX") && stopped.contains("[provisioning."), "what to do: {stopped}");
    let text = text(&machine, &planned);
    for part in [
        "CUDA compiler (nvcc): pip installs 13.0.88 into the cache (528 MiB to fetch) [provisioning.toolkit]",
        "compute capabilities of the cards: 86 (used: GPU-aa) [devices]",
        "3.30.1 (/M/bin/cmake) without Ninja; pip installs 4.4.4 into the cache (29 MiB to fetch)",
        "40960 MiB; a build takes up to 3188 MiB (1 for the source, 113 for CMake and Ninja, 841 for the CUDA toolkit, 1536 for objects of compute capability 86, 569 for CUDA's libraries, 128 for what else there is) [paths.cache]",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!machine.cache().exists(), "planning writes nothing");
}

/// A machine whose hub is at `base`.
fn with_hub(machine: &Machine, base: &str) -> EngineProvisioner {
    let (path, home) = (machine.bin(), machine.dir.path());
    let vars = [("PATH", path.to_str().unwrap()), ("HOME", home.to_str().unwrap()), ("HF_ENDPOINT", base)];
    let env = config_loader::Env::new(home, vars);
    EngineProvisioner::new(machine.cache(), &env).with_cards(Box::new(no_card)).with_free_disk(40 << 30)
}

/// EPROV-004
#[test]
fn a_plan_asks_the_hub_how_large_a_model_is_and_fetches_nothing_of_it() {
    let machine = with_tools();
    let hub = Hub::start(std::fs::read(machine.path("model.gguf")).unwrap(), std::time::Duration::ZERO);
    let mut pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    pool.model = "hf:o/r:Q4_K_M".into();
    let model = |provisioner: &EngineProvisioner, pool: &PoolConfig| {
        let planned = plan(provisioner, pool);
        (planned.steps[1].clone(), stops(&planned))
    };
    let bytes = std::fs::metadata(machine.path("model.gguf")).unwrap().len();
    let size = format!("{}.{} MiB to fetch", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20);
    let (line, stopped) = model(&with_hub(&machine, &hub.base), &pool);
    assert_eq!(line, format!("model hf:o/r:Q4_K_M ({size}): fetch it into the cache and check its SHA-256"));
    assert_eq!((stopped.as_str(), hub.sent()), ("", 0));
    let (line, stopped) = model(&with_hub(&machine, &hub.base).with_free_disk(1), &pool);
    assert!(
        line.contains(&size)
            && stopped.contains("6: the model has ")
            && stopped.contains("3: MISSING free disk"),
        "{stopped}"
    );
    // Who refuses it says why; who does not answer stops nothing.
    let missing = PoolConfig { model: "hf:o/r:Q8_0".into(), ..pool.clone() };
    let (_, stopped) = model(&with_hub(&machine, &hub.base), &missing);
    assert!(stopped.contains("no quantisation Q8_0; there are: Q4_K_M"));
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (line, stopped) = model(&with_hub(&machine, &format!("http://{nobody}")), &pool);
    assert!(line.contains("its size is unknown, because its source does not answer"), "{line}");
    assert_eq!(stopped, "");
    let (line, stopped) = model(&with_hub(&machine, &hub.base).offline(true), &pool);
    assert!(line.contains("its size is unknown): neither in this cache nor in the hub's own"), "{line}");
    assert!(stopped.contains("offline: it is not in"), "it could not be staged");
    assert!(!machine.cache().exists(), "planning writes nothing");
}

/// EPROV-004, MPROV-012
#[test]
fn a_plan_says_which_model_would_be_refused_and_why_and_asks_nobody_about_it() {
    let machine = with_tools();
    let hub = Hub::start(std::fs::read(machine.path("model.gguf")).unwrap(), std::time::Duration::ZERO);
    let strict = |sources: &[&str]| ModelsConfig {
        trust: TrustPolicy::Strict,
        allowed_sources: sources.iter().map(|source| (*source).to_owned()).collect(),
        ..ModelsConfig::default()
    };
    let planned = |rules: &ModelsConfig, model: &str, pinned: Option<&str>| {
        let mut pool = machine.pool(vec![machine.archive("a.tar.gz")]);
        model.clone_into(&mut pool.model);
        pool.model_sha256 = pinned.map(str::to_owned);
        let planned = plan(&with_hub(&machine, &hub.base).with_model_rules(rules), &pool);
        (planned.steps[1].clone(), stops(&planned))
    };
    // Nobody is asked: nothing answers there, and no word of it is said.
    let (step, stopped) = planned(&strict(&[]), "https://127.0.0.1:1/m.gguf", None);
    assert_eq!(
        step,
        "model https://127.0.0.1:1/m.gguf: refused by `models` of the configuration, nothing is fetched"
    );
    assert!(
        stopped.starts_with(
            "7: the model cannot be staged: UNTRUSTED_ARTIFACT: https://127.0.0.1:1/m.gguf is refused"
        ),
        "{stopped}"
    );
    assert!(stopped.contains("write the one you trust as `model_sha256`"), "{stopped}");
    let (_, stopped) = planned(&strict(&["hf:trusted"]), "hf:o/r:Q4_K_M", None);
    assert!(stopped.contains("not from one of `models.allowed_sources` (hf:trusted)"), "{stopped}");
    assert_eq!(planned(&strict(&["hf:o"]), "hf:o/r:Q4_K_M", None).1, "", "the hub names its digest");
    // What shows without asking anybody is said whatever the policy.
    let easy = ModelsConfig::default();
    let (step, stopped) = planned(&easy, "builtin:nope", None);
    assert!(step.ends_with("it cannot be used") && stopped.contains("known: haiku"), "{step} {stopped}");
    let (_, stopped) = planned(&easy, "builtin:haiku", Some(&"0".repeat(64)));
    assert!(stopped.contains("expected 0000"), "{stopped}");
    std::fs::write(machine.path("text.gguf"), "no model at all").unwrap();
    let (_, stopped) = planned(&easy, &format!("file:{}", machine.path("text.gguf").display()), None);
    assert!(stopped.contains("is not a usable GGUF model"), "{stopped}");
    assert_eq!(hub.sent(), 0);
    assert!(!machine.cache().exists(), "planning writes nothing");
}

/// EPROV-004, MPROV-009
#[test]
fn a_plan_finds_a_model_in_the_hubs_cache_with_and_without_a_network() {
    let machine = with_tools();
    let bytes = std::fs::read(machine.path("model.gguf")).unwrap();
    let hub = Hub::start(bytes.clone(), std::time::Duration::ZERO);
    let mut pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    pool.model = "hf:o/r:Q4_K_M".into();
    let home = machine.path(".cache/huggingface/hub/models--o--r");
    let snapshot = home.join("snapshots").join(COMMIT);
    for dir in [&snapshot, &home.join("blobs"), &home.join("refs")] {
        std::fs::create_dir_all(dir).unwrap();
    }
    std::fs::write(home.join("refs/main"), COMMIT).unwrap();
    let blob = home.join("blobs").join(crate::kills::digest(&bytes));
    std::fs::write(&blob, &bytes).unwrap();
    std::os::unix::fs::symlink(&blob, snapshot.join("m-q4_k_m.gguf")).unwrap();
    for offline in [false, true] {
        let provisioner = with_hub(&machine, &hub.base).with_free_disk(1).offline(offline);
        let planned = plan(&provisioner, &pool);
        assert!(planned.steps[1].contains("in the hub's cache of this machine, check"), "{planned}");
        let stopped = stops(&planned);
        assert!(!stopped.contains("model"), "it takes no room and no network: {stopped}");
        assert!(
            planned.steps.last().unwrap().contains("each about "),
            "its memory is estimated: {planned:?}"
        );
    }
    // Shorter than the hub says: another file.
    std::fs::write(&blob, &bytes[1..]).unwrap();
    let planned = plan(&with_hub(&machine, &hub.base), &pool);
    assert!(planned.steps[1].contains("to fetch): fetch it into the cache"), "{planned}");
}

/// EPROV-004, EPROV-016
#[test]
fn a_plan_holds_the_flags_against_the_engine_that_is_there() {
    let machine = with_tools();
    let source = machine.archive("a.tar.gz");
    machine.ensure(vec![source.clone()]).unwrap();
    let mut pool = machine.pool(vec![source]);
    assert_eq!(plan(&machine.provisioner(), &pool).stopped_by, []);
    pool.flags = vec!["--batch-size 64".into()];
    let stopped = stops(&plan(&machine.provisioner(), &pool));
    assert!(stopped.contains("2: flags: --batch-size is not known to llamacpp-"), "{stopped}");
}

/// EPROV-004
#[test]
fn what_a_build_misses_is_said_before_a_model_is_fetched_for_it() {
    let machine = with_tools();
    let hub = Hub::start(std::fs::read(machine.path("model.gguf")).unwrap(), std::time::Duration::ZERO);
    let mut pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    pool.model = "hf:o/r:Q4_K_M".into();
    std::fs::remove_file(machine.bin().join("c++")).unwrap();
    // As a run of it, which stops at the first, so does the plan.
    let small = with_hub(&machine, &hub.base).with_free_disk(1);
    let planned = stops(&plan(&small, &pool));
    let kinds: Vec<_> = planned.lines().map(|line| &line[..1]).collect();
    assert_eq!(kinds, ["3", "3", "6"], "{planned}");
    machine.alone();
    let ensure = || with_hub(&machine, &hub.base).ensure_pool(&pool, &Log::default(), &Cancel::new());
    let error = ensure().unwrap_err();
    assert!(error.exit_code() == 3 && error.to_string().contains("C++ compiler"), "{error}");
    assert_eq!(hub.sent(), 0);
    // It is not asked for an engine that is there, or that somebody else built.
    machine.tool("c++", "echo fakec++ 1.0");
    ensure().unwrap();
    assert!(hub.sent() > 0);
}

/// EPROV-004, EPROV-005
#[test]
fn a_plan_without_the_card_it_needs_says_everything_else_as_well() {
    let machine = with_tools();
    std::fs::remove_file(machine.bin().join("c++")).unwrap();
    let mut pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    pool.provisioning.gpu = wire::config::GpuPolicy::Required;
    pool.model = format!("file:{}", machine.path("nowhere.gguf").display());
    let planned = plan(&machine.alone(), &pool);
    let stopped = stops(&planned);
    let lines: Vec<_> = stopped.lines().collect();
    assert!(lines[0].starts_with("3: ") && lines[0].contains("required"), "{stopped}");
    assert!(lines[1].starts_with("6: ") && lines[1].contains("nowhere.gguf does not exist"), "{stopped}");
    assert!(lines[2].starts_with("3: MISSING C++ compiler"), "{stopped}");
    let missing: Vec<_> = planned.preflight.missing().map(|check| check.what.as_str()).collect();
    assert_eq!(missing, ["C++ compiler"], "{planned}");
}

/// EPROV-004, EPROV-015
#[test]
fn a_plan_without_a_network_names_what_is_not_here() {
    let machine = with_tools();
    let mut pool = machine.pool(vec![EngineSource::Sdist(SdistSource::pinned())]);
    pool.model = format!("file:{}", machine.path("nowhere.gguf").display());
    let planned = plan(&machine.alone().offline(true), &pool);
    assert!(
        planned.steps.iter().any(|step| step.starts_with("sdist ") && step.contains("passed over")),
        "{planned}"
    );
    let stopped = stops(&planned);
    assert!(stopped.contains("nowhere.gguf does not exist"), "{stopped}");
    assert!(
        stopped.contains("4: no source of the engine worked") && stopped.contains("offline: neither"),
        "{stopped}"
    );
    // The source is here, and what would build it is not.
    std::fs::remove_file(machine.bin().join("ninja")).unwrap();
    let pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    let stopped = stops(&plan(&machine.alone().offline(true), &pool));
    assert!(stopped.starts_with("4: "), "{stopped}");
    assert!(
        stopped.contains("offline: CMake and Ninja are neither on this machine nor in the cache"),
        "{stopped}"
    );
}

/// EPROV-004
#[test]
fn a_plan_says_that_a_size_is_unknown_where_nobody_names_it_and_asks_nobody() {
    let machine = with_tools();
    let sdist = SdistSource { version: "0.0.1".into(), ..SdistSource::pinned() };
    let git = wire::config::GitSource {
        repo: "https://127.0.0.1:1/llama.cpp".into(),
        reference: "b1".into(),
        commit: "1".repeat(40),
        submodules: false,
    };
    let planned =
        plan(&machine.alone(), &machine.pool(vec![EngineSource::Git(git), EngineSource::Sdist(sdist)]));
    let unknown = "fetch (its size is unknown until it is fetched; the disk check allows 290 MiB for it)";
    assert_eq!(planned.steps.iter().filter(|step| step.contains(unknown)).count(), 2, "{planned}");
    let asked = machine.calls();
    assert!(asked.iter().all(|call| call.contains("--version") || call.contains("find_spec")), "{asked:?}");
}

/// EPROV-004
#[test]
fn a_plan_asks_for_no_compiler_where_what_somebody_else_built_comes_first() {
    let machine = with_tools();
    std::fs::remove_file(machine.bin().join("c++")).unwrap();
    let compiled = machine.archive("a.tar.gz");
    let EngineSource::Archive(mut built) = machine.archive("b.tar.gz") else { unreachable!() };
    built.binary = Some("bin/llama-server".into());
    let stopped = |sources| stops(&plan(&machine.alone(), &machine.pool(sources)));
    assert_eq!(stopped(vec![EngineSource::Archive(built.clone()), compiled.clone()]), "");
    assert!(stopped(vec![compiled, EngineSource::Archive(built)]).starts_with("3: MISSING C++ compiler"));
}

/// EPROV-004
#[test]
fn a_plan_uses_what_is_built_already_as_a_run_does_although_an_earlier_source_could_be_fetched() {
    let machine = with_tools();
    let built = machine.archive("a.tar.gz");
    machine.ensure(vec![built.clone()]).unwrap();
    let planned = plan(&machine.provisioner(), &machine.pool(vec![machine.archive("b.tar.gz"), built]));
    let steps = planned.steps.join("\n");
    assert!(steps.contains("a.tar.gz: built before, use ") && !steps.contains("b.tar.gz"), "{steps}");
}

/// EPROV-004, EPROV-034
#[test]
fn a_plan_ends_as_the_run_would_with_everything_that_stops_it_in_its_last_lines() {
    let machine = with_tools();
    let config = machine.path("c.yaml");
    let engine = machine.path("engine");
    machine.executable(&engine, crate::machine::ENGINE);
    let pool = |id: &str, model: &str, flags: &str, binary: &str| {
        let model = machine.path(model);
        let model = model.display();
        format!(
            "  - {{ id: {id}, model: 'file:{model}', flags: [{flags}], provisioning: {{ gpu: off, sources: [ path: {{ \
             binary: '{binary}' }} ] }} }}\n"
        )
    };
    let good = pool("good", "model.gguf", "", engine.to_str().unwrap());
    let run = |pools: &[&str], args: &[&str]| {
        std::fs::write(&config, format!("pools:\n{}", pools.concat())).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_engine-provisioner"))
            .arg("--config")
            .arg(&config)
            .args(args)
            .env_clear()
            .env("PATH", "/nonexistent")
            .env("HOME", machine.dir.path())
            .env("LLAMA_ORCH_CACHE", machine.cache())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "a plan is said on stdout");
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = run(&[&good], &["plan"]);
    assert_eq!((code, text.lines().last()), (0, Some("nothing that shows from here would stop a run")));
    let model = pool("model", "nowhere.gguf", "", engine.to_str().unwrap());
    let flag = pool("flag", "model.gguf", "'--bogus'", engine.to_str().unwrap());
    let binary = pool("binary", "model.gguf", "", "/nowhere/llama-server");
    // Of each kind, with its own code; the first that a run comes to decides.
    for (pools, code) in
        [(vec![&good, &model, &binary], 6), (vec![&flag, &model], 2), (vec![&binary, &flag, &model], 4)]
    {
        let texts: Vec<&str> = pools.iter().map(|pool| pool.as_str()).collect();
        let (planned, text) = run(&texts, &["plan"]);
        assert_eq!(planned, code, "{text}");
        let (_, last) =
            text.split_once(&format!("a run would stop with exit code {code}, because\n")).unwrap();
        for (pool, problem) in [
            (&model, "  - pool model: the model cannot be staged: the model file "),
            (&flag, "  - pool flag: flags: --bogus "),
            (
                &binary,
                "  - pool binary: no source of the engine worked:\n      - path /nowhere/llama-server: cannot",
            ),
        ] {
            assert_eq!(last.contains(problem), pools.contains(&pool), "{problem}\n{last}");
        }
        assert_eq!(
            text.matches("pool good\n").count(),
            usize::from(pools.contains(&&good)),
            "all are planned"
        );
        // For programs the same as data, a line for each pool.
        let (planned, json) = run(&texts, &["plan", "--json"]);
        assert_eq!(planned, code);
        let plans: Vec<serde_json::Value> =
            json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(plans.len(), pools.len());
        let first = plans.iter().find_map(|plan| plan["stopped_by"].get(0)).unwrap();
        assert_eq!(first["exit_code"], code);
        assert!(first["problem"].is_string(), "{first}");
    }
    assert!(!machine.cache().exists(), "planning writes nothing");
}

/// EPROV-004, EPROV-034
#[test]
fn a_plan_says_that_nothing_can_be_written_where_the_cache_is_to_be() {
    let machine = with_tools();
    let mut pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    machine.executable(&machine.cache(), "a file of that name");
    let stopped = |pool: &PoolConfig| stops(&plan(&machine.alone(), pool));
    let engine = stopped(&pool);
    let expected = format!("4: cannot write in {}; check space and permissions", machine.cache().display());
    assert!(engine.contains(&expected) && !engine.contains("6: "), "{engine}");
    pool.model = "builtin:haiku".into();
    let both = stopped(&pool);
    assert!(
        both.starts_with("6: ") && both.contains("cannot write the model") && both.contains("4: "),
        "{both}"
    );
    // As the run itself, which stops at the first.
    let error = machine.alone().ensure_pool(&pool, &Log::default(), &Cancel::new()).unwrap_err();
    assert_eq!(error.exit_code(), 6);
}

/// EPROV-004, EPROV-033
#[test]
fn a_plan_knows_that_an_engine_of_a_later_version_is_not_built_over() {
    let machine = with_tools();
    let source = machine.archive("a.tar.gz");
    let engine = machine.ensure(vec![source.clone()]).unwrap();
    let path = machine.cache().join("engines").join(&engine.engine_digest).join("manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    manifest["schema_version"] = 999.into();
    std::fs::write(&path, manifest.to_string()).unwrap();
    let stopped = stops(&plan(&machine.provisioner(), &machine.pool(vec![source])));
    assert!(
        stopped.contains("4: ") && stopped.contains("a later version of this program wrote it"),
        "{stopped}"
    );
}

/// EPROV-027
#[test]
fn without_a_ninja_to_find_or_to_fetch_make_builds() {
    let machine = Machine::new();
    std::fs::remove_file(machine.bin().join("ninja")).unwrap();
    let pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    let ensure = || {
        let log = Log::default();
        let engine = machine.alone().ensure_pool(&pool, &log, &Cancel::new());
        (engine, log.0.into_inner().unwrap())
    };
    let (failed, _) = ensure();
    assert_eq!(failed.unwrap_err().exit_code(), 4, "there is neither");
    machine.tool("make", "echo GNU Make 4.4");
    machine.calls();
    let (built, steps) = ensure();
    let said = steps.iter().any(|step| step.description.ends_with("building with make"));
    assert!(said, "it says so: {steps:?}");
    let calls = machine.calls();
    let configure = calls.iter().find(|call| call.starts_with("cmake -S")).unwrap();
    let program = format!("-DCMAKE_MAKE_PROGRAM={} ", machine.bin().join("make").display());
    assert!(configure.contains("-G Unix Makefiles ") && configure.contains(&program), "{configure}");
    // What builds it is no part of what it is: a Ninja that comes later changes nothing.
    machine.tool("ninja", "echo 1.12.1");
    assert_eq!(ensure().0.unwrap(), built.unwrap());
}

/// EPROV-015, EPROV-027
#[test]
fn offline_make_builds_at_once() {
    let machine = Machine::new();
    std::fs::remove_file(machine.bin().join("ninja")).unwrap();
    machine.tool("make", "echo GNU Make 4.4");
    let pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    let provisioner = machine.alone().offline(true).with_cards(Box::new(no_card));
    provisioner.ensure_pool(&pool, &Log::default(), &Cancel::new()).unwrap();
    assert!(!machine.calls().iter().any(|call| call.contains(" venv ")), "nothing is installed");
}
