//! Configure and build with CMake and what it drives, Ninja or make. Objects stay when a build is interrupted or fails, so the
//! next attempt continues.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use provisioners_model_provisioner::Cancel;

use crate::cuda::fit;
use crate::error::{EnsureError, FailureKind, SourceFailure};
use crate::gpu::Target;
use crate::helper::{self, Helper, HelperError, Tool};
use crate::host::Host;
use crate::key::Cuda;
use crate::observer::Step;
use crate::tools::Tools;

pub(crate) struct Build<'a> {
    pub(crate) host: &'a Host,
    pub(crate) tools: &'a Tools,
    /// The directory with CMakeLists.txt.
    pub(crate) tree: &'a Path,
    /// Objects and logs.
    pub(crate) dir: &'a Path,
    pub(crate) definitions: &'a BTreeMap<String, String>,
    pub(crate) target: &'a Target,
    /// For a CUDA build: which compiler nvcc uses.
    pub(crate) cuda: Option<&'a Cuda>,
    pub(crate) step: &'a Step<'a>,
    pub(crate) cancel: &'a Cancel,
}

impl Build<'_> {
    /// Returns the path of the built binary.
    pub(crate) fn run(&self) -> Result<PathBuf, SourceFailure> {
        helper::end_leftovers(self.dir);
        self.step.doing("configuring llama-server");
        let objects = self.dir.join(self.tools.builder.directory());
        self.cmake("configure.log").args(self.configure_args(&objects)).run(&mut |_| ()).map_err(failed)?;
        let jobs = self.host.jobs();
        self.step.doing(format!("building llama-server with {jobs} jobs"));
        let began = Instant::now();
        let mut on_line = |line: &str| {
            if let Some((done, total)) = progress(line) {
                let percent = done * 100 / total;
                let minutes = began.elapsed().as_secs() / 60;
                let text = || {
                    format!("building llama-server: {percent} % ({done} of {total}), {minutes} min so far")
                };
                self.step.progress(text, done, total);
            }
        };
        self.cmake("build.log")
            .env("NINJA_STATUS", "[%f/%t] ")
            .args([Path::new("--build"), &objects])
            .args(["--target", "llama-server", "-j", &jobs.to_string()])
            .run(&mut on_line)
            .map_err(failed)?;
        let binary = objects.join("bin/llama-server");
        if binary.is_file() {
            return Ok(binary);
        }
        let reason = format!("the build succeeded but left no {}", binary.display());
        Err(SourceFailure::Next(FailureKind::Build, reason))
    }

    fn configure_args(&self, objects: &Path) -> Vec<std::ffi::OsString> {
        let builder = &self.tools.builder;
        let generator = builder.generator().into();
        let mut args: Vec<std::ffi::OsString> =
            vec!["-S".into(), self.tree.into(), "-B".into(), objects.into(), "-G".into(), generator];
        args.push(format!("-DCMAKE_MAKE_PROGRAM={}", builder.program().display()).into());
        if let Target::Cuda { nvcc, .. } = self.target {
            args.push(format!("-DCMAKE_CUDA_COMPILER={}", nvcc.display()).into());
        }
        if let Some((name, path)) = self.cuda.and_then(|cuda| fit::definition(&cuda.host_compiler)) {
            args.push(format!("-D{name}={}", path.display()).into());
        }
        // Not part of the digest: what comes out is the same.
        if let Some(ccache) = self.host.find("ccache") {
            let languages: &[&str] = match self.target {
                Target::Cpu => &["C", "CXX"],
                Target::Cuda { .. } => &["C", "CXX", "CUDA"],
            };
            let launcher = |language| format!("-DCMAKE_{language}_COMPILER_LAUNCHER={}", ccache.display());
            args.extend(languages.iter().map(|language| launcher(language).into()));
        }
        args.extend(self.definitions.iter().map(|(name, value)| format!("-D{name}={value}").into()));
        args
    }

    fn cmake(&self, log: &str) -> Helper<'_> {
        Helper::new(self.host, Tool::Cmake, &self.tools.cmake, self.cancel)
            .builds_in(self.dir)
            .log(&self.dir.join(log))
    }
}

fn failed(error: HelperError) -> SourceFailure {
    match error {
        HelperError::Cancelled => EnsureError::Cancelled.into(),
        other => SourceFailure::Next(FailureKind::Build, other.to_string()),
    }
}

/// `[12/206] …`, as Ninja prints when it is not on a terminal, or `[ 12%] Building …` of make.
fn progress(line: &str) -> Option<(u64, u64)> {
    let (inner, rest) = line.strip_prefix('[')?.split_once(']')?;
    let (done, total) = match inner.strip_suffix('%') {
        Some(percent) if rest.starts_with(" Building") || rest.starts_with(" Linking") => (percent, "100"),
        Some(_) => return None,
        None => inner.split_once('/')?,
    };
    let (done, total) = (done.trim().parse().ok()?, total.trim().parse().ok()?);
    (total > 0 && done <= total).then_some((done, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_ninja_and_make_are_progress_and_others_are_not() {
        assert_eq!(progress("[12/206] Building CXX object x.o"), Some((12, 206)));
        assert_eq!(progress("[  7%] Building CXX object x.o"), Some((7, 100)));
        assert_eq!(progress("[100%] Linking CXX executable bin/llama-server"), Some((100, 100)));
        for other in
            ["[7/0] x", "[9/8] x", "[a/b]", "-- Found", "[ 55%] Built target ggml", "[101%] Building"]
        {
            assert_eq!(progress(other), None, "{other}");
        }
    }
}
