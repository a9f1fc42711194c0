//! A CUDA build driven through a toolkit of scripts: what is run, with which arguments and environment.

use std::path::Path;
use std::time::Duration;

use provisioners_engine_provisioner::{Cancel, EngineProvisioner, EnsureError, import_bundle};
use wire::config::{EngineSource, GpuPolicy, PathSource, PoolConfig, ToolkitPolicy};
use wire::{PreparedEngine, ReplicaId};

use crate::machine::{ENGINE, Log, Machine, manifest};

const CARD: &str = "echo '0, GPU-aa, NVIDIA GeForce RTX 3090, 8.6, 24576, 24000, 580.95, 0'";

/// pip as far as it is asked here: it unpacks wheels that have what the real ones have.
const PIP: &str = r#"
case "$*" in *find_spec*) echo pip venv ensurepip; exit ;; esac
env > "$d/pip-env"
while [ $# -gt 1 ]; do [ "$1" = --target ] && t=$2; shift; done
cp "$1" "$d/pip-requirements"
r="$t/nvidia/cu13"; mkdir -p "$r/bin" "$r/nvvm/bin" "$r/lib"
echo "exit 1" > "$r/bin/nvcc"; echo > "$r/nvvm/bin/cicc"
for l in cudart cublas cublasLt; do echo "$l" > "$r/lib/lib$l.so.13"; done
for w in nvidia_cuda_runtime-13.0.96 nvidia_cublas-13.1.0.3; do
    mkdir -p "$t/$w.dist-info/licenses"; echo "terms of $w" > "$t/$w.dist-info/licenses/License.txt"
done"#;

fn with_card() -> Machine {
    let machine = Machine::new();
    machine.tool("nvidia-smi", CARD);
    machine
}

fn ensure(machine: &Machine, pool: &PoolConfig) -> Result<PreparedEngine, EnsureError> {
    let provisioner = machine.provisioner().with_cards(Box::new(machine.cards()));
    provisioner.ensure(pool, &ReplicaId::nth(0), &Log::default(), &Cancel::new())
}

fn pool(machine: &Machine, toolkit: ToolkitPolicy) -> PoolConfig {
    let mut pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    pool.provisioning.toolkit = toolkit;
    pool
}

fn own_files(engine: &PreparedEngine) -> Vec<String> {
    let dir = engine.binary_path.parent().unwrap();
    let names = |dir: &Path| std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.file_name());
    let all = names(dir).chain(names(dir.parent().unwrap()));
    let mut all: Vec<_> = all.map(|name| name.into_string().unwrap()).collect();
    all.sort();
    all
}

/// What the engine of a managed toolkit has beside it.
const WHOLE: [&str; 9] = [
    "LICENSE.nvidia-cublas.txt",
    "LICENSE.nvidia-cuda-runtime.txt",
    "bin",
    "libcublas.so.13",
    "libcublasLt.so.13",
    "libcudart.so.13",
    "llama-server",
    "manifest.json",
    "sbom.cdx.json",
];

