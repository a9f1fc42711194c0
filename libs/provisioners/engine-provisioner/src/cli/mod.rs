//! The command line: parse, load the configuration, ensure or plan each pool, print.

mod bundle;
mod engines;
mod models;
mod progress;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use config_loader::Env;
use provisioners_engine_provisioner::{
    Cancel, EngineProvisioner, EnsureError, GcRules, Verdict, cancel_on_signal,
};
use wire::PoolId;
use wire::config::{Config, GpuPolicy, PoolConfig, TrustPolicy};

use progress::Progress;

#[derive(Parser)]
#[command(
    name = "engine-provisioner",
    version,
    about = "Fetches and builds llama.cpp, stages the model, prints what to launch"
)]
struct Cli {
    /// Configuration file; without it ORCHD_CONFIG, else the built-in default.
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    /// Only this pool.
    #[arg(long, global = true)]
    pool: Option<PoolId>,
    /// JSON lines, for programs: progress, notices and the error that ends it on stderr, results on stdout.
    #[arg(long, global = true)]
    json: bool,
    /// Use only what is in the cache and on this machine.
    #[arg(long, global = true)]
    offline: bool,
    /// Another GPU policy than the configuration's, for all pools: required, auto or off.
    #[arg(long, global = true, value_parser = gpu_policy)]
    gpu: Option<GpuPolicy>,
    #[command(subcommand)]
    command: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Print what this machine has and lacks, the steps with their sizes and reasons, and last what would stop a
    /// run; fetch, write and build nothing. Ends with the code that the run would end with, as far as that shows.
    Plan,
    /// The engines of the cache, the last used first.
    List,
    /// Read every engine of the cache again and compare it with what was recorded.
    Verify,
    /// Remove all engines but the last used, what nobody continued, and the sources and tools that no engine that
    /// stays was built with; never what runs or is being built.
    Gc {
        /// How many engines to keep.
        #[arg(long)]
        keep: usize,
        /// What was begun goes when nobody has continued it for so many days.
        #[arg(long, default_value_t = 7)]
        unfinished_days: u64,
        /// Say what would be removed and how much that is, and remove nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// The models of the cache.
    #[command(subcommand)]
    Models(models::ModelsVerb),
    /// An engine and its model in one verified file, for machines without any network.
    #[command(subcommand)]
    Bundle(bundle::BundleVerb),
}

/// The words are the configuration's.
fn gpu_policy(text: &str) -> Result<GpuPolicy, String> {
    serde_json::from_value(text.into()).map_err(|_| "must be required, auto or off".to_owned())
}

/// INTERFACES lists them.
const USAGE: u8 = 2;
const VERIFICATION: u8 = 7;

pub(crate) fn run(args: impl Iterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { USAGE } else { 0 };
        }
    };
    match carry_out(&cli) {
        Ok(code) => code,
        Err(Failure { message, code }) => {
            match cli.json {
                true => say(&serde_json::json!({ "error": message, "exit_code": code }).to_string()),
                false => say(&format!("engine-provisioner: {message}")),
            }
            code
        }
    }
}

struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// An error and its causes in one line.
    fn with_causes(error: &dyn std::error::Error, code: u8) -> Self {
        let causes = std::iter::successors(error.source(), |cause| cause.source());
        Self { message: causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}")), code }
    }
}

impl From<EnsureError> for Failure {
    fn from(error: EnsureError) -> Self {
        Self::with_causes(&error, error.exit_code())
    }
}

