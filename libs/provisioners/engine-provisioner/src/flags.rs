//! The engine flags and variables a config may set: an allow-list of performance and sampling flags,
//! a list that is never accepted, and the legacy spellings. Names are `llama-server --help`'s.

use std::collections::BTreeMap;

use wire::config::PoolConfig;

use Arity::{Switch, Value};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Arity {
    Switch,
    Value,
}

/// Long spelling, other spellings, whether a value follows.
type Flag = (&'static str, &'static [&'static str], Arity);

const ALLOWED: &[Flag] = &[
    ("--threads", &["-t"], Value),
    ("--threads-batch", &["-tb"], Value),
    ("--cpu-mask", &["-C"], Value),
    ("--cpu-range", &["-Cr"], Value),
    ("--cpu-strict", &[], Value),
    ("--cpu-mask-batch", &["-Cb"], Value),
    ("--cpu-range-batch", &["-Crb"], Value),
    ("--prio", &[], Value),
    ("--prio-batch", &[], Value),
    ("--poll", &[], Value),
    ("--poll-batch", &[], Value),
    ("--threads-http", &[], Value),
    ("--batch-size", &["-b"], Value),
    ("--ubatch-size", &["-ub"], Value),
    ("--keep", &[], Value),
    ("--predict", &["-n", "--n-predict"], Value),
    ("--swa-full", &[], Switch),
    ("--flash-attn", &["-fa"], Value),
    ("--rope-scaling", &[], Value),
    ("--rope-scale", &[], Value),
    ("--rope-freq-base", &[], Value),
    ("--rope-freq-scale", &[], Value),
    ("--yarn-orig-ctx", &[], Value),
    ("--yarn-ext-factor", &[], Value),
    ("--yarn-attn-factor", &[], Value),
    ("--yarn-beta-slow", &[], Value),
    ("--yarn-beta-fast", &[], Value),
    ("--kv-offload", &["-kvo"], Switch),
    ("--no-kv-offload", &["-nkvo"], Switch),
    ("--kv-unified", &["-kvu"], Switch),
    ("--no-kv-unified", &["-no-kvu"], Switch),
    ("--repack", &[], Switch),
    ("--no-repack", &["-nr"], Switch),
    ("--no-host", &[], Switch),
    ("--cache-type-k", &["-ctk"], Value),
    ("--cache-type-v", &["-ctv"], Value),
    ("--mlock", &[], Switch),
    ("--mmap", &[], Switch),
    ("--no-mmap", &[], Switch),
    ("--load-mode", &["-lm"], Value),
    ("--numa", &[], Value),
    ("--override-tensor", &["-ot"], Value),
    ("--cpu-moe", &["-cmoe"], Switch),
    ("--n-cpu-moe", &["-ncmoe"], Value),
    ("--n-gpu-layers", &["-ngl", "--ngl", "--gpu-layers"], Value),
    ("--split-mode", &["-sm"], Value),
    ("--main-gpu", &["-mg"], Value),
    ("--op-offload", &[], Switch),
    ("--no-op-offload", &[], Switch),
    ("--check-tensors", &[], Switch),
    ("--cache-prompt", &[], Switch),
    ("--no-cache-prompt", &[], Switch),
    ("--cache-reuse", &[], Value),
    ("--cache-ram", &["-cram"], Value),
    ("--ctx-checkpoints", &["-ctxcp", "--swa-checkpoints"], Value),
    ("--context-shift", &[], Switch),
    ("--no-context-shift", &[], Switch),
    ("--warmup", &[], Switch),
    ("--no-warmup", &[], Switch),
    ("--samplers", &[], Value),
    ("--sampler-seq", &["--sampling-seq"], Value),
    ("--seed", &["-s"], Value),
    ("--temp", &["--temperature"], Value),
    ("--top-k", &[], Value),
    ("--top-p", &[], Value),
    ("--min-p", &[], Value),
    ("--top-nsigma", &["--top-n-sigma"], Value),
    ("--xtc-probability", &[], Value),
    ("--xtc-threshold", &[], Value),
    ("--typical", &["--typical-p"], Value),
    ("--repeat-last-n", &[], Value),
    ("--repeat-penalty", &[], Value),
    ("--presence-penalty", &[], Value),
    ("--frequency-penalty", &[], Value),
    ("--dry-multiplier", &[], Value),
    ("--dry-base", &[], Value),
    ("--dry-allowed-length", &[], Value),
    ("--dry-penalty-last-n", &[], Value),
    ("--mirostat", &[], Value),
    ("--mirostat-lr", &[], Value),
    ("--mirostat-ent", &[], Value),
    ("--jinja", &[], Switch),
    ("--no-jinja", &[], Switch),
    ("--chat-template", &[], Value),
    ("--chat-template-file", &[], Value),
    ("--chat-template-kwargs", &[], Value),
    ("--reasoning", &["-rea"], Value),
    ("--reasoning-format", &[], Value),
    ("--reasoning-budget", &[], Value),
    ("--pooling", &[], Value),
    ("--embd-normalize", &[], Value),
    ("--embeddings", &["--embedding"], Switch),
    ("--reranking", &["--rerank"], Switch),
    ("--slot-prompt-similarity", &["-sps"], Value),
];

/// Chosen by the planner from other keys of the pool; a second spelling would contradict it.
const PLANNED: &[(&str, &str)] = &[
    ("--model", "`model`"),
    ("-m", "`model`"),
    ("--ctx-size", "`ctx` (tokens per slot)"),
    ("-c", "`ctx` (tokens per slot)"),
    ("--parallel", "`slots`"),
    ("-np", "`slots`"),
    ("--cont-batching", "`deterministic`"),
    ("-cb", "`deterministic`"),
    ("--no-cont-batching", "`deterministic`"),
    ("-nocb", "`deterministic`"),
    ("--device", "`devices`"),
    ("-dev", "`devices`"),
    ("--tensor-split", "`tensor_split`"),
    ("-ts", "`tensor_split`"),
    ("--fit", "nothing: it is always off"),
    ("-fit", "nothing: it is always off"),
    ("--metrics", "nothing: it is always on"),
    ("--offline", "nothing: it is always on"),
    ("--webui", "nothing: the engine's own UI is always off"),
    ("--no-webui", "nothing: the engine's own UI is always off"),
    ("--ui", "nothing: the engine's own UI is always off"),
    ("--no-ui", "nothing: the engine's own UI is always off"),
    ("--slots", "nothing: it is always on"),
    ("--no-slots", "nothing: progress is read from it"),
];

/// Never accepted, not even with `unsafe_flags`: they run tools, read or write files for clients,
/// fetch from the network, or change who may talk to the engine.
const REFUSED: &[&str] = &[
    "--tools",
    "--tools-runtime",
    "--agent",
    "-ag",
    "--ui-mcp-proxy",
    "--webui-mcp-proxy",
    "--slot-save-path",
    "--media-path",
    "--path",
    "--props",
    "--rpc",
    "--models-dir",
    "--models-preset",
    "--models-max",
    "--models-autoload",
    "--log-prompts-dir",
    "--log-file",
    "-hf",
    "-hfr",
    "--hf-repo",
    "-hff",
    "--hf-file",
    "-hft",
    "--hf-token",
    "-hfd",
    "-hfrd",
    "--hf-repo-draft",
    "--spec-draft-hf",
    "-mu",
    "--model-url",
    "-dr",
    "--docker-repo",
    "-mmu",
    "--mmproj-url",
    "--api-key",
    "--api-key-file",
    "--host",
    "--port",
    "--reuse-port",
    "--api-prefix",
];
const REFUSED_PREFIXES: &[&str] = &["--mcp-", "--ssl-", "--cors-"];

/// The pool's flags in canonical spelling, or what is wrong with the first bad one.
pub(crate) fn canonical(pool: &PoolConfig) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    let mut items = pool.flags.iter().flat_map(|item| split(item)).peekable();
    while let Some(item) = items.next() {
        if !item.starts_with('-') {
            return Err(format!("flags: {item:?} is not a flag and follows none that takes a value"));
        }
        // llama-server reads `--api_key` as `--api-key`; so must the lists.
        let name = if item.starts_with("--") { item.replace('_', "-") } else { item.clone() };
        check(&name)?;
        let known = ALLOWED.iter().find(|(long, other, _)| *long == name || other.contains(&name.as_str()));
        let takes_value = match known {
            Some((_, _, arity)) => *arity == Value,
            None if pool.unsafe_flags => items.peek().is_some_and(|next| !next.starts_with('-')),
            None => return Err(unknown(&name)),
        };
        out.push(known.map_or(name.clone(), |(long, _, _)| (*long).to_owned()));
        if takes_value {
            // A value may be negative, but it is never another flag.
            let value = items.next_if(|next| !next.starts_with("--"));
            out.push(value.ok_or_else(|| format!("flags: {name} needs a value"))?);
        }
    }
    Ok(out)
}

/// `--threads 4` and `--threads=4` in one item are what people write in YAML.
fn split(item: &str) -> Vec<String> {
    let at = item.starts_with('-').then(|| item.find([' ', '='])).flatten();
    match at {
        Some(at) => vec![item[..at].to_owned(), item[at + 1..].trim().to_owned()],
        None => vec![item.to_owned()],
    }
}

fn check(name: &str) -> Result<(), String> {
    if let Some((_, key)) = PLANNED.iter().find(|(flag, _)| *flag == name) {
        return Err(format!("flags: {name} is decided by the pool; set {key} instead"));
    }
    let positive = name.strip_prefix("--no-").map(|rest| format!("--{rest}"));
    let refused =
        |name: &str| REFUSED.contains(&name) || REFUSED_PREFIXES.iter().any(|p| name.starts_with(p));
    if refused(name) || positive.as_deref().is_some_and(refused) {
        return Err(format!(
            "flags: {name} is never accepted: it would open files, tools, the network or the engine's door to clients"
        ));
    }
    Ok(())
}

fn unknown(name: &str) -> String {
    let names = ALLOWED.iter().flat_map(|(long, other, _)| std::iter::once(long).chain(other.iter()));
    let nearest = names.map(|known| (strsim::damerau_levenshtein(name, known), *known)).min();
    let hint = match nearest {
        Some((distance, known)) if distance <= 2 => format!("did you mean {known}? "),
        _ => String::new(),
    };
    format!(
        "flags: {name} is not on the list of performance and sampling flags; {hint}set `unsafe_flags: true` to pass \
         it all the same"
    )
}

/// The pool's variables for the engine, or what is wrong with the first bad one.
pub(crate) fn checked_env(pool: &PoolConfig) -> Result<BTreeMap<String, String>, String> {
    for name in pool.env.keys() {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if name.is_empty() || !name.bytes().all(plain) || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!("env: {name:?} is not a variable's name"));
        }
        let upper = name.to_ascii_uppercase();
        if upper.starts_with("LLAMA_ARG_") || upper.starts_with("AIP_") || upper == "LLAMA_API_KEY" {
            return Err(format!(
                "env: {name} is never accepted: it is an engine flag in disguise; use `flags`"
            ));
        }
        if matches!(upper.as_str(), "CUDA_VISIBLE_DEVICES" | "CUDA_DEVICE_ORDER") {
            return Err(format!("env: {name} is decided by the pool; set `devices` instead"));
        }
    }
    Ok(pool.env.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(flags: &[&str]) -> PoolConfig {
        PoolConfig { flags: flags.iter().map(|f| (*f).to_owned()).collect(), ..PoolConfig::haiku() }
    }

    #[test]
    fn legacy_and_short_spellings_become_the_long_one() {
        for spelling in ["--ngl", "-ngl", "--gpu-layers", "--n_gpu_layers", "--n-gpu-layers"] {
            assert_eq!(canonical(&pool(&[spelling, "33"])).unwrap(), ["--n-gpu-layers", "33"]);
        }
        assert_eq!(
            canonical(&pool(&["-t 4", "--seed=-1", "-fa", "on", "--mlock"])).unwrap(),
            ["--threads", "4", "--seed", "-1", "--flash-attn", "on", "--mlock"]
        );
    }

    /// EPROV-009
    #[test]
    fn what_is_never_accepted_stays_out_in_every_spelling() {
        let spellings = [
            "--tools",
            "--agent",
            "-ag",
            "--mcp-servers-json",
            "--ui-mcp-proxy",
            "--no-ui-mcp-proxy",
            "--slot-save-path",
            "--media-path",
            "--path",
            "--props",
            "--rpc",
            "--models-dir",
            "--models-preset",
            "--log-prompts-dir",
            "--log-file",
            "-hf",
            "-mu",
            "--api-key",
            "--api_key",
            "--api-key=x",
            "--api-key-file",
            "--ssl-key-file",
            "--host",
            "--port",
            "--port 1",
            "--model",
            "-c",
            "--parallel",
        ];
        for spelling in spellings {
            let mut pool = pool(&[spelling, "x"]);
            pool.unsafe_flags = true;
            assert!(canonical(&pool).is_err(), "{spelling} must be refused");
        }
    }

    /// EPROV-009
    #[test]
    fn others_need_consent_and_the_nearest_is_named() {
        let error = canonical(&pool(&["--treads", "4"])).unwrap_err();
        assert!(error.contains("did you mean --threads?") && error.contains("unsafe_flags"), "{error}");
        let mut consented = pool(&["--lora", "/a.gguf", "--special"]);
        consented.unsafe_flags = true;
        assert_eq!(canonical(&consented).unwrap(), ["--lora", "/a.gguf", "--special"]);
        assert!(canonical(&pool(&["--threads"])).unwrap_err().contains("needs a value"));
        assert!(canonical(&pool(&["--threads", "--mlock"])).unwrap_err().contains("needs a value"));
        assert!(canonical(&pool(&["4"])).is_err());
        let hint = |flag: &str| canonical(&pool(&[flag])).unwrap_err().contains("did you mean");
        assert!(hint("--thrds") && !hint("--thrxyz"), "two slips are one flag, three are another");
    }

    #[test]
    fn an_engine_flag_cannot_come_in_through_the_environment() {
        for name in [
            "LLAMA_ARG_TOOLS",
            "llama_arg_host",
            "LLAMA_API_KEY",
            "AIP_MODE",
            "CUDA_VISIBLE_DEVICES",
            "cuda_device_order",
            "A=B",
            "A B",
            "1A",
            "",
        ] {
            let mut pool = pool(&[]);
            pool.env.insert(name.to_owned(), "1".to_owned());
            assert!(checked_env(&pool).is_err(), "{name:?} must be refused");
        }
        let mut fine = pool(&[]);
        fine.env.insert("OMP_NUM_THREADS".to_owned(), "2".to_owned());
        fine.env.insert("_a1".to_owned(), String::new());
        assert_eq!(checked_env(&fine).unwrap(), fine.env);
    }
}