/// EPROV-035
#[test]
fn an_engine_of_the_managed_toolkit_has_its_libraries_and_their_licences_beside_it_and_needs_no_toolkit() {
    let machine = with_card();
    machine.tool("python3", PIP);
    let pool = pool(&machine, ToolkitPolicy::Managed);
    let engine = ensure(&machine, &pool).unwrap();
    let calls = machine.calls();
    for definition in [
        "-DCMAKE_INSTALL_RPATH=$ORIGIN ",
        "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON ",
        "-DCMAKE_INSTALL_RPATH_USE_LINK_PATH=ON ",
    ] {
        assert!(configure(&calls).contains(definition), "{definition}");
    }
    let files: Vec<_> = own_files(&engine).into_iter().filter(|name| name != "last-used").collect();
    assert_eq!(files, WHOLE);
    let manifest = manifest(&engine);
    let libraries = manifest["libraries"].as_object().unwrap();
    assert_eq!(
        libraries.keys().collect::<Vec<_>>(),
        ["libcublas.so.13", "libcublasLt.so.13", "libcudart.so.13"]
    );
    let sbom = std::fs::read_to_string(engine.binary_path.parent().unwrap().with_file_name("sbom.cdx.json"));
    let sbom = sbom.unwrap();
    assert!(
        sbom.contains("LicenseRef-NVIDIA-Proprietary") && sbom.contains("library/libcublasLt.so.13"),
        "{sbom}"
    );
    // It is a copy: what happens to the toolkit is not its business.
    let toolkit = machine.cache().join("tools/cuda-13.0.88");
    std::fs::write(toolkit.join("nvidia/cu13/lib/libcublas.so.13"), "damaged").unwrap();
    std::fs::remove_dir_all(&toolkit).unwrap();
    machine.calls();
    assert_eq!(ensure(&machine, &pool).unwrap(), engine);
    assert!(!machine.calls().iter().any(|call| call.contains("pip install")), "it needs no toolkit");
    // It is checked as the binary is.
    let library = engine.binary_path.with_file_name("libcudart.so.13");
    std::fs::write(&library, "another").unwrap();
    assert_eq!(ensure(&machine, &pool).unwrap(), engine);
    assert_eq!(std::fs::read_to_string(&library).unwrap(), "cudart\n", "it was built again");
}

/// EPROV-025, EPROV-035
#[test]
fn an_engine_of_the_managed_toolkit_serves_a_machine_with_a_card_and_nothing_else() {
    let from = with_card();
    from.tool("python3", PIP);
    let pool = PoolConfig { model: "builtin:haiku".into(), ..pool(&from, ToolkitPolicy::Managed) };
    let (file, cancel) = (from.path("b.tar"), Cancel::new());
    let export = |machine: &Machine| {
        let provisioner = machine.provisioner().with_cards(Box::new(machine.cards()));
        provisioner.export_bundle(&pool, &file, &Log::default(), &cancel)
    };
    let bundled = export(&from).unwrap();
    let notice = bundled.notice.unwrap();
    assert!(notice.contains("NVIDIA's licence") && notice.contains("-DGGML_NATIVE=OFF"), "{notice}");
    // Its card needs the same code; it has no compiler, no Python and no network.
    let to = with_card();
    for tool in ["cc", "c++", "cmake", "ninja", "python3"] {
        std::fs::remove_file(to.bin().join(tool)).unwrap();
    }
    let offline = || {
        let provisioner = to.alone().with_cards(Box::new(to.cards())).offline(true);
        provisioner.ensure_pool(&pool, &Log::default(), &cancel).map(|mut all| all.remove(0))
    };
    offline().unwrap_err();
    import_bundle(&to.cache(), &file, Some(&bundled.sha256), &mut |_, _| (), &cancel).unwrap();
    let engine = offline().unwrap();
    assert_eq!(engine.device_mask.as_deref(), Some("GPU-aa"));
    let files: Vec<_> = own_files(&engine).into_iter().filter(|name| name != "last-used").collect();
    assert_eq!(files, WHOLE);
    let beside = |name: &str| std::fs::read_to_string(engine.binary_path.with_file_name(name)).unwrap();
    assert_eq!(
        (beside("libcublasLt.so.13"), beside("libcudart.so.13")),
        ("cublasLt\n".into(), "cudart\n".into())
    );
    let licence = engine.binary_path.parent().unwrap().with_file_name("LICENSE.nvidia-cublas.txt");
    assert_eq!(std::fs::read_to_string(&licence).unwrap(), "terms of nvidia_cublas-13.1.0.3\n");
    // It can go on from there, and not without the licence.
    let again = || {
        let provisioner = to.alone().with_cards(Box::new(to.cards())).offline(true);
        provisioner.export_bundle(&pool, &to.path("again.tar"), &Log::default(), &cancel)
    };
    again().unwrap();
    std::fs::remove_file(&licence).unwrap();
    std::fs::remove_file(licence.with_file_name("LICENSE.nvidia-cuda-runtime.txt")).unwrap();
    let refused = again().unwrap_err();
    assert!(refused.to_string().contains("with their licence only"), "{refused}");
    assert_eq!(refused.exit_code(), 2);
    // Another library than the one that was packed is not used, and nothing here could build another.
    std::fs::write(engine.binary_path.with_file_name("libcublas.so.13"), "another").unwrap();
    offline().unwrap_err();
}