fn carry_out(cli: &Cli) -> Result<u8, Failure> {
    let usage = |message: String| Failure { message, code: USAGE };
    let env = Env::from_process().map_err(|e| usage(e.to_string()))?;
    let mut config =
        config_loader::load(cli.config.as_deref(), &env).map_err(|e| usage(e.to_string()))?.config;
    if config.require_gpu && cli.gpu.is_some_and(|gpu| gpu != GpuPolicy::Required) {
        return Err(usage("--gpu: the configuration has `require_gpu: true`".to_owned()));
    }
    for pool in &mut config.pools {
        pool.provisioning.gpu = cli.gpu.unwrap_or(pool.provisioning.gpu);
    }
    let cancel = Cancel::new();
    cancel_on_signal(&cancel).map_err(|e| usage(format!("cannot listen for signals: {e}")))?;
    let cache = &config.paths.cache;
    match &cli.command {
        Some(Verb::List) => Ok(engines::list(cache, cli.json)),
        Some(Verb::Verify) => Ok(engines::verify(cache, cli.json, &cancel)?),
        Some(Verb::Gc { keep, unfinished_days, dry_run }) => {
            let unfinished = Duration::from_secs(unfinished_days.saturating_mul(24 * 3600));
            Ok(engines::gc(cache, &GcRules { keep: *keep, unfinished, dry_run: *dry_run }, cli.json))
        }
        Some(Verb::Models(verb)) => models::run(verb, cache, &config.models, cli.json, &cancel),
        Some(Verb::Bundle(bundle::BundleVerb::Import { file, sha256 })) => {
            if config.models.trust == TrustPolicy::Strict && sha256.is_none() {
                let problem = "`models.trust: strict` takes in no bundle that nobody vouches for: say --sha256 \
                               with what `bundle export` printed";
                return Err(Failure { message: problem.to_owned(), code: VERIFICATION });
            }
            bundle::import(cache, file, sha256.as_deref(), cli.json, &cancel)
        }
        Some(Verb::Bundle(bundle::BundleVerb::Export { file })) => {
            let provisioner = provisioner(cli, &config, &env);
            match chosen(cli, &config.pools).map_err(usage)?.as_slice() {
                [pool] => bundle::export(&provisioner, pool, file, cli.json, &cancel),
                _ => {
                    Err(usage("a bundle has one engine and one model: name its pool with --pool".to_owned()))
                }
            }
        }
        Some(Verb::Plan) => {
            let pools = chosen(cli, &config.pools).map_err(usage)?;
            Ok(plan(&provisioner(cli, &config, &env), &pools, cli.json, &cancel)?)
        }
        None => {
            let provisioner = provisioner(cli, &config, &env);
            let pools = chosen(cli, &config.pools).map_err(usage)?;
            pools.into_iter().try_for_each(|pool| prepare(cli, &provisioner, pool, &cancel)).map(|()| 0)
        }
    }
}

fn provisioner(cli: &Cli, config: &Config, env: &Env) -> EngineProvisioner {
    EngineProvisioner::new(&config.paths.cache, env).with_model_rules(&config.models).offline(cli.offline)
}

/// Prints every pool's plan, then what would stop a run; ends as that run would.
fn plan(
    provisioner: &EngineProvisioner,
    pools: &[&PoolConfig],
    json: bool,
    cancel: &Cancel,
) -> Result<u8, EnsureError> {
    let mut plans = Vec::new();
    for pool in pools {
        let plan = provisioner.plan(pool, cancel)?;
        match json {
            true => print_json(&plan),
            false => print(&plan.to_string()),
        }
        plans.push(plan);
    }
    let verdict = Verdict::of(&plans);
    if !json {
        print(&verdict.to_string());
    }
    Ok(verdict.exit_code())
}

fn prepare(
    cli: &Cli,
    provisioner: &EngineProvisioner,
    pool: &PoolConfig,
    cancel: &Cancel,
) -> Result<(), Failure> {
    let prepared = provisioner.ensure_pool(pool, &Progress::new(cli.json), cancel)?;
    // One line per pool: its replicas differ in nothing but their name.
    prepared.first().into_iter().for_each(print_json);
    Ok(())
}

fn chosen<'a>(cli: &Cli, pools: &'a [PoolConfig]) -> Result<Vec<&'a PoolConfig>, String> {
    let Some(wanted) = &cli.pool else { return Ok(pools.iter().collect()) };
    let found = pools.iter().find(|pool| pool.id == *wanted);
    let known: Vec<_> = pools.iter().map(|pool| pool.id.as_str()).collect();
    let unknown =
        || format!("--pool {wanted}: there is no such pool; the configuration has: {}", known.join(", "));
    found.map(|pool| vec![pool]).ok_or_else(unknown)
}

fn print(text: &str) {
    // A closed pipe is the reader's choice.
    let _ = write!(std::io::stdout(), "{text}");
}

fn print_json(value: &impl serde::Serialize) {
    print(&format!("{}\n", serde_json::to_string(value).unwrap_or_default()));
}

/// Something that a person should know and that stops nothing.
fn notice(text: &str, json: bool) {
    match json {
        true => say(&serde_json::json!({ "notice": text }).to_string()),
        false => say(text),
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
