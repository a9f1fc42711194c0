//! The stub as a program, in place of `llama-server`.
#![forbid(unsafe_code)]

use std::future::pending;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

use stub_llama::{Role, StubConfig, serve};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// What a provisioner plans or a test's pool may ask for; like the real one's, in `--help`.
const FLAGS: [&str; 28] = [
    "-m,    --model FNAME",
    "-c,    --ctx-size N",
    "-np,   --parallel N",
    "-a,    --alias STRING",
    "-cb,   --cont-batching, -nocb, --no-cont-batching",
    "--host HOST",
    "--port PORT",
    "--api-key KEY",
    "--api-key-file FNAME",
    "--webui, --no-webui",
    "--metrics",
    "--slots, --no-slots",
    "--offline",
    "-fit,  --fit [on|off]",
    "-ngl,  --gpu-layers, --n-gpu-layers N",
    "-t,    --threads N",
    "-tb,   --threads-batch N",
    "-b,    --batch-size N",
    "-ub,   --ubatch-size N",
    "-fa,   --flash-attn [on|off|auto]",
    "-s,    --seed SEED",
    "-n,    --predict, --n-predict N",
    "--embedding, --embeddings",
    "--rerank, --reranking",
    "--pooling {none,mean,cls,last,rank}",
    "--mlock",
    "-sm,   --split-mode {none,layer,row}",
    "-ts,   --tensor-split N0,N1",
];

#[tokio::main]
async fn main() -> ExitCode {
    let config = match StubConfig::parse(std::env::args().skip(1), std::env::vars()) {
        Ok(config) => config,
        Err(error) => return fail(&format!("error: {error}")),
    };
    if config.version {
        say("version: 0 (stub)");
        return ExitCode::SUCCESS;
    }
    if config.help {
        FLAGS.iter().for_each(|flag| say(&format!("{flag:<40}  as the real one has it")));
        return ExitCode::SUCCESS;
    }
    if config.list_devices {
        let cards = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
        let cards = cards.split(',').filter(|card| !card.is_empty()).enumerate();
        cards.for_each(|(at, card)| say(&format!("  CUDA{at}: a card of the test's ({card})")));
        return ExitCode::SUCCESS;
    }
    if let Some(line) = &config.faults.say {
        say(line);
    }
    if !config.faults.spew.is_zero() {
        tokio::spawn(spew(config.faults.spew));
    }
    match run(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("main: exiting due to HTTP server error: {error}")),
    }
}

async fn run(config: StubConfig) -> io::Result<()> {
    let faults = config.faults.clone();
    // Held, not waited for: what a careless engine leaves behind.
    let _grandchild = faults.grandchild.then(|| Command::new("sleep").arg("3600").spawn()).transpose()?;
    if faults.ignore_term {
        // A handler that does nothing.
        let _ = signal(SignalKind::terminate())?;
    }
    if faults.no_bind {
        return pending().await;
    }
    if faults.port_steal {
        let _thief = steal_port()?;
        return pending().await;
    }
    let listener = TcpListener::bind(SocketAddr::new(config.host, config.port)).await?;
    say(&format!("main: HTTP server is listening on http://{}", listener.local_addr()?));
    let (loaded, is_loaded) = oneshot::channel();
    // Nobody is there to hear it only when the process is going down.
    let on_loaded = || loaded.send(()).unwrap_or_default();
    tokio::select! {
        served = serve(listener, config, Role::Process, on_loaded) => return served,
        ended = terminated(is_loaded, faults.ignore_term) => ended?,
    }
    // The listener went with the future that served.
    if faults.linger { pending().await } else { Ok(()) }
}

/// As in the real server, there is no handler until the model is loaded: SIGTERM kills until then.
async fn terminated(is_loaded: oneshot::Receiver<()>, ignored: bool) -> io::Result<()> {
    if is_loaded.await.is_err() {
        return pending().await;
    }
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    say("main: model loaded");
    if ignored {
        return pending().await;
    }
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    say("cleaning up before exit...");
    Ok(())
}

/// Counts its lines, so that each can be told from every other.
async fn spew(pause: Duration) {
    let mut ticks = tokio::time::interval(pause);
    for line in 0_u64.. {
        ticks.tick().await;
        say(&format!("spew {} {line} {}", std::process::id(), "x".repeat(4096)));
    }
}

/// The same command line in another process, which binds the port that this one was given.
fn steal_port() -> io::Result<Child> {
    let arguments = std::env::args().skip(1).filter(|argument| argument != "--stub-port-steal");
    Command::new(std::env::current_exe()?)
        .args(arguments)
        .arg("--stub-port-steal=0")
        .env_remove("STUB_PORT_STEAL")
        .spawn()
}

fn fail(line: &str) -> ExitCode {
    say(line);
    ExitCode::FAILURE
}

fn say(line: &str) {
    // The log may be gone; the engine goes on.
    let _ = writeln!(io::stderr(), "{line}");
}