/// EPROV-025, EPROV-035
#[test]
fn an_engine_that_does_not_look_beside_its_binary_is_not_packed() {
    let machine = with_card();
    machine.tool("python3", PIP);
    let mut pool = PoolConfig { model: "builtin:haiku".into(), ..pool(&machine, ToolkitPolicy::Managed) };
    pool.provisioning.cmake_flags = vec!["-DCMAKE_INSTALL_RPATH=/opt/cuda".into()];
    let provisioner = machine.provisioner().with_cards(Box::new(machine.cards()));
    let refused = provisioner.export_bundle(&pool, &machine.path("b"), &Log::default(), &Cancel::new());
    let refused = refused.unwrap_err();
    assert_eq!(refused.exit_code(), 2);
    assert!(refused.to_string().contains("CMAKE_INSTALL_RPATH") && !machine.path("b").exists(), "{refused}");
}

fn configure(calls: &[String]) -> &str {
    calls.iter().find(|call| call.contains("-DGGML_CUDA=ON")).unwrap()
}

/// EPROV-017
#[test]
fn the_machines_toolkit_builds_for_the_cards_of_the_pool() {
    let machine = with_card();
    machine.tool("nvcc", "echo 'Cuda compilation tools, release 12.4, V12.4.131'");
    let engine = ensure(&machine, &pool(&machine, ToolkitPolicy::Auto)).unwrap();
    assert_eq!(engine.device_mask.as_deref(), Some("GPU-aa"));
    assert!(engine.flags.windows(2).any(|pair| pair == ["--n-gpu-layers", "999"]), "{:?}", engine.flags);
    let calls = machine.calls();
    let configure = configure(&calls);
    let nvcc = format!("-DCMAKE_CUDA_COMPILER={} ", machine.bin().join("nvcc").display());
    assert!(configure.contains("-DCMAKE_CUDA_ARCHITECTURES=86") && configure.contains(&nvcc), "{configure}");
    assert!(!configure.contains("HOST_COMPILER") && !configure.contains("LAUNCHER"), "{configure}");
    assert_eq!(manifest(&engine)["survey"]["cuda_devices"], serde_json::json!(["CUDA0: Fake (GPU-aa)"]));
}

/// EPROV-017
#[test]
fn without_a_toolkit_the_pinned_wheels_are_installed_once_and_build() {
    let machine = with_card();
    machine.tool("python3", PIP);
    let pool = pool(&machine, ToolkitPolicy::Managed);
    let engine = ensure(&machine, &pool).unwrap();
    let root = machine.cache().join("tools/cuda-13.0.88");
    let calls = machine.calls();
    let pip = calls.iter().find(|call| call.contains("pip install")).unwrap();
    let expected = format!(
        "-m pip install --no-input --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
         --no-cache-dir --no-compile --target {0} -r {0}/requirements.txt",
        root.display()
    );
    assert!(pip.ends_with(&expected), "{pip}");
    let wanted = std::fs::read_to_string(machine.bin().join("pip-requirements")).unwrap();
    assert!(wanted.contains("nvidia-cuda-nvcc==13.0.88 --hash=sha256:"), "{wanted}");
    let environment = std::fs::read_to_string(machine.bin().join("pip-env")).unwrap();
    let names: Vec<_> =
        environment.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    let shell = ["PWD", "OLDPWD", "SHLVL", "_"];
    assert!(names.iter().all(|name| ["PATH", "HOME"].contains(name) || shell.contains(name)), "{names:?}");
    let nvcc = root.join("nvidia/cu13/bin/nvcc");
    assert!(configure(&calls).contains(&format!("-DCMAKE_CUDA_COMPILER={} ", nvcc.display())));
    // What a linker needs and the wheels do not have.
    assert!(root.join("nvidia/cu13/lib64/libcublas.so").exists());
    assert!(calls.iter().any(|call| call.starts_with("cc -shared") && call.contains("soname,libcuda.so.1")));
    assert_eq!(ensure(&machine, &pool).unwrap(), engine);
    let again = machine.calls();
    assert!(
        again.iter().all(|call| call.ends_with("--version") || call.starts_with("nvidia-smi")),
        "{again:?}"
    );
}

