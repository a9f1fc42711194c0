//! The engine's part of a plan: which source would be used, what is fetched and built, and what stops it.

use std::path::{Path, PathBuf};

use provisioners_model_provisioner::{Cancel, FetchError, announced_bytes};
use wire::StepKind;
use wire::config::{EngineSource, PoolConfig};

use super::{Plan, Silent, mib, unwritable};
use crate::cuda::managed;
use crate::engine::Search;
use crate::error::{Attempt, EnsureError, FailureKind, SourceFailure};
use crate::gpu::Target;
use crate::issue::executable;
use crate::key::Compilers;
use crate::manifest::Manifest;
use crate::observer::Step;
use crate::provisioner::EngineProvisioner;
use crate::store::Store;
use crate::tools::{self, BuildTools, Builder, Choice};
use crate::{bundle, packages, preflight, source};

impl EngineProvisioner {
    /// Adds the steps, and what stops them, what preflight misses at the place of `missing`. Returns what is known of
    /// the engine where it is built already.
    pub(super) fn engine_steps(
        &self,
        pool: &PoolConfig,
        target: &Target,
        missing: usize,
        plan: &mut Plan,
        cancel: &Cancel,
    ) -> Result<Option<Manifest>, EnsureError> {
        let step = Step::new(&Silent, &pool.id, StepKind::EngineProvision);
        let config = &pool.provisioning;
        let (host, cache, pool) = (&self.host, self.cache.as_path(), &pool.id);
        let (offline, remembers) = (self.offline, false);
        let search = Search { host, cache, pool, config, target, step: &step, cancel, offline, remembers };
        let compilers = search.compilers()?;
        if config.sources.iter().any(source::compiles) {
            plan.preflight = search.report()?;
        }
        if let Some((step, engine)) = self.there(&search, &compilers, plan)? {
            plan.steps.push(step);
            return Ok(engine);
        }
        let (mut usable, mut failing) = (Vec::new(), Vec::new());
        for source in &config.sources {
            let name = source::describe(source);
            if let Some(reason) = self.of_no_use(source) {
                plan.steps.push(format!("{name}: passed over, {reason}"));
                failing.push(Attempt { source: name, kind: FailureKind::Fetch, reason });
                continue;
            }
            let Ok(inputs) = search.inputs(source, &compilers) else { continue };
            usable.push(source);
            let build = if source::compiles(source) { "build" } else { "use what is in it" };
            plan.steps.push(format!(
                "{name}: fetch ({}), check against {}, {build} as {}, because nothing in the cache was built from the same",
                self.cost(source, cancel)?,
                source::pin(source),
                &inputs.digest()[..12]
            ));
        }
        match usable.first() {
            None if failing.is_empty() => {}
            None => plan.stopped(&EnsureError::NoSource { pool: pool.clone(), attempts: failing }),
            Some(first) => {
                if let Some(source) = unwritable(cache) {
                    plan.stopped(&EnsureError::Cache {
                        action: "write in",
                        path: cache.to_path_buf(),
                        source,
                    });
                }
                let missing = source::compiles(first).then_some(missing);
                self.build_steps(&search, missing, &usable, plan);
            }
        }
        Ok(None)
    }

    /// The engine that would be used as it is, and what is known of it where it is one of the store's.
    fn there(
        &self,
        search: &Search<'_>,
        compilers: &Compilers,
        plan: &mut Plan,
    ) -> Result<Option<(String, Option<Manifest>)>, EnsureError> {
        let (store, cpu) = (Store::new(&self.cache), self.host.cpu());
        for source in &search.config.sources {
            let name = source::describe(source);
            if let EngineSource::Path(path) = source {
                if path.binary.exists() {
                    if executable(path).is_ok() {
                        return Ok(Some((format!("{name}: use it as it is"), None)));
                    }
                } else if let Some(engine) = bundle::stand_in(&store, path, cpu) {
                    let dir = store.engine_dir(&engine.engine_digest);
                    let step = format!("{name}: it came in a bundle, use {}", dir.display());
                    return Ok(Some((step, Some(engine))));
                }
                continue;
            }
            let inputs = match search.inputs(source, compilers) {
                Ok(inputs) => inputs,
                Err(error @ EnsureError::Config { .. }) => {
                    plan.stopped(&error);
                    continue;
                }
                Err(other) => return Err(other),
            };
            let mut digest = inputs.digest();
            if let Err(later) = store.refuse_later(&digest) {
                plan.stopped(&later);
                continue;
            }
            if let Some(imported) = bundle::imported(&store, &inputs, cpu) {
                digest = imported.engine_digest;
            }
            if let Some(built) = store.find(&digest) {
                let (size, dir) = (mib(built.binary_bytes), store.engine_dir(&digest));
                let step = format!("{name}: built before, use {} ({size})", dir.display());
                return Ok(Some((step, Some(built))));
            }
        }
        Ok(None)
    }

