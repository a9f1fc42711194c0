//! A machine in a directory, with a toolchain of scripts.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use config_loader::Env;
use provisioners_engine_provisioner::{Cancel, EngineProvisioner, EnsureError, Inventory, Observer};
use sha2::{Digest as _, Sha256};
use wire::config::{ArchiveSource, EngineSource, PoolConfig};
use wire::{PreparationStep, PreparedEngine, ReplicaId};

pub(crate) fn no_card() -> Inventory {
    Inventory::NoCard
}

#[derive(Default)]
pub(crate) struct Log(pub(crate) Mutex<Vec<PreparationStep>>);
impl Observer for Log {
    fn step(&self, step: &PreparationStep) {
        self.0.lock().unwrap().push(step.clone());
    }
}

/// A machine in a directory: `bin` is first on its path, `calls` lists what was run there.
pub(crate) struct Machine {
    pub(crate) dir: tempfile::TempDir,
}

const RECORD: &str = "#!/bin/sh\nd=$(dirname \"$0\")\necho \"$(basename \"$0\") $*\" >> \"$d/calls\"\n";

const CMAKE: &str = r#"
case "$1" in
--version) echo "cmake version 3.30.1" ;;
--build)
    i=0; while [ -e "$d/hold" ] && [ $i -lt 2000 ]; do i=$((i+1)); echo "[1/2] waiting"; sleep 0.01; done
    if [ -e "$d/broken" ]; then
        i=0; while [ $i -lt 100 ]; do echo "error line $i"; i=$((i+1)); done; exit 1
    fi
    echo "[1/2] Building"; echo "[2/2] Linking"
    mkdir -p "$2/bin"; cp "$d/engine" "$2/bin/llama-server" ;;
esac"#;

/// What the fake build makes: it knows its texts and, asked for anything else, says so and fails.
pub(crate) const ENGINE: &str = r#"#!/bin/sh
case "$*" in
--version) echo "version: 7 (fake)" ;;
--help)
    echo "-m,    --model FNAME      path"; echo "-c,    --ctx-size N       size"
    for flag in --host --port --parallel --no-cont-batching --no-webui --metrics --offline --fit \
        --n-gpu-layers --threads --seed; do echo "$flag X       text"; done ;;
--list-devices) echo "Available devices:"; echo "  CUDA0: Fake ($CUDA_VISIBLE_DEVICES)" ;;
*) echo "asked to run: $*"; exit 64 ;;
esac
"#;

const PYTHON: &str = r#"
case "$*" in
*find_spec*) echo 3.11.2 pip venv ensurepip ;;
*"pip download"*)
    [ -e "$d/no-index" ] && { echo "ERROR: No matching distribution found"; exit 1; }
    [ -n "$PYTHONPATH" ] || exit 9
    while [ $# -gt 1 ]; do shift; done
    mkdir -p "$1"; cp "$d/sdist.tar.gz" "$1/thing-1.0.tar.gz" ;;
esac"#;

impl Machine {
    pub(crate) fn new() -> Self {
        let machine = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(machine.bin()).unwrap();
        machine.tool("cc", "echo fakecc 1.0");
        machine.tool("c++", "echo fakec++ 1.0");
        machine.tool("ninja", "");
        machine.tool("cmake", CMAKE);
        machine.tool("python3", PYTHON);
        machine.executable(&machine.bin().join("engine"), ENGINE);
        let shape = gguf_random::Shape { layers: 1, width: 16, heads: 2, ..Default::default() };
        shape.write(&machine.path("model.gguf")).unwrap();
        machine
    }

    /// Whatever its `nvidia-smi` lists, however slow the machine that runs the tests is.
    pub(crate) fn cards(&self) -> devices::System {
        let path = std::env::join_paths([self.bin(), "/usr/bin".into(), "/bin".into()]).unwrap();
        devices::System::new(Some(&path), devices::Way::NvidiaSmi).with_patience(Duration::from_secs(500))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    pub(crate) fn bin(&self) -> PathBuf {
        self.path("bin")
    }
    pub(crate) fn cache(&self) -> PathBuf {
        self.path("cache")
    }

    pub(crate) fn tool(&self, name: &str, body: &str) {
        self.executable(&self.bin().join(name), &format!("{RECORD}{body}\n"));
    }

    pub(crate) fn executable(&self, path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn flag(&self, name: &str) {
        std::fs::write(self.bin().join(name), "").unwrap();
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.bin().join("calls")).unwrap_or_default();
        let _ = std::fs::remove_file(self.bin().join("calls"));
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) fn env(&self, path: &str) -> Env {
        Env::new(self.dir.path(), [("PATH", path), ("HOME", self.dir.path().to_str().unwrap())])
    }

    pub(crate) fn provisioner(&self) -> EngineProvisioner {
        let path = format!("{}:/usr/bin:/bin", self.bin().display());
        EngineProvisioner::new(self.cache(), &self.env(&path))
            .with_cards(Box::new(no_card))
            .with_free_disk(1 << 40)
    }

    /// Knows no program but those of this machine, whatever the one that runs the tests has.
    pub(crate) fn alone(&self) -> EngineProvisioner {
        for program in ["dirname", "basename", "mkdir", "cp", "sleep", "cat", "env", "rm"] {
            let link = self.bin().join(program);
            if !link.exists() {
                std::os::unix::fs::symlink(format!("/usr/bin/{program}"), link).unwrap();
            }
        }
        EngineProvisioner::new(self.cache(), &self.env(self.bin().to_str().unwrap()))
            .with_cards(Box::new(no_card))
            .with_free_disk(40 << 30)
    }

    pub(crate) fn pool(&self, sources: Vec<EngineSource>) -> PoolConfig {
        let mut pool = PoolConfig::haiku();
        pool.model = format!("file:{}", self.path("model.gguf").display());
        pool.provisioning.sources = sources;
        pool
    }

    pub(crate) fn ensure(&self, sources: Vec<EngineSource>) -> Result<PreparedEngine, EnsureError> {
        self.provisioner().ensure(&self.pool(sources), &ReplicaId::nth(0), &Log::default(), &Cancel::new())
    }

    /// A source archive with `thing-1.0/vendor/engine/CMakeLists.txt`.
    pub(crate) fn archive(&self, name: &str) -> EngineSource {
        let path = self.path(name);
        let sha256 = write_archive(&path);
        EngineSource::Archive(ArchiveSource {
            url: format!("file:{}", path.display()),
            sha256,
            subdir: PathBuf::from("vendor/engine"),
            binary: None,
        })
    }

    pub(crate) fn missing(&self) -> EngineSource {
        EngineSource::Archive(ArchiveSource {
            url: format!("file:{}", self.path("nowhere.tar.gz").display()),
            sha256: "1".repeat(64),
            subdir: PathBuf::new(),
            binary: None,
        })
    }
}

pub(crate) fn write_archive(path: &Path) -> String {
    let mut builder =
        tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    let name = path.file_name().unwrap().to_str().unwrap();
    for (file, data) in [("CMakeLists.txt", &b"hi!\n"[..]), (name, b"abc\n")] {
        builder.append_data(&mut header.clone(), format!("thing-1.0/vendor/engine/{file}"), data).unwrap();
    }
    let bytes = builder.into_inner().unwrap().finish().unwrap();
    std::fs::write(path, &bytes).unwrap();
    Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The manifest of a built engine.
pub(crate) fn manifest(engine: &PreparedEngine) -> serde_json::Value {
    let dir = engine.binary_path.parent().unwrap().parent().unwrap();
    serde_json::from_slice(&std::fs::read(dir.join("manifest.json")).unwrap()).unwrap()
}
