//! What the engine says of its memory while it loads, read from its own log: nothing else knows where the
//! layers are.

use std::collections::BTreeMap;

/// Sizes in MiB by the name of the device, as `CUDA0`, `CUDA_Host` or `CPU_Mapped`.
pub(super) type Buffers = BTreeMap<String, f64>;

/// What was said.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Loaded {
    /// Layers on a device, and layers there are.
    pub(super) offloaded: Option<(u32, u32)>,
    pub(super) weights: Buffers,
    pub(super) kv: Buffers,
    pub(super) compute: Buffers,
}

impl Loaded {
    pub(super) fn read(log: &str) -> Self {
        let mut loaded = Self::default();
        for line in log.lines() {
            if let Some(layers) = offloaded(line) {
                loaded.offloaded = Some(layers);
            }
            let kinds = [
                (" model buffer size =", &mut loaded.weights),
                (" KV buffer size =", &mut loaded.kv),
                (" compute buffer size =", &mut loaded.compute),
            ];
            for (words, buffers) in kinds {
                if let Some((device, mib)) = buffer(line, words) {
                    *buffers.entry(device).or_default() += mib;
                }
            }
        }
        loaded
    }
}

/// The sum over what is on cards.
pub(super) fn on_cards(buffers: &Buffers) -> f64 {
    let cards = buffers.iter().filter(|(device, _)| is_card(device));
    // The sum of nothing is minus nothing.
    cards.fold(0.0, |sum, (_, mib)| sum + mib)
}

/// `CUDA0`; `CUDA_Host` is memory of the machine.
pub(super) fn is_card(device: &str) -> bool {
    let number = device.strip_prefix("CUDA").unwrap_or_default();
    !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}

/// `… load_tensors: offloaded 25/25 layers to GPU`.
fn offloaded(line: &str) -> Option<(u32, u32)> {
    let (_, rest) = line.split_once("offloaded ")?;
    let (layers, _) = rest.split_once(" layers to GPU")?;
    let (some, all) = layers.split_once('/')?;
    Some((some.parse().ok()?, all.parse().ok()?))
}

/// `… load_tensors:        CUDA0 model buffer size =  1918.35 MiB`.
fn buffer(line: &str, words: &str) -> Option<(String, f64)> {
    let (before, after) = line.split_once(words)?;
    let device = before.split_whitespace().last()?;
    Some((device.to_owned(), after.split_whitespace().next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the engine 0.3.36 on a processor.
    const CPU: &str = "\
0.00.005.910 I load_tensors:   CPU_Mapped model buffer size =     1.79 MiB
0.00.006.119 I llama_context:        CPU  output buffer size =     0.00 MiB
0.00.006.222 I llama_kv_cache:        CPU KV buffer size =     4.00 MiB
0.00.010.509 I sched_reserve:        CPU compute buffer size =     5.26 MiB
0.05.999.379 D ~llama_context:        CPU compute buffer size is   5.2617 MiB, matches expectation of   5.2617 MiB
";

    /// As the same engine's source writes them where there are two cards.
    const CARDS: &str = "\
0.01.000.000 I load_tensors: offloading output layer to GPU
0.01.000.001 I load_tensors: offloading 28 repeating layers to GPU
0.01.000.002 I load_tensors: offloaded 29/29 layers to GPU
0.01.000.003 I load_tensors:   CPU_Mapped model buffer size =   308.23 MiB
0.01.000.004 I load_tensors:        CUDA0 model buffer size =  1918.35 MiB
0.01.000.005 I load_tensors:        CUDA1 model buffer size =  1000.00 MiB
0.01.000.006 I llama_kv_cache:      CUDA0 KV buffer size =   448.00 MiB
0.01.000.007 I llama_kv_cache:      CUDA1 KV buffer size =   448.00 MiB
0.01.000.008 I sched_reserve:      CUDA0 compute buffer size =   304.00 MiB
0.01.000.009 I sched_reserve:  CUDA_Host compute buffer size =    14.01 MiB
";

    #[test]
    fn a_log_of_a_processor_has_nothing_on_a_card() {
        let loaded = Loaded::read(CPU);
        assert_eq!(loaded.offloaded, None);
        assert_eq!(loaded.weights, Buffers::from([("CPU_Mapped".to_owned(), 1.79)]));
        assert_eq!((loaded.kv["CPU"], loaded.compute["CPU"]), (4.0, 5.26));
        assert!(on_cards(&loaded.weights) == 0.0 && on_cards(&loaded.compute) == 0.0);
    }

    #[test]
    fn layers_and_buffers_on_cards_are_told_from_those_of_the_machine() {
        let loaded = Loaded::read(CARDS);
        assert_eq!(loaded.offloaded, Some((29, 29)));
        assert!((on_cards(&loaded.weights) - 2918.35).abs() < 0.001);
        assert!((on_cards(&loaded.kv) - 896.0).abs() < 0.001);
        assert!((on_cards(&loaded.compute) - 304.0).abs() < 0.001, "CUDA_Host is no card");
        assert_eq!(
            Loaded::read("offloaded some/all layers to GPU\nmodel buffer size = ?"),
            Loaded::default()
        );
    }
}
