//! Reads the configuration of this machine into final types, and again when its file has changed: the
//! file, then the environment on top, then absolute paths. An error says file, line, key and the nearest
//! key that exists.
//!
//! It creates nothing, opens nothing but the file, and knows no daemon: callers decide what a
//! [`ConfigError`] means (both daemons and the provisioner exit with 2).
#![forbid(unsafe_code)]

mod env;
mod error;
mod explain;
mod follow;
mod locate;
mod overlay;
mod parse;
mod unknown;
mod words;

use std::path::{Path, PathBuf};

use wire::config::Config;

pub use env::Env;
pub use error::{ConfigError, LocatedProblem, Place};
pub use explain::{Explained, Source, explain};
pub use follow::{Follow, changed_sections};

/// The effective configuration and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// Defaults, file and environment, merged; every path absolute.
    pub config: Config,
    /// What the defaults were overlaid with.
    pub origin: Origin,
}

/// Where a configuration came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// No file was named: zero config.
    BuiltIn,
    /// This file.
    File(PathBuf),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built-in default"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Loads `path`, else the file that `ORCHD_CONFIG` names, else the built-in default.
///
/// A named file that is missing is an error, never the default. Relative paths in the file are
/// relative to the working directory.
pub fn load(path: Option<&Path>, env: &Env) -> Result<Loaded, ConfigError> {
    Ok(load_and_note(path, env)?.0)
}

