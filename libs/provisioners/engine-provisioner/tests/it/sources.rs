//! Sources of strangers: built engines in archives, archives over https, repositories that mean harm.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use provisioners_engine_provisioner::{Cancel, EngineProvisioner, EngineStore};
use sha2::{Digest as _, Sha256};
use wire::config::{ArchiveSource, EngineSource, GitSource};

use crate::https::{Https, Proxy};
use crate::machine::{ENGINE, Log, Machine, manifest, no_card};

/// An archive as projects release them: binaries and libraries in one directory, links between them.
fn release(path: &Path, engine: &str) -> String {
    let gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut builder = tar::Builder::new(gz);
    for (name, mode, data) in
        [("llama-server", 0o755, engine), ("libggml.so.0", 0o755, "library"), ("README", 0o644, "text")]
    {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(mode);
        builder.append_data(&mut header, format!("rel/build/bin/{name}"), data.as_bytes()).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "rel/build/bin/libggml.so", "libggml.so.0").unwrap();
    let bytes = builder.into_inner().unwrap().finish().unwrap();
    std::fs::write(path, &bytes).unwrap();
    Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn prebuilt(url: String, sha256: String) -> Vec<EngineSource> {
    let (subdir, binary) = (PathBuf::from("build"), Some(PathBuf::from("bin/llama-server")));
    vec![EngineSource::Archive(ArchiveSource { url, sha256, subdir, binary })]
}

/// EPROV-022
#[test]
fn a_built_engine_is_used_with_its_libraries_on_a_machine_without_any_compiler() {
    let machine = Machine::new();
    let sha256 = release(&machine.path("r.tar.gz"), ENGINE);
    let pool = machine.pool(prebuilt(format!("file:{}", machine.path("r.tar.gz").display()), sha256));
    let bare = || {
        EngineProvisioner::new(machine.cache(), &machine.env("/nonexistent")).with_cards(Box::new(no_card))
    };
    let ensure = || bare().ensure_pool(&pool, &Log::default(), &Cancel::new()).map(|mut all| all.remove(0));
    // The script that stands for the engine needs a shell of the machine, nothing else does.
    let engine = ensure().unwrap();
    assert_eq!(std::fs::read_to_string(&engine.binary_path).unwrap(), ENGINE);
    let bin = engine.binary_path.parent().unwrap();
    let mut names: Vec<_> =
        std::fs::read_dir(bin).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["libggml.so", "libggml.so.0", "llama-server"]);
    assert!(bin.join("libggml.so").symlink_metadata().unwrap().is_file(), "no link leads out of the store");
    assert_eq!(manifest(&engine)["libraries"].as_object().unwrap().len(), 2);
    assert_eq!(machine.calls(), Vec::<String>::new());
    assert_eq!(ensure().unwrap(), engine);
    std::fs::write(bin.join("libggml.so.0"), "other").unwrap();
    let verdicts = EngineStore::new(&machine.cache()).verify(&Cancel::new()).unwrap();
    assert!(verdicts[0].problem.as_ref().unwrap().contains("libggml.so.0"), "{verdicts:?}");
    assert_eq!(ensure().unwrap(), engine);
    assert_eq!(std::fs::read_to_string(bin.join("libggml.so.0")).unwrap(), "library", "unpacked again");
}

/// Runs the program against `https`, whose certificate it is told to trust.
fn provision(machine: &Machine, https: &Https, sha256: &str, path: &str) -> Output {
    program(machine, https, sha256, path).output().unwrap()
}

fn program(machine: &Machine, https: &Https, sha256: &str, path: &str) -> Command {
    let config = machine.path("c.yaml");
    let text = format!(
        "pools:\n  - id: p\n    model: builtin:haiku\n    provisioning:\n      gpu: off\n      sources:\n        - archive: \
         {{ url: '{}{path}', sha256: '{sha256}', subdir: build, binary: bin/llama-server }}\n",
        https.base
    );
    std::fs::write(&config, text).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_engine-provisioner"));
    program
        .arg("--config")
        .arg(&config)
        .env_clear()
        .env("PATH", "/nonexistent")
        .env("HOME", machine.dir.path())
        .env("LLAMA_ORCH_CACHE", machine.cache())
        .env("SSL_CERT_FILE", &https.authority);
    program
}

