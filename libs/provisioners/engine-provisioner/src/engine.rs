//! Finding or making the binary: the cache first, then each source in order until one works.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use provisioners_model_provisioner::{Cancel, DigestError, sha256_file};
use wire::PoolId;
use wire::config::{ArchiveSource, EngineSource, ProvisioningConfig};

use crate::build::Build;
use crate::cuda::{managed, runtime};
use crate::error::{Attempt, EnsureError, SourceFailure};
use crate::gpu::Target;
use crate::helper::{Helper, HelperError, Tool};
use crate::host::Host;
use crate::key::{self, Compilers, Inputs};
use crate::manifest::{self, Manifest};
use crate::observer::Step;
use crate::preflight::Needs;
use crate::store::Store;
use crate::survey::Survey;
use crate::tools::{self, ToolsError};
use crate::{bundle, libraries, packages, preflight, recipe, sbom, source};

/// A binary, and what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Engine {
    pub(crate) binary: PathBuf,
    pub(crate) digest: String,
    pub(crate) version: String,
    /// As `-DNAME=VALUE`; none of an engine that was not built here.
    pub(crate) build_flags: Vec<String>,
    pub(crate) survey: Survey,
    /// Nothing had to be done.
    pub(crate) cached: bool,
}

/// A new engine that nobody has looked at yet.
pub(crate) struct Built {
    pub(crate) binary: PathBuf,
    pub(crate) tree: PathBuf,
    /// `None`: it was compiled by somebody else.
    pub(crate) tools: Option<tools::Tools>,
}

/// One search for an engine.
pub(crate) struct Search<'a> {
    pub(crate) host: &'a Host,
    pub(crate) cache: &'a std::path::Path,
    pub(crate) pool: &'a PoolId,
    pub(crate) config: &'a ProvisioningConfig,
    pub(crate) target: &'a Target,
    pub(crate) step: &'a Step<'a>,
    pub(crate) cancel: &'a Cancel,
    /// Use only what is here.
    pub(crate) offline: bool,
    /// What a compiler says of itself may be written down; a plan writes nothing.
    pub(crate) remembers: bool,
}