/// The same, with what the environment changed.
fn load_and_note(path: Option<&Path>, env: &Env) -> Result<(Loaded, Vec<overlay::Applied>), ConfigError> {
    let named = match path {
        Some(path) => Some(path.to_path_buf()),
        None => env.text("ORCHD_CONFIG")?.map(PathBuf::from),
    };
    let (mut config, written, origin) = match named {
        None => (Config::default(), None, Origin::BuiltIn),
        Some(path) => {
            let path = env.absolute(&path)?;
            let (config, written) = parse::file(&path)?;
            (config, Some(written), Origin::File(path))
        }
    };
    config.apply_gpu_gate();
    let applied = overlay::apply(&mut config, written.as_ref(), env)?;
    Ok((Loaded { config, origin }, applied))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> Env {
        Env::new("/work/dir", [("HOME", "/home/me")])
    }

    fn write(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    fn refused(text: &str) -> String {
        let (_dir, path) = write(text);
        let error = load(Some(&path), &env()).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "names the file: {error}");
        error
    }

    #[test]
    fn no_file_means_zero_config_with_absolute_paths() {
        let loaded = load(None, &env()).unwrap();
        assert_eq!(loaded.origin, Origin::BuiltIn);
        assert_eq!(loaded.config.paths.runtime, Path::new("/work/dir/.runtime"));
        assert_eq!(loaded.config.paths.cache, Path::new("/home/me/.cache/llama-orch"));
        assert_eq!(loaded.config.pools, Config::default().pools);
    }

    #[test]
    fn an_empty_file_is_zero_config_too() {
        for text in ["", "# nothing yet\n\n", "---\n# nothing\n", "{}\n"] {
            let (_dir, path) = write(text);
            assert_eq!(load(Some(&path), &env()).unwrap().config.pools, Config::default().pools, "{text:?}");
        }
    }

    #[test]
    fn a_source_is_written_as_a_map_with_one_key() {
        let (_dir, path) = write(
            "pools:\n  - id: a\n    model: builtin:haiku\n    provisioning:\n      sources:\n        - path: { binary: ~/llama-server }\n        - archive: { url: 'file:/x.tar.gz', sha256: '0000000000000000000000000000000000000000000000000000000000000000' }\n",
        );
        let config = load(Some(&path), &env()).unwrap().config;
        let sources = &config.pools[0].provisioning.sources;
        assert_eq!(sources.len(), 2);
        let wire::config::EngineSource::Path(source) = &sources[0] else { panic!("{sources:?}") };
        assert_eq!(source.binary, Path::new("/home/me/llama-server"));
    }

    /// EPROV-020
    #[test]
    fn a_machine_that_requires_gpus_has_no_pool_that_would_do_without() {
        let pools =
            "pools:\n  - { id: a, model: m }\n  - { id: b, model: m, provisioning: { gpu: required } }\n";
        let (_dir, path) = write(&format!("require_gpu: true\n{pools}"));
        let config = load(Some(&path), &env()).unwrap().config;
        let required = wire::config::GpuPolicy::Required;
        assert!(config.pools.iter().all(|pool| pool.provisioning.gpu == required));
        let (_dir, path) = write(pools);
        assert_ne!(load(Some(&path), &env()).unwrap().config.pools[0].provisioning.gpu, required);
        let error =
            refused("require_gpu: true\npools:\n  - id: a\n    model: m\n    provisioning: { gpu: off }\n");
        assert!(error.contains(":5:") && error.contains("`require_gpu: true` forbids"), "{error}");
    }

    /// OV-007
    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_key() {
        let error = refused("api:\n  listen: 127.0.0.1:8080\npools:\n  - id: a\n    modle: builtin:haiku\n");
        assert!(error.contains(":5:5:"), "{error}");
        assert!(error.contains("`modle`") && error.contains("did you mean `model`?"), "{error}");
    }

    #[test]
    fn an_unknown_key_at_the_top_and_in_a_source_is_named_too() {
        let error = refused("log: {}\npoools: []\n");
        assert!(error.contains(":2:1:") && error.contains("did you mean `pools`?"), "{error}");
        let error = refused(
            "pools:\n  - id: a\n    model: m\n    provisioning:\n      sources:\n        - gti: {}\n",
        );
        assert!(error.contains(":6:") && error.contains("did you mean `git`?"), "{error}");
    }

    #[test]
    fn a_wrong_type_names_the_key_and_the_line() {
        let error = refused("pools:\n  - id: a\n    model: m\n    ctx: lots\n");
        assert!(error.contains(":4:10:") && error.contains("pools[0].ctx"), "{error}");
        assert!(error.contains("lots"), "{error}");
    }

    /// OV-007, SEC-011
    #[test]
    fn a_wrong_value_is_told_in_words_what_it_is_and_what_may_be_there() {
        let source = "which is `path`, `git`, `archive` or `sdist`, as `- path: {binary: ";
        for (pool, said) in [
            ("provisioning: {sources: [{}]}", source),
            ("provisioning: {sources: [path]}", source),
            ("provisioning: {sources: [null]}", source),
            ("provisioning: {sources: [{path: {binary: /x}, git: {}}]}", source),
            ("provisioning: {sources: [{path: {}}]}", "sources[0].path: the key `binary` is missing"),
            ("provisioning: {sources: [{path: {binary: ''}}]}", "path.binary: must name a llama-server"),
            ("provisioning: {gpu: true}", "gpu: must be required, auto or off; here it is `true`"),
            ("slots: -1", "slots: must be a whole number, not negative; here it is the number `-1`"),
            ("flags: --threads 4", "flags: must be a list, as [a, b]; here it is the text \"--threads 4\""),
            ("env: [A=b]", "env: must be keys with values, as {key: value}; here it is a list"),
            ("devices: all", "devices: must be `auto`, or a list of indices"),
            ("tensor_split: [1]", "write them as [0, 1]"),
            ("aliases: ['']", "aliases: must be names"),
            ("on_exit: kep", "on_exit: must be `stop` or `keep`; here it is `kep`; did you mean `keep`?"),
            ("kind: picture", "kind: must be `chat`, `embedding` or `rerank`; here it is `picture`"),
            ("lots: 2", "pools[0]: there is no key `lots` here; did you mean `slots`?"),
        ] {
            let error = refused(&format!("pools:\n  - id: a\n    model: builtin:haiku\n    {pool}\n"));
            assert!(error.contains(said) && error.contains("pools[0]"), "{pool}: {error}");
        }
        for (text, said) in [
            ("models: []", ":1:9: models: must be keys with values, as {key: value}; here it is a list"),
            ("models: {trust: 1}", "models.trust: must be permissive or strict; here it is the number `1`"),
            ("models: {quota_gib: 1.5}", "must be a whole number, not negative; here it is the number `1.5`"),
            ("paths: {runtime: ''}", "paths.runtime: must name a directory; leave it out for the default"),
            ("paths: {cache: ''}", "paths.cache: must name a directory"),
            (
                "api: {listen: localhost:8080}",
                "api.listen: must be an IP address and a port, as 127.0.0.1:8080",
            ),
            ("api: {tls: true}", "api.tls: must be keys with values"),
            ("api: {tls: {cert: x}}", "api.tls: the key `key` is missing"),
            ("api: {tokens_file: ''}", "api.tokens_file: must be generate, a file, or null"),
            ("api: {hosts: ['http://box']}", "api.hosts: must be names of this machine"),
            (
                "pool_managerd: {url: 'localhost:9200'}",
                "pool_managerd.url: must be http:// with address and port",
            ),
            ("pool_managerd: {token_file: ''}", "pool_managerd.token_file: must name a file"),
            ("pools: null", "pools: must be a list, as [a, b]; here it is nothing"),
            ("ctx: 5", ":1:1: there is no key `ctx` here; it may be `api`, `paths`, "),
            (
                "models: {allowed_sources: ['hf:a/', qwen/]}",
                ":1:10: models.allowed_sources[1]: must begin with hf:, https://, file:/ or builtin:; here it is \
                 \"qwen/\"; did you mean \"hf:qwen/\"?",
            ),
            ("models: {allowed_sources: ['http://h/']}", "did you mean \"https://h/\"?"),
            ("models: {allowed_sources: [/srv]}", "did you mean \"file:/srv\"?"),
            (
                "api: {body_limits: {/v2/tasks: 0}}",
                ":1:21: api.body_limits./v2/tasks: must be 1 to 268435456 bytes; leave it out for 1 MiB",
            ),
            ("api: {body_limits: {/v2/tasks: 268435457}}", "must be 1 to 268435456 bytes"),
            ("api: {body_limits: {/v2/task: 5}}", "no route /v2/task takes a body; these do: /"),
            ("api: {body_limits: {/ready: 5}}", "no route /ready takes a body"),
            ("journal: {keep_bytes: 0}", "journal.keep_bytes: must be at least 1"),
            ("pools: [{}]", "pools[0]: the key `id` is missing"),
        ] {
            let error = refused(&format!("{text}\n"));
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn every_semantic_problem_is_listed_with_its_line() {
        let error = refused(
            "pools:\n  - id: a\n    model: m\n  - id: b\n    model: m\n    deterministic: true\n    slots: 4\n    queue: { capacity: 0 }\n",
        );
        assert!(error.contains(":7:5: pools[1].slots: a deterministic pool"), "{error}");
        assert!(error.contains(":8:14: pools[1].queue.capacity: must be at least 1"), "{error}");
    }

    #[test]
    fn a_missing_file_is_named_and_not_replaced_by_the_default() {
        let error = load(Some(Path::new("nowhere.yaml")), &env()).unwrap_err().to_string();
        assert!(error.contains("/work/dir/nowhere.yaml") && error.contains("does not exist"), "{error}");
        let env = Env::new("/", [("HOME", "/h"), ("ORCHD_CONFIG", "/nowhere/at-all.yaml")]);
        assert!(load(None, &env).unwrap_err().to_string().contains("/nowhere/at-all.yaml"));
    }

    #[test]
    fn json_is_accepted_and_located_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(
            &path,
            "{\n\t\"pools\": [{\"id\": \"a\", \"model\": \"builtin:haiku\", \"slots\": 2}]\n}",
        )
        .unwrap();
        assert_eq!(load(Some(&path), &env()).unwrap().config.pools[0].slots, 2);
        std::fs::write(&path, "{\n  \"pols\": []\n}").unwrap();
        let error = load(Some(&path), &env()).unwrap_err().to_string();
        assert!(error.contains("config.json:2:") && error.contains("did you mean `pools`?"), "{error}");
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let (_dir, path) = write("api: { listen: '127.0.0.1:1' }\npaths: { runtime: /file, cache: /file }\n");
        let vars = [
            ("HOME", "/home/me"),
            ("ORCHD_ADDR", "127.0.0.1:9999"),
            ("ORCHD_RUNTIME_DIR", "run"),
            ("LLAMA_ORCH_CACHE", "~/c"),
            ("RUNTIME_DIRECTORY", "/run/ignored-because-the-file-says"),
        ];
        let config = load(Some(&path), &Env::new("/work/dir", vars)).unwrap().config;
        assert_eq!(config.api.listen.port(), 9999);
        assert_eq!(config.paths.runtime, Path::new("/work/dir/run"));
        assert_eq!(config.paths.cache, Path::new("/home/me/c"));
    }

    #[test]
    fn systemd_directories_replace_the_defaults_only() {
        let vars =
            [("HOME", "/h"), ("RUNTIME_DIRECTORY", "/run/a:/run/b"), ("CACHE_DIRECTORY", "/var/cache/x")];
        let env = Env::new("/", vars);
        let paths = load(None, &env).unwrap().config.paths;
        assert_eq!((paths.runtime, paths.cache), ("/run/a".into(), "/var/cache/x".into()));
        let (_dir, path) = write("paths: { runtime: /mine }\n");
        assert_eq!(load(Some(&path), &env).unwrap().config.paths.runtime, Path::new("/mine"));
    }

    /// POOLD-SERVICE-002
    #[test]
    fn a_variable_says_what_an_end_does_with_the_engines_of_pools_that_do_not_say_it() {
        use wire::config::OnExit::{Keep, Stop};
        let env = Env::new("/", [("HOME", "/h"), ("LLAMA_ORCH_ON_EXIT", "keep")]);
        let ends = |path: Option<&Path>| -> Vec<_> {
            load(path, &env).unwrap().config.pools.iter().map(|pool| pool.on_exit).collect()
        };
        assert_eq!(ends(None), [Keep]);
        let (_dir, empty) = write("# nothing yet\n");
        assert_eq!(ends(Some(&empty)), [Keep]);
        let (_dir, path) = write("pools:\n  - { id: a, model: m }\n  - { id: b, model: m, on_exit: stop }\n");
        assert_eq!(ends(Some(&path)), [Keep, Stop], "what the file says holds");
        let error = load(None, &Env::new("/", [("HOME", "/h"), ("LLAMA_ORCH_ON_EXIT", "kep")])).unwrap_err();
        assert!(error.to_string().contains("LLAMA_ORCH_ON_EXIT=kep"), "{error}");
    }

    #[test]
    fn a_bad_variable_is_named() {
        let env = Env::new("/", [("HOME", "/h"), ("ORCHD_ADDR", "localhost:8080")]);
        let error = load(None, &env).unwrap_err().to_string();
        assert!(error.contains("ORCHD_ADDR=localhost:8080") && error.contains("127.0.0.1:8080"), "{error}");
        let error = load(None, &Env::new("/", [] as [(&str, &str); 0])).unwrap_err().to_string();
        assert!(error.contains("HOME") && error.contains("~/.cache/llama-orch"), "{error}");
    }

    #[test]
    fn a_model_path_becomes_absolute_and_other_references_stay() {
        let (_dir, path) = write(
            "pools:\n  - { id: a, model: 'file:m.gguf' }\n  - { id: b, model: ~/m.gguf }\n  - { id: c, model: 'hf:o/r:Q4_K_M' }\n",
        );
        let pools = load(Some(&path), &env()).unwrap().config.pools;
        let models: Vec<_> = pools.iter().map(|p| p.model.as_str()).collect();
        assert_eq!(models, ["file:/work/dir/m.gguf", "file:/home/me/m.gguf", "hf:o/r:Q4_K_M"]);
    }
}
