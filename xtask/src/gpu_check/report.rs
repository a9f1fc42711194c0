//! What was seen, held against what must be, and written down for people.

use std::fmt::Write as _;

use wire::{Device, MemoryEstimate};

use super::log::{Buffers, Loaded, on_cards};

/// Everything that was measured on one machine.
pub(super) struct Seen {
    pub(super) cards: Vec<Device>,
    pub(super) engine_version: String,
    pub(super) model: String,
    pub(super) prepare_s: f64,
    pub(super) load_s: f64,
    pub(super) text: String,
    pub(super) tokens: u64,
    pub(super) decode_ms: u64,
    pub(super) estimate: Option<MemoryEstimate>,
    pub(super) loaded: Loaded,
    /// Memory of cards that the engine's process has, as the driver counts.
    pub(super) process_bytes: Option<u64>,
}

/// One thing that must be so.
pub(super) struct Check {
    pub(super) what: &'static str,
    pub(super) holds: bool,
    pub(super) seen: String,
}

const MIB: f64 = 1024.0 * 1024.0;

impl Seen {
    pub(super) fn checks(&self) -> Vec<Check> {
        let check = |what, holds, seen| Check { what, holds, seen };
        let layers = self.loaded.offloaded;
        let weights = on_cards(&self.loaded.weights);
        let mut checks = vec![
            check(
                "every layer is on a card, as the engine's own log says",
                layers.is_some_and(|(some, all)| some == all && all > 0),
                layers.map_or_else(|| "it says nothing".to_owned(), |(some, all)| format!("{some} of {all}")),
            ),
            check("weights are on a card", weights > 0.0, format!("{weights:.2} MiB")),
            check("tokens were streamed", self.tokens > 0, format!("{} tokens", self.tokens)),
        ];
        if let Some(estimate) = &self.estimate {
            // What the engine leaves in the machine's memory (the embedding) is estimated, too.
            let all = |buffers: &Buffers| buffers.values().sum::<f64>();
            let close = |ours: f64, theirs: f64| (ours - theirs).abs() <= theirs * 0.02 + 0.1;
            let (ours, theirs) = (estimate.kv_bytes as f64 / MIB, all(&self.loaded.kv));
            checks.push(check(
                "keys and values are estimated within 2 %",
                close(ours, theirs),
                format!("{ours:.2} MiB, the engine has {theirs:.2} MiB"),
            ));
            let ours = estimate.total_bytes() as f64 / MIB;
            let theirs = weights + on_cards(&self.loaded.kv) + on_cards(&self.loaded.compute);
            checks.push(check(
                "the estimate is no less than the engine's buffers on the cards",
                ours + 0.1 >= theirs,
                format!("{ours:.2} MiB, the engine has {theirs:.2} MiB"),
            ));
        }
        checks
    }

    pub(super) fn markdown(&self) -> String {
        let mut out = "# The real thing on a real card\n\nWritten by `cargo xtask gpu-check`.\n\n".to_owned();
        let mut line = |text: String| {
            // Writing to memory does not fail.
            let _ = writeln!(out, "{text}");
        };
        for card in &self.cards {
            let driver = card.driver.as_deref().unwrap_or("unknown");
            let (total, compute) = (card.vram_total_bytes >> 20, &card.compute_capability);
            line(format!(
                "- card {}: {}, compute capability {compute}, {total} MiB, driver {driver}",
                card.index, card.name
            ));
        }
        line(format!("- engine: {}, prepared in {:.1} s", self.engine_version, self.prepare_s));
        line(format!("- model: {}, ready {:.1} s after the start", self.model, self.load_s));
        let rate = self.tokens as f64 * 1000.0 / self.decode_ms.max(1) as f64;
        line(format!(
            "- {} tokens in {} ms ({rate:.1} a second): {:?}",
            self.tokens, self.decode_ms, self.text
        ));
        line("\n| must be so | | seen |\n|---|---|---|".to_owned());
        for check in self.checks() {
            let verdict = if check.holds { "yes" } else { "**NO**" };
            line(format!("| {} | {verdict} | {} |", check.what, check.seen));
        }
        line("\n| memory, MiB | estimate | engine's buffers on cards |\n|---|---:|---:|".to_owned());
        let estimated = |of: fn(&MemoryEstimate) -> u64| {
            self.estimate.as_ref().map_or_else(|| "–".to_owned(), |e| format!("{:.2}", of(e) as f64 / MIB))
        };
        let loaded = &self.loaded;
        line(format!("| weights | {} | {:.2} |", estimated(|e| e.weights_bytes), on_cards(&loaded.weights)));
        line(format!("| keys and values | {} | {:.2} |", estimated(|e| e.kv_bytes), on_cards(&loaded.kv)));
        line(format!("| scratch | {} | {:.2} |", estimated(|e| e.compute_bytes), on_cards(&loaded.compute)));
        let process = self.process_bytes.map_or_else(
            || "The driver does not say what the process has in all.".to_owned(),
            |bytes| {
                format!(
                    "The process has {:.0} MiB in all, as the driver counts, CUDA's own part with it.",
                    bytes as f64 / MIB
                )
            },
        );
        line(format!("\n{process}"));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(log: &str) -> Seen {
        let mib = |n: u64| n << 20;
        let estimate = MemoryEstimate {
            weights_bytes: mib(3230),
            kv_bytes_per_slot: mib(896),
            kv_bytes: mib(896),
            compute_bytes: mib(310),
        };
        Seen {
            cards: Vec::new(),
            engine_version: "llamacpp-1-x".into(),
            model: "m".into(),
            prepare_s: 1.0,
            load_s: 2.0,
            text: "rain".into(),
            tokens: 20,
            decode_ms: 100,
            estimate: Some(estimate),
            loaded: Loaded::read(log),
            process_bytes: Some(mib(3600)),
        }
    }

    const GOOD: &str = "\
load_tensors: offloaded 29/29 layers to GPU
load_tensors:        CUDA0 model buffer size =  2918.35 MiB
llama_kv_cache:      CUDA0 KV buffer size =   896.00 MiB
sched_reserve:      CUDA0 compute buffer size =   304.00 MiB
";

    #[test]
    fn what_must_be_so_is_and_what_is_not_is_said() {
        let all = |log: &str| seen(log).checks().iter().map(|check| check.holds).collect::<Vec<_>>();
        assert_eq!(all(GOOD), [true; 5]);
        assert!(!all(&GOOD.replace("29/29", "28/29"))[0]);
        assert!(!all(&GOOD.replace("CUDA0", "CPU"))[1], "a silent CPU build");
        assert!(!all(&GOOD.replace("896.00", "950.00"))[3]);
        assert!(!all(&GOOD.replace("304.00", "900.00"))[4]);
        assert_eq!(all("")[..2], [false, false]);
        let text = seen(&GOOD.replace("29/29", "28/29")).markdown();
        assert!(text.contains("| **NO** | 28 of 29 |") && text.contains("(200.0 a second)"), "{text}");
        assert!(
            text.contains("| keys and values | 896.00 | 896.00 |") && text.contains("3600 MiB in all"),
            "{text}"
        );
    }
}