impl Search<'_> {
    pub(crate) fn run(&self) -> Result<Engine, EnsureError> {
        let (found, mut attempts) = self.existing()?;
        if let Some(engine) = found {
            return Ok(engine);
        }
        let mut buildable: Vec<_> =
            self.config.sources.iter().filter(|s| !matches!(s, EngineSource::Path(_))).collect();
        if self.offline {
            self.only_cached(&mut buildable, &mut attempts)?;
        }
        let mut checked = false;
        for source in buildable {
            // What somebody else built needs no compilers; they are asked for when it did not work.
            if source::compiles(source) && !std::mem::replace(&mut checked, true) {
                self.preflight()?;
            }
            match self.make(source, &attempts) {
                Ok(engine) => return Ok(engine),
                Err(failure) => self.failed(source, failure, &mut attempts)?,
            }
        }
        Err(EnsureError::NoSource { pool: self.pool.clone(), attempts })
    }

    /// What would stop a build, before a model of many gigabytes is fetched for it. Where something is there already,
    /// or is somebody else's build, nothing is asked.
    pub(crate) fn foresee(&self) -> Result<(), EnsureError> {
        let (store, compilers) = (Store::new(self.cache), self.compilers()?);
        for source in &self.config.sources {
            let there = match source {
                EngineSource::Path(path) => {
                    path.binary.exists() || bundle::stand_in(&store, path, self.host.cpu()).is_some()
                }
                _ => {
                    let inputs = self.inputs(source, &compilers)?;
                    store.find(&inputs.digest()).is_some()
                        || bundle::imported(&store, &inputs, self.host.cpu()).is_some()
                }
            };
            if there {
                return Ok(());
            }
        }
        let mut usable = self.config.sources.iter().filter(|source| {
            !matches!(source, EngineSource::Path(_))
                && (!self.offline || source::absent(source, self.cache).is_none())
        });
        match usable.next() {
            Some(first) if source::compiles(first) => self.preflight(),
            _ => Ok(()),
        }
    }

    /// Without a network only a source that is here can be built; all that are not are named at once,
    /// before anybody is told to install compilers.
    fn only_cached(
        &self,
        buildable: &mut Vec<&EngineSource>,
        attempts: &mut Vec<Attempt>,
    ) -> Result<(), EnsureError> {
        for source in std::mem::take(buildable) {
            match source::absent(source, self.cache) {
                None => buildable.push(source),
                Some(reason) => {
                    let reason = source::with_unfit(reason, source, self.cache, self.host.cpu());
                    self.failed(source, SourceFailure::fetch(reason), attempts)?;
                }
            }
        }
        Ok(())
    }

    fn failed(
        &self,
        source: &EngineSource,
        failure: SourceFailure,
        attempts: &mut Vec<Attempt>,
    ) -> Result<(), EnsureError> {
        match failure {
            SourceFailure::Stop(error) => Err(error),
            SourceFailure::Next(kind, reason) => {
                let attempt = Attempt { source: source::describe(source), kind, reason };
                tracing::warn!(pool = %self.pool, "{attempt}");
                attempts.push(attempt);
                Ok(())
            }
        }
    }

    /// The first source whose engine is there already. A source that failed before and a later one
    /// that was built then is the normal case behind a firewall; it must not cost a timeout each start.
    pub(crate) fn existing(&self) -> Result<(Option<Engine>, Vec<Attempt>), EnsureError> {
        let mut attempts = Vec::new();
        let compilers = self.compilers()?;
        let store = Store::new(self.cache);
        for source in &self.config.sources {
            let issued = if let EngineSource::Path(path) = source {
                match bundle::stand_in(&store, path, self.host.cpu()).filter(|_| !path.binary.exists()) {
                    Some(manifest) => self.issue(manifest, true),
                    None => self.check_path(path, &attempts),
                }
            } else {
                let inputs = self.inputs(source, &compilers)?;
                store.refuse_later(&inputs.digest())?;
                let own = store.find(&inputs.digest());
                let Some(manifest) = own.or_else(|| bundle::imported(&store, &inputs, self.host.cpu()))
                else {
                    continue;
                };
                self.issue(manifest, true)
            };
            match issued {
                Ok(engine) => return Ok((Some(engine), attempts)),
                Err(failure) => self.failed(source, failure, &mut attempts)?,
            }
        }
        Ok((None, attempts))
    }

    /// What the digest of this source's engine is computed from.
    pub(crate) fn inputs(&self, source: &EngineSource, compilers: &Compilers) -> Result<Inputs, EnsureError> {
        if !source::compiles(source) {
            return Ok(Inputs::prebuilt(source::identity(source)));
        }
        let definitions = recipe::definitions(&source::pin(source), self.target, &self.config.cmake_flags)
            .map_err(|problem| EnsureError::Config { pool: self.pool.clone(), problem })?;
        Ok(Inputs::new(source::identity(source), definitions, compilers.lines.clone(), self.host))
    }

    pub(crate) fn compilers(&self) -> Result<Compilers, EnsureError> {
        if !self.config.sources.iter().any(source::compiles) {
            return Ok(Compilers { lines: Vec::new(), cuda: None });
        }
        // Only a request to stop gets through; a compiler that does not answer is preflight's finding.
        key::compilers(self.host, self.target, self.cache, self.remembers, self.cancel)
            .map_err(|_| EnsureError::Cancelled)
    }

    pub(crate) fn preflight(&self) -> Result<(), EnsureError> {
        let mut report = self.report()?;
        let command = match self.config.allow_package_installs {
            true => packages::command(self.host, &report, packages::is_root()),
            false => None,
        };
        if let Some(command) = command {
            let failed = command.run(self.host, self.cache, self.step, self.cancel)?;
            report = self.report()?;
            // What is there now is there, whatever the package manager thinks of it.
            if !report.is_complete() {
                report.checks.extend(failed);
            }
        }
        match report.is_complete() {
            true => Ok(()),
            false => Err(EnsureError::Preflight { pool: self.pool.clone(), report }),
        }
    }

    /// What the build needs of this machine, and what of it is there.
    pub(crate) fn report(&self) -> Result<preflight::Report, EnsureError> {
        let compilers = self.compilers()?;
        let needs = Needs { config: self.config, target: self.target, compilers: &compilers };
        let found = preflight::look(self.host, self.cache, &needs, self.cancel);
        if self.cancel.is_cancelled() {
            return Err(EnsureError::Cancelled);
        }
        Ok(preflight::report(&found, &needs, self.host.distro(), self.cache))
    }

    fn make(&self, source: &EngineSource, attempts: &[Attempt]) -> Result<Engine, SourceFailure> {
        let store = Store::new(self.cache);
        let _materials = store.uses_materials(self.cancel)?;
        let compilers = self.compilers()?;
        let inputs = self.inputs(source, &compilers)?;
        let digest = inputs.digest();
        let on_wait = || self.step.doing("waiting for another process that builds the same engine");
        let lock = store.lock(&digest, &on_wait, self.cancel)?;
        // Whoever held the lock may just have built it; a damaged one is built anew.
        if let Some(Ok(engine)) = store.find(&digest).map(|manifest| self.issue(manifest, true)) {
            return Ok(engine);
        }
        let began = Instant::now();
        let Built { binary, tree, tools } = match source {
            EngineSource::Archive(ArchiveSource { binary: Some(path), .. }) => self.unpacked(source, path)?,
            _ => self.build(source, &compilers, &inputs)?,
        };
        self.step.doing("asking the new engine for its version and flags");
        let survey = self.survey(&binary)?;
        let manifest = Manifest {
            survey: Some(survey),
            licence: manifest::licence(&tree),
            ..self.manifest(source, attempts, &inputs, &binary, tools.as_ref(), began)?
        };
        let licences = if self.managed() { runtime::licences(self.cache) } else { Vec::new() };
        store.publish(&binary, &manifest, &sbom::cyclonedx(&manifest, &tree), &licences)?;
        // The engine is in place; objects that cannot be removed only cost room.
        let _ = std::fs::remove_dir_all(store.build_dir(&digest));
        let issued = self.issue(manifest, false);
        drop(lock);
        issued
    }

    /// Fetches and compiles, under the lock of the digest. The objects stay where they are.
    pub(crate) fn build(
        &self,
        source: &EngineSource,
        compilers: &Compilers,
        inputs: &Inputs,
    ) -> Result<Built, SourceFailure> {
        let fetch =
            source::Fetch { host: self.host, cache: self.cache, step: self.step, cancel: self.cancel };
        let tree = source::fetch(source, &fetch)?;
        let tools = self.tools()?;
        let dir = Store::new(self.cache).build_dir(&inputs.digest());
        std::fs::create_dir_all(&dir).map_err(SourceFailure::cache("create", &dir))?;
        let binary = Build {
            host: self.host,
            tools: &tools,
            tree: &tree,
            dir: &dir,
            definitions: &inputs.definitions,
            target: self.target,
            cuda: compilers.cuda.as_ref(),
            step: self.step,
            cancel: self.cancel,
        }
        .run()?;
        if self.managed() {
            let beside = SourceFailure::cache("put CUDA's libraries beside", &binary);
            runtime::lay_beside(&binary, self.cache).map_err(beside)?;
        }
        Ok(Built { binary, tree, tools: Some(tools) })
    }

    /// An archive of a built engine: there is nothing to compile.
    fn unpacked(&self, source: &EngineSource, path: &std::path::Path) -> Result<Built, SourceFailure> {
        let fetch =
            source::Fetch { host: self.host, cache: self.cache, step: self.step, cancel: self.cancel };
        let tree = source::fetch_tree(source, &fetch)?;
        let binary = tree.join(path);
        if !binary.is_file() {
            let problem = format!("there is no file {}; check `subdir` and `binary`", binary.display());
            return Err(SourceFailure::fetch(problem));
        }
        Ok(Built { binary, tree, tools: None })
    }

    /// CMake, Ninja and, for a card without a toolkit of this machine, the managed one.
    fn tools(&self) -> Result<tools::Tools, SourceFailure> {
        let failed = |what: &str| {
            let offline =
                format!("offline: {what} neither on this machine nor in the cache; run once with a network");
            move |error| match error {
                ToolsError::Ensure(error) => SourceFailure::Stop(error),
                ToolsError::Helper(error) => source::helper_failed(error),
                ToolsError::Offline => SourceFailure::fetch(offline),
            }
        };
        if self.managed() {
            managed::ensure(self.host, self.cache, self.step, self.offline, self.cancel)
                .map_err(failed("the CUDA toolkit is"))?;
        }
        tools::ensure(self.host, self.cache, self.step, self.offline, self.cancel)
            .map_err(failed("CMake and Ninja are"))
    }

    /// Whether it is built with the managed toolkit.
    fn managed(&self) -> bool {
        matches!(self.target, Target::Cuda { nvcc, .. } if managed::is_managed(self.cache, nvcc))
    }

    fn manifest(
        &self,
        source: &EngineSource,
        attempts: &[Attempt],
        inputs: &Inputs,
        binary: &std::path::Path,
        tools: Option<&tools::Tools>,
        began: Instant,
    ) -> Result<Manifest, SourceFailure> {
        let binary_sha256 = sha256_file(binary, &mut |_| (), self.cancel).map_err(|error| match error {
            DigestError::Cancelled { .. } => SourceFailure::Stop(EnsureError::Cancelled),
            DigestError::Read { path, source } => SourceFailure::cache("read", path)(source),
        })?;
        let binary_bytes = binary.metadata().map_err(SourceFailure::cache("read", binary))?.len();
        let ask = |tools: &tools::Tools| {
            Helper::new(self.host, Tool::Cmake, &tools.cmake, self.cancel)
                .args(["--version"])
                .run(&mut |_| ())
        };
        let version = tools.map(ask);
        if matches!(version, Some(Err(HelperError::Cancelled))) {
            return Err(EnsureError::Cancelled.into());
        }
        let libraries = match tools {
            Some(_) if !self.managed() => BTreeMap::new(),
            _ => libraries::beside(binary, self.cancel)?,
        };
        Ok(Manifest {
            schema_version: manifest::SCHEMA,
            engine_digest: inputs.digest(),
            source: source.clone(),
            attempts: attempts.to_vec(),
            inputs: serde_json::to_value(inputs).unwrap_or_default(),
            cmake: version
                .and_then(Result::ok)
                .and_then(|lines| lines.into_iter().next())
                .unwrap_or_default(),
            driver: self.host.nvidia_driver(),
            licence: None,
            external: None,
            binary_sha256,
            binary_bytes,
            libraries,
            built_unix_ms: manifest::now_unix_ms(),
            build_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            imported_unix_ms: None,
            survey: None,
        })
    }
}