/// EPROV-018
#[test]
fn nvcc_gets_a_compiler_it_accepts_or_the_build_is_refused() {
    let machine = with_card();
    machine.tool("nvcc", "echo 'Cuda compilation tools, release 12.4, V12.4.131'");
    machine.tool("c++", "echo 'c++ (GCC) 99.1.1 20260101'");
    // Only this machine's own compilers.
    let empty = |machine: &Machine| machine.alone().with_cards(Box::new(machine.cards()));
    let pool = pool(&machine, ToolkitPolicy::System);
    let error = empty(&machine).ensure_pool(&pool, &Log::default(), &Cancel::new()).unwrap_err();
    assert!(error.to_string().contains("nvcc accepts (GCC 13 or older)"), "{error}");
    assert_eq!(error.exit_code(), 3);
    machine.tool("g++-12", "echo 'g++-12 (GCC) 12.1.0'");
    machine.calls();
    empty(&machine).ensure_pool(&pool, &Log::default(), &Cancel::new()).unwrap();
    let wanted = format!("-DCMAKE_CUDA_HOST_COMPILER={}", machine.bin().join("g++-12").display());
    assert!(configure(&machine.calls()).contains(&wanted));
}

/// EPROV-005
#[test]
fn an_engine_that_came_out_without_cuda_is_not_used_whatever_it_was_told() {
    let machine = with_card();
    machine.tool("nvcc", "echo 'Cuda compilation tools, release 12.4, V12.4.131'");
    let blind = ENGINE.replace("echo \"  CUDA0", "true \"  CUDA0");
    machine.executable(&machine.bin().join("engine"), &blind);
    let mut pool = pool(&machine, ToolkitPolicy::Auto);
    pool.provisioning.gpu = GpuPolicy::Required;
    let error = ensure(&machine, &pool).unwrap_err();
    assert!(error.to_string().contains("came out without CUDA"), "{error}");
    assert_eq!(error.exit_code(), 5);
    // Nor is an existing binary, even one that served a CPU pool before.
    machine.executable(&machine.path("own"), &blind);
    pool.provisioning.sources = vec![EngineSource::Path(PathSource { binary: machine.path("own") })];
    pool.provisioning.gpu = GpuPolicy::Off;
    ensure(&machine, &pool).unwrap();
    pool.provisioning.gpu = GpuPolicy::Required;
    assert!(ensure(&machine, &pool).unwrap_err().to_string().contains("came out without CUDA"));
}

/// EPROV-019
#[test]
fn ccache_is_put_before_the_compilers_where_it_is_there_and_makes_no_other_engine() {
    let machine = with_card();
    machine.tool("nvcc", "echo 'Cuda compilation tools, release 12.4, V12.4.131'");
    let without = ensure(&machine, &pool(&machine, ToolkitPolicy::Auto)).unwrap();
    std::fs::remove_dir_all(machine.cache().join("engines")).unwrap();
    machine.calls();
    machine.tool("ccache", "");
    let with = ensure(&machine, &pool(&machine, ToolkitPolicy::Auto)).unwrap();
    assert_eq!(with.engine_digest, without.engine_digest);
    let calls = machine.calls();
    for language in ["C", "CXX", "CUDA"] {
        let launcher =
            format!("-DCMAKE_{language}_COMPILER_LAUNCHER={}", machine.bin().join("ccache").display());
        assert!(configure(&calls).contains(&launcher), "{language}");
    }
}

/// EPROV-017
#[test]
fn without_any_card_one_architecture_is_compiled_and_nothing_is_stored() {
    let machine = Machine::new();
    machine.tool("python3", PIP);
    let pool = pool(&machine, ToolkitPolicy::Auto);
    let compile = || machine.provisioner().compile_for_cuda(&pool, "90", &Log::default(), &Cancel::new());
    let binary = compile().unwrap();
    assert!(binary.ends_with("build/bin/llama-server") && binary.exists());
    assert!(configure(&machine.calls()).contains("-DCMAKE_CUDA_ARCHITECTURES=90"));
    assert_eq!(provisioners_engine_provisioner::EngineStore::new(&machine.cache()).list(), vec![]);
    machine.flag("broken");
    assert_eq!(compile().unwrap_err().exit_code(), 5);
}

