//! Every example configuration loads and plans, without a network and without writing anything.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step of a test should panic")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use config_loader::Env;
use provisioners_engine_provisioner::{Cancel, EngineProvisioner, Inventory, Plan};
use wire::Device;
use wire::config::Config;

const GIB: u64 = 1 << 30;

fn rig() -> Inventory {
    let card = |index: u32, name: &str, gib: u64| Device {
        index,
        uuid: format!("GPU-{index}"),
        name: name.to_owned(),
        vram_total_bytes: gib * GIB,
        vram_free_bytes: gib * GIB,
        compute_capability: "8.6".to_owned(),
        driver: None,
        utilisation_percent: None,
        users: Vec::new(),
    };
    Inventory::Cards(vec![card(0, "NVIDIA GeForce RTX 3090", 24), card(1, "NVIDIA GeForce RTX 3060", 12)])
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../requirements").join(name)
}

/// A machine with compilers, nvcc, CMake and Ninja that only know their versions.
fn machine(dir: &Path) -> Env {
    for tool in ["cc", "c++", "nvcc", "cmake", "ninja", "git", "python3"] {
        let path = dir.join(tool);
        std::fs::write(&path, "#!/bin/sh\necho tool version 9.0\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    // What a program says of itself is remembered in the cache, what a script says is not: planning does neither.
    std::fs::copy("/bin/true", dir.join("cc")).unwrap();
    // Nobody listens on the port of nobody: a plan asks there and goes on.
    let home = dir.join("home");
    let hub = ("HF_ENDPOINT", "http://127.0.0.1:1");
    Env::new("/work/dir", [("PATH", dir.to_str().unwrap()), ("HOME", home.to_str().unwrap()), hub])
}

fn plans(name: &str) -> Vec<Plan> {
    let dir = tempfile::tempdir().unwrap();
    let env = machine(dir.path());
    let config = config_loader::load(Some(&file(name)), &env).unwrap_or_else(|e| panic!("{e}")).config;
    let provisioner = EngineProvisioner::new(&config.paths.cache, &env).with_cards(Box::new(rig));
    let plans: Vec<_> =
        config.pools.iter().map(|pool| provisioner.plan(pool, &Cancel::new()).unwrap()).collect();
    assert!(!config.paths.cache.exists(), "planning writes nothing");
    for plan in &plans {
        let steps = plan.steps.join("\n");
        assert!(steps.contains("llama-server --model MODEL --ctx-size"), "{name}: {plan}");
    }
    plans
}

#[test]
fn the_default_file_says_what_zero_config_does() {
    let env = Env::new("/work/dir", [("HOME", "/home/me")]);
    let written = config_loader::load(Some(&file("default.yaml")), &env).unwrap().config;
    assert_eq!(written, config_loader::load(None, &env).unwrap().config);
    let text = std::fs::read_to_string(file("default.yaml")).unwrap();
    for key in ["listen", "runtime", "pool_managerd", "full_policy", "on_exit", "sha256", "deterministic"] {
        assert!(text.contains(key), "it shows {key}");
    }
    assert_eq!(Config::default().pools.len(), 1);
}

#[test]
fn every_example_plans() {
    let mut names: Vec<_> = std::fs::read_dir(file("")).unwrap().flatten().map(|e| e.file_name()).collect();
    names.sort();
    let listed = [
        "50-engine-provisioner.yaml",
        "default.yaml",
        "haiku-qwen.yaml",
        "llamacpp-3090-source.yaml",
        "two-gpus.yaml",
    ];
    for name in listed {
        assert!(names.iter().any(|n| n == name), "{name} is there");
    }
    for name in names.iter().filter_map(|n| n.to_str()).filter(|n| n.ends_with(".yaml")) {
        plans(name);
    }
}

#[test]
fn the_3090_example_is_a_cuda_build_from_git_then_sdist() {
    let plan = plans("llamacpp-3090-source.yaml").remove(0).to_string();
    let git = plan.find("git https://github.com/ggml-org/llama.cpp").unwrap();
    let sdist = plan.find("sdist llama-cpp-python 0.3.36").unwrap();
    assert!(git < sdist && plan.contains("build for CUDA 86 on GPU-0"), "{plan}");
    assert!(plan.contains("--ctx-size 32768 --parallel 4") && plan.contains("--n-gpu-layers 999"), "{plan}");
}

#[test]
fn two_gpus_are_masked_one_by_one_and_together() {
    let text: Vec<_> = plans("two-gpus.yaml").iter().map(ToString::to_string).collect();
    for (plan, mask) in text.iter().zip(["on GPU-0 with", "on GPU-1 with", "on GPU-0,GPU-1 with"]) {
        assert!(plan.contains(mask), "{plan}");
    }
    assert!(text[2].contains("--tensor-split 24,12 --split-mode layer"), "{}", text[2]);
}
