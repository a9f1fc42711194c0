//! Which engine from a bundle serves here: one of the same source and definitions, or of the same path where
//! there is no such file, on a processor with every instruction set that it may use.

use wire::config::{EngineSource, PathSource};

use crate::key::Inputs;
use crate::manifest::Manifest;
use crate::source;
use crate::store::Store;

/// An engine from a bundle that was built from the same, and that this processor can run.
pub(crate) fn imported(store: &Store, wanted: &Inputs, cpu: &str) -> Option<Manifest> {
    from_bundles(store)
        .find(|(_, built)| same(built, wanted) && runs_on(&built.target, &wanted.target, cpu))
        .map(first)
}

/// An engine from a bundle that was the binary at this path on another machine.
pub(crate) fn stand_in(store: &Store, path: &PathSource, cpu: &str) -> Option<Manifest> {
    let there = source::identity(&EngineSource::Path(path.clone()));
    let fitting =
        from_bundles(store).filter(|(_, built)| built.source == there && runs_on(&built.target, cpu, cpu));
    // Of several that were there one after the other, the one that came last.
    fitting.map(first).max_by_key(|manifest| manifest.imported_unix_ms)
}

/// Why no engine from a bundle serves although one of this source is there; for people.
pub(crate) fn unfit(store: &Store, source: &EngineSource, cpu: &str) -> Option<String> {
    let wanted = source::identity(source);
    let mut lacks = from_bundles(store)
        .filter(|(_, built)| built.source == wanted)
        .map(|(manifest, built)| (manifest.version(), lacking(&built.target, cpu)));
    let (version, lacks) = lacks.find(|(_, lacks)| !lacks.is_empty())?;
    Some(format!("{version} came in a bundle and {}", needs(&lacks)))
}

/// As `may use what this processor has not (avx512f); …`.
pub(super) fn needs(lacks: &[String]) -> String {
    format!(
        "may use what this processor has not ({}): pack one that was built with `cmake_flags: [-DGGML_NATIVE=OFF]`, \
         or on a processor like this one",
        lacks.join(", ")
    )
}

fn first((manifest, _): (Manifest, Inputs)) -> Manifest {
    manifest
}

fn from_bundles(store: &Store) -> impl Iterator<Item = (Manifest, Inputs)> {
    let found = store.digests().into_iter().filter_map(|digest| store.find(&digest));
    found.filter(|manifest| manifest.imported_unix_ms.is_some()).filter_map(|manifest| {
        let built = serde_json::from_value(manifest.inputs.clone()).ok()?;
        Some((manifest, built))
    })
}

fn same(built: &Inputs, wanted: &Inputs) -> bool {
    built.recipe == wanted.recipe && built.source == wanted.source && built.definitions == wanted.definitions
}

/// Whether what was built for the processor `built` (architecture, then its lines) runs on `cpu`: it needs
/// every instruction set that the compiler saw.
fn runs_on(built: &str, wanted: &str, cpu: &str) -> bool {
    built == wanted || architecture(built) == architecture(cpu) && lacking(built, cpu).is_empty()
}

/// What compilers use of an x86 processor, by the beginning of its name. The others of `/proc/cpuinfo` are the
/// kernel's and the hypervisor's business, and differ between processors that run the same programs.
const USED_BY_COMPILERS: [&str; 24] = [
    "sse", "ssse", "pni", "avx", "fma", "f16c", "bmi", "abm", "lzcnt", "popcnt", "movbe", "movdir", "aes",
    "pclmul", "vaes", "vpclmul", "gfni", "sha", "amx", "adx", "cx16", "lahf", "xop", "apx",
];

/// The instruction sets that a program which was built for the processor `built` may use and `cpu` has not.
pub(super) fn lacking(built: &str, cpu: &str) -> Vec<String> {
    let lines = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.starts_with("flags") || line.starts_with("Features"));
        lines.flat_map(|line| line.split_whitespace().skip(2)).map(str::to_owned).collect()
    };
    let (x86, have) = (architecture(built) == "x86_64", lines(cpu));
    let used = |set: &String| !x86 || USED_BY_COMPILERS.iter().any(|begin| set.starts_with(begin));
    lines(built).into_iter().filter(|set| used(set) && !have.contains(set)).collect()
}

fn architecture(target: &str) -> &str {
    target.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(flags: &str) -> String {
        format!("x86_64\nmodel name : Some CPU\nflags : {flags}")
    }

    /// EPROV-025
    #[test]
    fn an_engine_runs_where_every_instruction_set_is_that_its_compiler_saw() {
        let (small, large) = (cpu("sse avx2"), cpu("avx512f avx2 sse"));
        assert!(runs_on(&small, &large, &large) && runs_on(&small, &small, &small));
        assert!(!runs_on(&large, &small, &small), "no avx512f there");
        assert!(!runs_on("aarch64\nFeatures : fp", &small, &small));
        assert!(runs_on("x86_64", "x86_64", &small), "not built for one processor");
        assert_eq!(lacking(&large, &small), ["avx512f"]);
    }

    /// EPROV-025
    #[test]
    fn what_no_compiler_uses_keeps_no_engine_from_running() {
        let (here, there) = (cpu("sse avx2 svm constant_tsc ibpb"), cpu("sse avx2 vmx md_clear hypervisor"));
        assert!(runs_on(&here, &there, &there) && runs_on(&there, &here, &here));
        assert!(
            !runs_on("aarch64\nFeatures : fp sve", "aarch64", "aarch64\nFeatures : fp"),
            "all of arm's count"
        );
    }
}
