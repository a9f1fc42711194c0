//! What a model's header says that an engine needs: memory, with its command line, and a way to pool.

use std::path::Path;

use provisioners_model_provisioner::gguf::read_header;
use provisioners_model_provisioner::{Load, estimate};
use wire::MemoryEstimate;
use wire::config::PoolConfig;

/// `None` when the header does not say enough; the engine is started without a comparison then.
pub(crate) fn of(pool: &PoolConfig, model: &Path, argv: &[String]) -> Option<MemoryEstimate> {
    let header = read_header(model).ok()?;
    estimate(&header, &load(pool, argv))
}

/// Whether a model says how it makes one vector of a text; `None` when its header cannot be read.
pub(crate) fn pooled(model: &Path) -> Option<bool> {
    read_header(model).ok().map(|header| header.pooled)
}

/// Later flags win, as the engine reads them; `argv` has long spellings only.
fn load(pool: &PoolConfig, argv: &[String]) -> Load {
    let value = |name: &str| {
        let at = argv.iter().rposition(|flag| flag == name)?;
        argv.get(at + 1).map(String::as_str)
    };
    let mut load = Load::new(pool.ctx, pool.slots);
    load.ubatch = value("--ubatch-size").and_then(|text| text.parse().ok()).unwrap_or(load.ubatch);
    load.cache_type_k = value("--cache-type-k").map_or(load.cache_type_k, str::to_owned);
    load.cache_type_v = value("--cache-type-v").map_or(load.cache_type_v, str::to_owned);
    load.flash_attention = !matches!(value("--flash-attn"), Some("off" | "0" | "false"));
    load
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MPROV-020
    #[test]
    fn the_flags_that_change_the_need_are_heeded() {
        let argv = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let pool = PoolConfig { ctx: 4096, slots: 2, ..PoolConfig::haiku() };
        assert_eq!(load(&pool, &argv("--model m")), Load::new(4096, 2));
        let told = argv(
            "--ubatch-size 64 --cache-type-k q8_0 --cache-type-v q4_0 --flash-attn off --ubatch-size 128",
        );
        let told = load(&pool, &told);
        assert_eq!((told.ubatch, told.flash_attention), (128, false));
        assert_eq!((told.cache_type_k.as_str(), told.cache_type_v.as_str()), ("q8_0", "q4_0"));
    }

    /// MPROV-020
    #[test]
    fn a_model_without_a_readable_header_has_no_estimate() {
        assert_eq!(of(&PoolConfig::haiku(), Path::new("/nonexistent"), &[]), None);
    }
}