/// EPROV-017, EPROV-018
#[test]
fn a_driver_that_is_too_old_for_the_managed_toolkit_is_found_before_anything_is_fetched() {
    let machine = Machine::new();
    machine.tool("nvidia-smi", &CARD.replace("580.95", "535.10"));
    machine.tool("pip", PIP);
    let error = ensure(&machine, &pool(&machine, ToolkitPolicy::Auto)).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    let EnsureError::Gpu { problem, remedy, .. } = &error else { panic!("{error}") };
    assert!(problem.contains("NVIDIA GeForce RTX 3090") && problem.contains("no CUDA compiler"), "{problem}");
    assert!(problem.ends_with("needs the driver 580 or newer: 535.10 is loaded"), "{problem}");
    assert!(remedy.contains("driver 580 or newer"), "{remedy}");
    // The same where it is named outright, and in a plan.
    let pool = pool(&machine, ToolkitPolicy::Managed);
    let error = ensure(&machine, &pool).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    let plan =
        machine.provisioner().with_cards(Box::new(machine.cards())).plan(&pool, &Cancel::new()).unwrap();
    assert_eq!(plan.stopped_by.len(), 1, "{plan:?}");
    for said in [error.to_string(), plan.stopped_by[0].problem.clone()] {
        assert!(
            said.contains("the NVIDIA driver 580 or newer (CUDA 13.0 needs it; 535.10 is loaded)"),
            "{said}"
        );
        assert!(said.contains("provisioning.toolkit: system") && said.contains("gpu: off"), "{said}");
    }
    assert!(!machine.cache().join("tools").exists() && !machine.cache().join("sources").exists());
    // What was built elsewhere needs no toolkit.
    machine.executable(&machine.path("own"), ENGINE);
    let sources = vec![EngineSource::Path(PathSource { binary: machine.path("own") })];
    let mut own = machine.pool(sources);
    own.provisioning.toolkit = ToolkitPolicy::Managed;
    ensure(&machine, &own).unwrap();
}

/// POOLD-DEVICE-001, EPROV-004
#[test]
fn a_plan_says_what_nvidia_smi_said_and_it_hangs_once_for_all_pools() {
    let machine = Machine::new();
    machine.tool("nvidia-smi", "echo 'the driver is not there' >&2; exit 9");
    let pool = machine.pool(vec![machine.archive("a.tar.gz")]);
    let plan = |provisioner: &EngineProvisioner| provisioner.plan(&pool, &Cancel::new()).unwrap();
    let looking = || machine.provisioner().with_cards(Box::new(machine.cards()));
    let failed = plan(&looking()).to_string();
    // Where a driver is loaded after all, as on a machine that has a card, it is refused.
    let driver = Path::new("/proc/driver/nvidia/version").exists();
    let said = "ended with exit status: 9 and said: the driver is not there";
    match driver {
        false => assert!(failed.contains("build for the CPU") && failed.contains(said), "{failed}"),
        true => assert!(plan(&looking()).stopped_by[0].problem.contains(said)),
    }
    machine.tool("nvidia-smi", "sleep 600");
    machine.calls();
    let cards = machine.cards().with_patience(Duration::from_secs(2));
    let provisioner = machine.provisioner().with_cards(Box::new(cards));
    for _pool in 0..3 {
        let stopped = plan(&provisioner).stopped_by;
        let problem = &stopped[0].problem;
        assert!(
            problem.contains("nvidia-smi did not answer in 2 s") && problem.contains("repair it"),
            "{problem}"
        );
        assert_eq!(stopped[0].exit_code, 3);
    }
    let asked = machine.calls().iter().filter(|call| call.starts_with("nvidia-smi")).count();
    assert!(asked <= 1, "{asked}");
}
