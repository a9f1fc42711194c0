//! The load under which an instrumented orchestratord counts what it does: what it is there for, over both of
//! its APIs, from few streams to as many as it is to hold, and many short tasks. With one thread and with two,
//! because what carries several is another scheduler, which it has on machines of eight cores and more.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::streams::{self, Orchestratord, StubProcess};
use super::{Binaries, tasks};

const STREAMS: [u32; 4] = [16, 64, 1_024, 4_096];
const THREADS: [u32; 2] = [1, 2];
/// Files that orchestratord has open for each stream, its client's connection and its engine's, and besides. The
/// fake engine and the client have fewer.
const PER_STREAM: u64 = 2;
const OTHERS: u64 = 256;

/// What a line of progress says.
pub(crate) type Say<'a> = &'a mut dyn FnMut(&str) -> Result<()>;

/// Makes what the load needs beside the program that it is put on; before that is built, which takes minutes.
pub(crate) fn prepare() -> Result<()> {
    let most = STREAMS.iter().max().map_or(0, |most| u64::from(*most));
    let (may, needs) = (super::raise_descriptors()?, OTHERS + PER_STREAM * most);
    ensure!(
        may >= needs,
        "a process may have {may} files open here, and {needs} are needed for the load that is counted under; raise \
         the hard limit (`ulimit -Hn`)"
    );
    super::build(&["stub-llama"])
}

/// Puts the load on the program, which must be instrumented for it to be of use.
pub(crate) fn run(orchestratord: PathBuf, say: Say<'_>) -> Result<()> {
    let binaries = Binaries { orchestratord, ..super::release_binaries() };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting tokio")?;
    runtime.block_on(async {
        for (threads, count) in THREADS.iter().flat_map(|threads| STREAMS.map(|count| (*threads, count))) {
            let what = format!("{count} streams over /v1, then over /v2, threads: {threads}");
            say(&what)?;
            streams::train(&binaries, count, threads).await.context(what)?;
        }
        for threads in THREADS {
            say(&format!("one-token tasks, threads: {threads}"))?;
            let stub = StubProcess::start(&binaries.stub, tasks::CLIENTS, Duration::ZERO)?;
            let daemon = Orchestratord::start_with(&binaries.orchestratord, stub.addr(), Some(threads))?;
            tasks::load(daemon.addr()).await.context("one-token tasks")?;
            daemon.stop()?;
        }
        Ok(())
    })
}
