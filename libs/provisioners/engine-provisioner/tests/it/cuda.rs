//! A CUDA build driven through a toolkit of scripts: what is run, with which arguments and environment.

use provisioners_engine_provisioner::{Cancel, EnsureError};
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
echo "exit 1" > "$r/bin/nvcc"; echo > "$r/nvvm/bin/cicc"; echo > "$r/lib/libcublas.so.13""#;

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