/// EPROV-004
#[test]
fn a_plan_asks_how_large_an_archive_is_and_fetches_nothing_of_it() {
    let machine = Machine::new();
    let https = Https::start(&machine.path("authority.pem"), vec![0; 5 << 20]);
    let planned = |base: &str| {
        let mut https = https.clone();
        base.clone_into(&mut https.base);
        let output = program(&machine, &https, &"5".repeat(64), "/x").arg("plan").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = planned(&https.base);
    assert!(text.contains("/x: fetch (5.0 MiB to fetch), check against 555"), "{text}");
    assert_eq!(https.ranges().len(), 1, "it was asked once");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = planned(&format!("https://{nobody}"));
    assert!(text.contains("fetch (its size is unknown, because its source does not answer: "), "{text}");
    assert!(!machine.cache().exists(), "planning writes nothing");
}

/// EPROV-032
#[test]
fn https_goes_through_the_proxy_that_the_usual_variables_name() {
    let machine = Machine::new();
    let sha256 = release(&machine.path("r.tar.gz"), ENGINE);
    let https =
        Https::start(&machine.path("authority.pem"), std::fs::read(machine.path("r.tar.gz")).unwrap());
    let place = format!("CONNECT {}", https.base.strip_prefix("https://").unwrap());
    for (names, through) in [
        (&["HTTPS_PROXY"][..], true),
        (&["https_proxy"], true),
        (&["ALL_PROXY"], true),
        (&["HTTPS_PROXY", "NO_PROXY"], false),
        (&["https_proxy", "no_proxy"], false),
    ] {
        let _ = std::fs::remove_dir_all(machine.cache());
        let proxy = Proxy::start();
        let mut program = program(&machine, &https, &sha256, "/whole");
        for name in names {
            let value = if name.eq_ignore_ascii_case("NO_PROXY") { "localhost" } else { proxy.base.as_str() };
            program.env(name, value);
        }
        let output = program.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{names:?}: {}", String::from_utf8_lossy(&output.stderr));
        let expected = if through { vec![place.clone()] } else { Vec::new() };
        assert_eq!(proxy.asked(), expected, "{names:?}");
    }
}

/// EPROV-003, EPROV-022
#[test]
fn an_archive_over_https_is_resumed_checked_and_never_followed_to_plain_http() {
    let machine = Machine::new();
    let sha256 = release(&machine.path("r.tar.gz"), ENGINE);
    let bytes = std::fs::read(machine.path("r.tar.gz")).unwrap();
    let half = bytes.len() / 2;
    let https = Https::start(&machine.path("authority.pem"), bytes);
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let output = provision(&machine, &https, &sha256, "/to-plain-http");
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(said(&output).contains("only https is fetched"), "{}", said(&output));
    let output = provision(&machine, &https, &"5".repeat(64), "/whole");
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    assert!(said(&output).contains(&sha256), "{}", said(&output));
    let output = provision(&machine, &https, &sha256, "/cut-once");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let prepared: wire::PreparedEngine = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(std::fs::read_to_string(prepared.binary_path).unwrap(), ENGINE);
    let ranges = https.ranges();
    assert!(ranges.last().unwrap().is_some_and(|from| from > 0 && from <= half), "{ranges:?}");
    let partials = std::fs::read_dir(machine.cache().join("sources/.partial")).unwrap().flatten();
    let parts = partials.filter(|e| e.path().extension().is_some_and(|e| e == "part"));
    assert_eq!(parts.map(|e| e.metadata().unwrap().len()).sum::<u64>(), 0, "no byte is left over");
}

struct Repo {
    dir: PathBuf,
    git: PathBuf,
}

impl Repo {
    fn new(machine: &Machine, name: &str) -> Self {
        let path = std::env::var_os("PATH").unwrap();
        let git = std::env::split_paths(&path).map(|dir| dir.join("git")).find(|path| path.exists()).unwrap();
        let _ = std::os::unix::fs::symlink(&git, machine.bin().join("git"));
        let repo = Self { dir: machine.path(name), git };
        std::fs::create_dir(&repo.dir).unwrap();
        repo.run(&["init", "-q"]);
        repo.commit(name);
        repo
    }

    fn run(&self, args: &[&str]) -> String {
        let base = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always"];
        let out = Command::new(&self.git).args(base).args(args).current_dir(&self.dir).output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    fn commit(&self, text: &str) {
        std::fs::write(self.dir.join("CMakeLists.txt"), text).unwrap();
        self.run(&["add", "."]);
        self.run(&["commit", "-q", "-m", text]);
        self.run(&["tag", "-f", "b1"]);
    }

    fn source(&self, submodules: bool) -> GitSource {
        GitSource {
            repo: self.dir.to_str().unwrap().to_owned(),
            reference: "b1".into(),
            commit: self.run(&["rev-parse", "HEAD"]),
            submodules,
        }
    }
}

/// EPROV-023
#[test]
fn no_hook_filter_or_configuration_that_a_repository_or_user_brings_is_run() {
    let machine = Machine::new();
    let repo = Repo::new(&machine, "repo");
    let marker = machine.path("ran");
    let evil = format!("#!/bin/sh\ntouch {}\n", marker.display());
    // Hooks of the served repository, and of a template the user's own configuration points at.
    let template = machine.path("template/hooks");
    std::fs::create_dir_all(&template).unwrap();
    for dir in [repo.dir.join(".git/hooks"), template.clone()] {
        for hook in
            ["post-checkout", "post-merge", "reference-transaction", "pre-auto-gc", "post-index-change"]
        {
            machine.executable(&dir.join(hook), &evil);
        }
    }
    let settings = format!(
        "[init]\n\ttemplateDir = {}\n[core]\n\tfsmonitor = touch {1}\n\thooksPath = {2}\n[filter \"x\"]\n\tsmudge = touch {1}\n",
        machine.path("template").display(),
        marker.display(),
        template.display()
    );
    std::fs::write(machine.path(".gitconfig"), settings).unwrap();
    std::fs::write(repo.dir.join(".gitattributes"), "* filter=x\n").unwrap();
    repo.commit("two");
    let _ = std::fs::remove_file(&marker);
    machine.ensure(vec![EngineSource::Git(repo.source(false))]).unwrap();
    assert!(!marker.exists(), "something of theirs was run");
    let sources = std::fs::read_dir(machine.cache().join("sources")).unwrap().flatten();
    let trees: Vec<_> =
        sources.map(|e| e.path()).filter(|path| path.join("CMakeLists.txt").exists()).collect();
    assert_eq!(trees.len(), 1);
    assert!(!trees[0].join(".git").exists(), "and nothing of git is left");
}

/// EPROV-023
#[test]
fn submodules_come_only_where_they_are_asked_for() {
    let machine = Machine::new();
    let inner = Repo::new(&machine, "inner");
    let outer = Repo::new(&machine, "outer");
    outer.run(&["submodule", "--quiet", "add", inner.dir.to_str().unwrap(), "deep/inner"]);
    outer.commit("with a submodule");
    let tree =
        |suffix: &str| machine.cache().join(format!("sources/git-{}{suffix}", outer.source(false).commit));
    let without = machine.ensure(vec![EngineSource::Git(outer.source(false))]).unwrap();
    assert!(!tree("").join("deep/inner/CMakeLists.txt").exists());
    let with = machine.ensure(vec![EngineSource::Git(outer.source(true))]).unwrap();
    assert_eq!(
        std::fs::read_to_string(tree("-submodules").join("deep/inner/CMakeLists.txt")).unwrap(),
        "inner"
    );
    assert_ne!(with.engine_digest, without.engine_digest, "another tree is another engine");
}

/// EPROV-023
#[test]
fn only_https_and_local_paths_are_repositories_and_no_field_is_an_option() {
    let config = |repo: &str, reference: &str| {
        let mut pool = wire::config::PoolConfig::haiku();
        let source = GitSource {
            repo: repo.to_owned(),
            reference: reference.to_owned(),
            commit: "0".repeat(40),
            submodules: true,
        };
        pool.provisioning.sources = vec![EngineSource::Git(source)];
        wire::config::Config { pools: vec![pool], ..Default::default() }.problems().len()
    };
    assert_eq!(config("https://host/a/b.git", "v1.2"), 0);
    assert_eq!(config("/srv/mirror.git", "b1"), 0);
    for repo in [
        "--upload-pack=touch /tmp/x",
        "ext::sh -c touch%20/tmp/x",
        "ssh://-oProxyCommand=x/y",
        "git@host:a/b",
        "http://host/a",
        "file:///etc",
        "https://user:word@host/a",
        "https://",
        "relative/dir",
        "",
    ] {
        assert_eq!(config(repo, "b1"), 1, "{repo:?}");
    }
    for reference in ["--output=/tmp/x", "a..b", "-b", "", "a b", "a:b", "x\ny", "refs/heads/*"] {
        assert_eq!(config("https://host/a", reference), 1, "{reference:?}");
    }
}
