//! Runs the bars in two lanes: those that measure short times one after another, and beside them those
//! that mostly wait.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::Semaphore;

use crate::bars::{self, Bar, Lane};
use crate::load::{self, LoadWatch};
use crate::options::Options;
use crate::report::{Attempt, Report};
use crate::run::Run;

/// Bars that wait run so many at once.
const WAITING_AT_ONCE: usize = 4;

/// So often a time is measured again that was missed while the machine was overrun; each is reported.
const MEASURED_AGAIN: u32 = 2;

/// No bar takes longer, in full length either.
const LONGEST: Duration = Duration::from_secs(30 * 60);

pub(crate) fn run(options: &Options) -> ExitCode {
    match try_run(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(options: &Options) -> Result<bool> {
    // Built before any clock runs.
    test_harness_e2e_haiku::built_binary("orchestratord")?;
    let seed = options.seed.unwrap_or_else(drawn);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("a runtime")?;
    let asked = |bar: &Bar| options.ids.is_empty() || options.ids.iter().any(|id| id == bar.id);
    let chosen: Vec<Bar> = bars::all().into_iter().filter(asked).collect();
    let plan = Plan { runs: options.runs, full: options.full, seed };
    let began = Instant::now();
    let attempts = runtime.block_on(all(chosen.clone(), plan));
    let report = Report { bars: chosen, attempts, seed, full: options.full, took: began.elapsed() };
    println!("{}", report.table());
    for failure in report.failures() {
        println!("{failure}");
    }
    println!("proof bundle: {}", report.keep()?.display());
    Ok(report.held())
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    runs: u32,
    full: bool,
    seed: u64,
}

/// Attempts by bar.
type Attempts = BTreeMap<&'static str, Vec<Attempt>>;

async fn all(bars: Vec<Bar>, plan: Plan) -> Attempts {
    let attempts = Arc::new(Mutex::new(Attempts::new()));
    let (quick, waiting): (Vec<Bar>, Vec<Bar>) = bars.into_iter().partition(|bar| bar.lane == Lane::Quick);
    let places = Arc::new(Semaphore::new(WAITING_AT_ONCE));
    let mut beside = tokio::task::JoinSet::new();
    for bar in waiting {
        let (attempts, places) = (Arc::clone(&attempts), Arc::clone(&places));
        beside.spawn(async move {
            let _place = places.acquire_owned().await;
            repeat(bar, plan, &attempts).await;
        });
    }
    for bar in quick {
        repeat(bar, plan, &attempts).await;
    }
    while beside.join_next().await.is_some() {}
    let mut attempts = attempts.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *attempts)
}

async fn repeat(bar: Bar, plan: Plan, attempts: &Mutex<Attempts>) {
    for number in 0..plan.runs {
        // Its own chances, whichever bars run beside it.
        let own = bar.id.bytes().fold(u64::from(number), |sum, byte| sum.wrapping_mul(31) + u64::from(byte));
        let seed = plan.seed ^ own.rotate_left(32);
        let mut attempt = one(&bar, plan.full, seed).await;
        for _ in 0..MEASURED_AGAIN {
            if !attempt.missed_only_times() || !attempt.load.was_heavy() {
                break;
            }
            eprintln!("{}", attempt.line(&bar));
            let first = attempt;
            load::calmer().await;
            attempt = one(&bar, plan.full, seed).await;
            attempt.before = Some(Box::new(first));
        }
        eprintln!("{}", attempt.line(&bar));
        attempts.lock().unwrap_or_else(PoisonError::into_inner).entry(bar.id).or_default().push(attempt);
    }
}

async fn one(bar: &Bar, full: bool, seed: u64) -> Attempt {
    let run = Arc::new(Run::new(full, seed));
    let (watch, began) = (LoadWatch::begin(), Instant::now());
    // A task of its own: a bar that panics is a bar that failed.
    let task = tokio::spawn((bar.run)(Arc::clone(&run)));
    let abort = task.abort_handle();
    let ended = tokio::time::timeout(LONGEST, task).await;
    let error = match ended {
        Ok(Ok(Ok(()))) => None,
        Ok(Ok(Err(error))) => Some(format!("{error:#}")),
        Ok(Err(panic)) => Some(format!("{panic}")),
        Err(_) => {
            abort.abort();
            Some(format!("it did not end within {LONGEST:?}"))
        }
    };
    let load = watch.end();
    let measures = run.measures();
    let failed = error.is_some() || measures.iter().any(|measure| !measure.held());
    let logs = if failed { run.logs() } else { String::new() };
    run.clean_up();
    Attempt { seed, measures, error, load, took: began.elapsed(), logs, before: None }
}

/// What a soak run drew for this round, else always the same: a run that failed fails again.
fn drawn() -> u64 {
    std::env::var("PROPTEST_RNG_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}