    /// Why a source cannot give an engine, where that shows without asking anybody.
    fn of_no_use(&self, source: &EngineSource) -> Option<String> {
        let (cache, cpu) = (self.cache.as_path(), self.host.cpu());
        if let EngineSource::Path(path) = source {
            let reason = match executable(path) {
                Err(SourceFailure::Next(_, reason)) => reason,
                _ => "it cannot be used".to_owned(),
            };
            return Some(source::with_unfit(reason, source, cache, cpu));
        }
        let offline = source::absent(source, cache).filter(|_| self.offline);
        let offline = offline.map(|reason| source::with_unfit(reason, source, cache, cpu));
        offline.or_else(|| source::gone(source, cache))
    }

    /// What compiles, with what, and what of it is missing, which is put at `missing` among what stops it; nowhere
    /// where something that somebody else built comes first: that matters only if it does not work.
    fn build_steps(
        &self,
        search: &Search<'_>,
        missing: Option<usize>,
        usable: &[&EngineSource],
        plan: &mut Plan,
    ) {
        let (host, cache, target) = (search.host, search.cache, search.target);
        if !usable.iter().any(|source| source::compiles(source)) {
            return;
        }
        let tools = BuildTools::look(host, cache, search.cancel);
        plan.steps.push(tools_line(&tools));
        plan.steps.extend(toolkit_line(target, cache));
        plan.steps.push(format!(
            "the build: up to {} of objects while it goes on, up to {} at once, as cores and free memory allow",
            mib(preflight::objects(target)),
            match host.jobs() {
                1 => "one compiler".to_owned(),
                jobs => format!("{jobs} compilers"),
            }
        ));
        let may_install = search.config.allow_package_installs;
        let command =
            may_install.then(|| packages::command(host, &plan.preflight, packages::is_root())).flatten();
        if let Some(command) = &command {
            plan.steps.push(format!("install what is missing, as the configuration allows: {command}"));
        }
        let Some(missing) = missing else { return };
        plan.missing(missing, |check| command.is_none() || !check.has_packages());
        let absent = [
            (matches!(tools.choice(), Choice::Install(None)), "CMake and Ninja are"),
            (toolkit_comes(target, cache), "the CUDA toolkit is"),
        ];
        for (_, what) in absent.iter().filter(|(absent, _)| *absent && search.offline) {
            let reason =
                format!("offline: {what} neither on this machine nor in the cache; run once with a network");
            let attempt = |source: &&EngineSource| Attempt {
                source: source::describe(source),
                kind: FailureKind::Fetch,
                reason: reason.clone(),
            };
            let attempts = usable.iter().map(attempt).collect();
            plan.stopped(&EnsureError::NoSource { pool: search.pool.clone(), attempts });
        }
    }

    /// What fetching a source costs, as far as anybody says it before; only an archive's server is asked.
    fn cost(&self, source: &EngineSource, cancel: &Cancel) -> Result<String, EnsureError> {
        if let Some(known) = source::cost(source, &self.cache) {
            return Ok(known);
        }
        let EngineSource::Archive(archive) = source else {
            return Ok(format!(
                "its size is unknown until it is fetched; the disk check allows {} MiB for it",
                source::room(source, &self.cache) >> 20
            ));
        };
        match announced_bytes(&archive.url, cancel) {
            Ok(Some(bytes)) => Ok(format!("{} to fetch", mib(bytes))),
            Ok(None) => Ok("its source does not say how large it is".to_owned()),
            Err(FetchError::Cancelled) => Err(EnsureError::Cancelled),
            Err(FetchError::Unreachable { problem, .. }) => {
                Ok(format!("its size is unknown, because its source does not answer: {problem}"))
            }
            Err(refusal) => Ok(format!("its size is unknown: {refusal}")),
        }
    }
}

/// Whether the managed toolkit is needed and not there.
fn toolkit_comes(target: &Target, cache: &Path) -> bool {
    matches!(target, Target::Cuda { nvcc, .. } if managed::is_managed(cache, nvcc) && !managed::installed(cache))
}

fn toolkit_line(target: &Target, cache: &Path) -> Option<String> {
    let Target::Cuda { nvcc, .. } = target else { return None };
    let version = managed::VERSION;
    match (managed::is_managed(cache, nvcc), managed::installed(cache)) {
        (false, _) => None,
        (true, true) => Some(format!("CUDA toolkit {version}: the one in the cache")),
        (true, false) => Some(format!(
            "CUDA toolkit {version}: none on this machine, install it into the cache with pip ({} MiB to fetch)",
            managed::DOWNLOAD_MIB
        )),
    }
}

fn tools_line(tools: &BuildTools) -> String {
    let first = "the first source that works is used; it is built with";
    match tools.choice() {
        Choice::Ready(chosen) => {
            format!("{first} {} and {}", chosen.cmake.display(), chosen.builder.program().display())
        }
        Choice::Install(instead) => {
            let make = instead.and_then(|tools| match tools.builder {
                Builder::Make(path) => Some(path),
                Builder::Ninja(_) => None,
            });
            let else_make = |path: PathBuf| format!("; {} where pip cannot", path.display());
            format!(
                "{first} CMake {} and Ninja {}, which pip installs into the cache ({} MiB to fetch, {} MiB there){}",
                tools::CMAKE,
                tools::NINJA,
                tools::DOWNLOAD_MIB,
                tools::DISK_MIB,
                make.map_or_else(String::new, else_make)
            )
        }
    }
}
