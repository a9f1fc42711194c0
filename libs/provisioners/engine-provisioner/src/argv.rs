//! The engine's command line, planned from the pool: everything but host, port and key, which
//! pool-managerd adds when it spawns. Pure.
//!
//! A deterministic pool gets one slot and no continuous batching here; that the prompt cache is off
//! is said per request (`cache_prompt: false`), because it is a property of the task.

use std::path::Path;

use wire::config::{PoolConfig, PoolKind};

use crate::flags;
use crate::gpu::Target;

/// `pooled`: the model says how it makes one vector of a text; `None` where its header was not read.
/// `Err` names the key and what to write instead.
pub(crate) fn plan(
    pool: &PoolConfig,
    model: &Path,
    pooled: Option<bool>,
    target: &Target,
) -> Result<Vec<String>, String> {
    let mut own = flags::canonical(pool)?;
    let names: Vec<String> = own.iter().filter(|item| item.starts_with("--")).cloned().collect();
    let given = |name: &str| names.iter().any(|flag| flag == name);
    let model = model.to_str().ok_or("model: the path is not valid UTF-8")?;
    let ctx = u64::from(pool.ctx) * u64::from(pool.slots);
    let mut argv: Vec<String> = ["--model", model, "--ctx-size"].map(str::to_owned).into();
    argv.push(ctx.to_string());
    argv.extend(["--parallel".to_owned(), pool.slots.to_string()]);
    if pool.deterministic {
        argv.push("--no-cont-batching".to_owned());
    }
    argv.extend(["--no-webui", "--metrics", "--offline", "--fit", "off"].map(str::to_owned));
    match pool.kind {
        PoolKind::Embedding if !given("--embeddings") => argv.push("--embeddings".to_owned()),
        PoolKind::Rerank if !given("--reranking") => argv.push("--reranking".to_owned()),
        _ => {}
    }
    if pool.kind == PoolKind::Embedding && pooled == Some(false) && !given("--pooling") {
        // Without one the engine has a vector for each token, and refuses whoever asks for one of a text.
        argv.extend(["--pooling", "mean"].map(str::to_owned));
    }
    match target {
        // More than any model has: all layers, in a spelling that every version understands.
        Target::Cuda { .. } if !given("--n-gpu-layers") => {
            argv.extend(["--n-gpu-layers", "999"].map(str::to_owned));
        }
        // Also where the binary could do more: the pool consented to the CPU, and a card may be another's.
        Target::Cpu => {
            if given("--n-gpu-layers") {
                tracing::warn!(pool = %pool.id, "--n-gpu-layers has no effect: the pool runs on the CPU");
                own = without(own, "--n-gpu-layers");
            }
            argv.extend(["--n-gpu-layers", "0"].map(str::to_owned));
        }
        Target::Cuda { .. } => {}
    }
    if let (Target::Cuda { .. }, Some(split)) = (target, &pool.tensor_split) {
        let parts: Vec<String> = split.iter().map(f64::to_string).collect();
        argv.extend(["--tensor-split".to_owned(), parts.join(",")]);
    }
    argv.extend(own);
    Ok(argv)
}

/// Every use of `name` and its value taken out.
fn without(flags: Vec<String>, name: &str) -> Vec<String> {
    let mut skip = false;
    let keep = |flag: &String| {
        let drop = std::mem::take(&mut skip) || flag == name;
        skip = flag == name;
        !drop
    };
    flags.into_iter().filter(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cuda() -> Target {
        Target::Cuda {
            nvcc: "/n".into(),
            architectures: vec!["86".into()],
            device_mask: "GPU-0".into(),
            driver: None,
        }
    }

    fn line(pool: &PoolConfig, target: &Target) -> String {
        plan(pool, Path::new("/m.gguf"), Some(true), target).unwrap().join(" ")
    }

    #[test]
    fn the_haiku_pool_has_the_flags_of_its_profile() {
        insta::assert_snapshot!(
            line(&PoolConfig::haiku(), &Target::Cpu),
            @"--model /m.gguf --ctx-size 2048 --parallel 1 --no-cont-batching --no-webui --metrics --offline --fit off --n-gpu-layers 0"
        );
    }

    /// EPROV-021
    #[test]
    fn a_pool_on_the_cpu_puts_no_layer_on_a_card_whatever_its_flags_say() {
        let flags = ["-ngl", "20", "--threads", "2", "--gpu-layers=99"].map(str::to_owned).to_vec();
        let pool = PoolConfig { flags, ..PoolConfig::haiku() };
        let cpu = line(&pool, &Target::Cpu);
        assert!(cpu.ends_with("--n-gpu-layers 0 --threads 2"), "{cpu}");
        assert_eq!(cpu.matches("--n-gpu-layers").count(), 1);
    }

    #[test]
    fn the_context_is_per_slot_and_cuda_takes_all_layers_unless_told() {
        let mut pool = PoolConfig { deterministic: false, slots: 4, ctx: 8192, ..PoolConfig::haiku() };
        insta::assert_snapshot!(
            line(&pool, &cuda()),
            @"--model /m.gguf --ctx-size 32768 --parallel 4 --no-webui --metrics --offline --fit off --n-gpu-layers 999"
        );
        pool.flags = vec!["--ngl".into(), "20".into(), "-fa".into(), "on".into()];
        pool.kind = PoolKind::Embedding;
        insta::assert_snapshot!(
            line(&pool, &cuda()),
            @"--model /m.gguf --ctx-size 32768 --parallel 4 --no-webui --metrics --offline --fit off --embeddings --n-gpu-layers 20 --flash-attn on"
        );
    }

    /// EPROV-029
    #[test]
    fn a_model_that_does_not_say_how_makes_one_vector_of_a_text_by_their_mean() {
        let line = |kind, pooled, flags: &[&str]| {
            let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
            let pool = PoolConfig { kind, flags, ..PoolConfig::haiku() };
            plan(&pool, Path::new("/m.gguf"), pooled, &Target::Cpu).unwrap().join(" ")
        };
        assert!(line(PoolKind::Embedding, Some(false), &[]).contains(" --embeddings --pooling mean "));
        assert!(!line(PoolKind::Embedding, Some(true), &[]).contains("--pooling"));
        assert!(!line(PoolKind::Embedding, None, &[]).contains("--pooling"), "nobody has looked");
        assert!(!line(PoolKind::Rerank, Some(false), &[]).contains("--pooling"), "--reranking is one");
        assert!(!line(PoolKind::Chat, Some(false), &[]).contains("--pooling"));
        let told = line(PoolKind::Embedding, Some(false), &["--pooling last"]);
        assert!(told.contains("--pooling last") && !told.contains("mean"), "{told}");
    }

    /// EPROV-024
    #[test]
    fn a_split_over_several_cards_is_handed_on_and_means_nothing_on_a_cpu() {
        let mut pool = PoolConfig::haiku();
        pool.tensor_split = Some(vec![24.0, 12.5]);
        let both = line(&pool, &cuda());
        assert!(both.ends_with("--n-gpu-layers 999 --tensor-split 24,12.5"), "{both}");
        assert!(!line(&pool, &Target::Cpu).contains("--tensor-split"));
    }
}
