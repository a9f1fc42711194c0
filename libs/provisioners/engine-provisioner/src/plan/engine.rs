//! The engine's part of a plan: which source would be used, what is fetched and built, and what stops it.

use std::path::{Path, PathBuf};

use provisioners_model_provisioner::{Cancel, FetchError, announced_bytes};
use wire::StepKind;
use wire::config::{EngineSource, PoolConfig};

use super::{Plan, Silent, mib};
use crate::cuda::managed;
use crate::engine::Search;
use crate::error::EnsureError;
use crate::gpu::Target;
use crate::manifest::Manifest;
use crate::observer::Step;
use crate::provisioner::EngineProvisioner;
use crate::store::Store;
use crate::tools::{self, BuildTools, Builder, Choice};
use crate::{bundle, packages, preflight, source};

impl EngineProvisioner {
    /// Adds the steps, and what stops them. Returns what is known of the engine where it is built already.
    pub(super) fn engine_steps(
        &self,
        pool: &PoolConfig,
        target: &Target,
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
        let mut usable = 0;
        for source in &config.sources {
            let name = source::describe(source);
            if let EngineSource::Path(path) = source {
                let stands_in = bundle::stand_in(&Store::new(cache), path, host.cpu());
                if path.binary.is_file() {
                    plan.steps.push(format!("{name}: use it as it is"));
                    return Ok(None);
                } else if let Some(engine) = stands_in {
                    let dir = Store::new(cache).engine_dir(&engine.engine_digest);
                    plan.steps.push(format!("{name}: it came in a bundle, use {}", dir.display()));
                    return Ok(Some(engine));
                }
                plan.steps.push(format!("{name}: not there, go on"));
                continue;
            }
            let inputs = search.inputs(source, &compilers)?;
            let mut digest = inputs.digest();
            if let Some(imported) = bundle::imported(&Store::new(cache), &inputs, host.cpu()) {
                digest = imported.engine_digest;
            }
            if let Some(built) = Store::new(cache).find(&digest) {
                let (size, dir) = (mib(built.binary_bytes), Store::new(cache).engine_dir(&digest));
                plan.steps.push(format!("{name}: built before, use {} ({size})", dir.display()));
                return Ok(Some(built));
            }
            if let Some(reason) = source::absent(source, cache).filter(|_| offline) {
                plan.steps.push(format!("{name}: passed over, {reason}"));
                continue;
            }
            usable += 1;
            let build = if source::compiles(source) { "build" } else { "use what is in it" };
            plan.steps.push(format!(
                "{name}: fetch ({}), check against {}, {build} as {}, because nothing in the cache was built from the same",
                self.cost(source, cancel)?,
                source::pin(source),
                &digest[..12]
            ));
        }
        if usable == 0 && offline {
            plan.stopped(
                "offline: neither an engine nor the source of one is here; run once with a network"
                    .to_owned(),
            );
            return Ok(None);
        }
        if config.sources.iter().all(|source| matches!(source, EngineSource::Path(_))) {
            plan.stopped("none of the binaries is there".to_owned());
            return Ok(None);
        }
        if !config.sources.iter().any(source::compiles) {
            return Ok(None);
        }
        let tools = BuildTools::look(host, cache, cancel);
        plan.steps.push(tools_line(&tools));
        plan.steps.extend(toolkit_line(target, cache));
        if offline && matches!(tools.choice(), Choice::Install(None)) {
            plan.stopped("offline: CMake and Ninja are neither on this machine nor in the cache".to_owned());
        }
        if offline && toolkit_comes(target, cache) {
            plan.stopped("offline: the CUDA toolkit is neither on this machine nor in the cache".to_owned());
        }
        plan.steps.push(format!(
            "the build: up to {} of objects while it goes on, up to {} at once, as cores and free memory allow",
            mib(preflight::objects(target)),
            match host.jobs() {
                1 => "one compiler".to_owned(),
                jobs => format!("{jobs} compilers"),
            }
        ));
        self.stop(plan, config.allow_package_installs);
        Ok(None)
    }

    /// What fetching a source costs, as far as anybody says it before; only an archive's server is asked.
    fn cost(&self, source: &EngineSource, cancel: &Cancel) -> Result<String, EnsureError> {
        if let Some(known) = source::cost(source, &self.cache) {
            return Ok(known);
        }
        let EngineSource::Archive(archive) = source else {
            return Ok("whoever has it names no size before it is fetched".to_owned());
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

    /// What is missing stops it, but for what may be installed.
    fn stop(&self, plan: &mut Plan, may_install: bool) {
        let command = match may_install {
            true => packages::command(&self.host, &plan.preflight, packages::is_root()),
            false => None,
        };
        if let Some(command) = &command {
            plan.steps.push(format!("install what is missing, as the configuration allows: {command}"));
        }
        let installed = |check: &&preflight::Check| command.is_some() && check.has_packages();
        let left: Vec<_> = plan.preflight.missing().filter(|check| !installed(check)).collect();
        if !left.is_empty() {
            let names: Vec<_> = left.iter().map(|check| check.what.as_str()).collect();
            plan.stopped(format!("what is MISSING above: {}", names.join(", ")));
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
