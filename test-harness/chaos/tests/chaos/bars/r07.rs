//! R7: handoffs that are broken, hostile or somebody else's.

use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::house::House;
use crate::run::{Run, reached};

/// How a file is spoilt.
type Spoil = fn(&Path, &str) -> Result<()>;

const SPOILT: [(&str, Spoil); 9] = [
    ("half", |file, good| in_place(file, &good[..good.len() / 2])),
    ("empty", |file, _| in_place(file, "")),
    ("corrupt", |file, _| in_place(file, "{\"url\": 7, \u{0}}")),
    ("huge", |file, good| in_place(file, &format!("{good}{}", " ".repeat(70_000)))),
    ("symlinked", |file, good| {
        let target = file.with_extension("elsewhere");
        in_place(&target, good)?;
        let link = file.with_extension("part");
        symlink(&target, &link).context("linking")?;
        std::fs::rename(link, file).context("putting the link in its place")
    }),
    ("writable", |file, _| mode(file, 0o666)),
    ("a-fifo", |file, _| {
        let fifo = file.with_extension("part");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).context("a fifo")?;
        std::fs::rename(fifo, file).context("putting the fifo in its place")
    }),
    // It reads well, as another life with a new key, but no request can carry that key.
    ("unusable-key", |file, good| {
        let mut claim: serde_json::Value = serde_json::from_str(good).context("a good handoff")?;
        claim["api_key"] = "a\nb".into();
        let part = file.with_extension("part");
        in_place(&part, &claim.to_string())?;
        std::fs::rename(part, file).context("putting it in its place")
    }),
    ("foreign", |file, _| std::os::unix::fs::chown(file, Some(54_321), None).context("giving it away")),
];

pub(super) async fn run(run: Arc<Run>) -> Result<()> {
    let house = House::start(&run, "pools: []\n").await?;
    let (_engine, url) = house.rig.start_stub("engine").await?;
    let root = nix::unistd::geteuid().is_root();
    let mut lost = Vec::new();
    let spoilt: Vec<_> = SPOILT.into_iter().filter(|(name, _)| root || *name != "foreign").collect();
    let mut slowest = Duration::ZERO;
    for (name, spoil) in &spoilt {
        let good = |version: &str| {
            // Another life says so: the same one does not change its version.
            let generation = if version == "one" { 1 } else { 2 };
            format!(
                "{{\"url\": \"{url}\", \"pool_id\": \"{name}\", \"generation\": {generation}, \
                 \"engine_version\": \"{version}\"}}"
            )
        };
        let file = format!("{name}.json");
        let bound = async |version: &str| {
            let path = format!("/v2/pools/{name}/health");
            let is = async || Ok(house.api.get(&path).await?["engine_version"] == version);
            reached(&format!("{name} is bound as {version}"), is).await
        };
        house.rig.publish(&file, &good("one"))?;
        bound("one").await?;
        let said = house.orchestratord.said().len();
        spoil(&house.rig.handoffs().join(&file), &good("spoilt"))?;
        reached(&format!("{name} is refused with a reason"), || async {
            Ok(house.orchestratord.said()[said..].contains(&file))
        })
        .await?;
        let health = house.api.get(&format!("/v2/pools/{name}/health")).await?;
        let same = health["ready"] == true && health["engine_version"] == "one";
        if !same {
            lost.push(*name);
        }
        let again = Instant::now();
        house.rig.publish(&file, &good("two"))?;
        slowest = slowest.max(bound("two").await? - again);
    }
    let what = format!("{} kinds of bad files refused with a reason, bindings lost", spoilt.len());
    run.fact(what, lost.is_empty(), if lost.is_empty() { "none".to_owned() } else { lost.join(", ") });
    if !root {
        run.told("foreign-owned", "not tried: only root can give a file away");
    }
    run.time("next good file bound", slowest, Duration::from_secs(2));
    outside(&run, &house).await
}

/// Claims to be elsewhere, where somebody listens who must never be called.
async fn outside(run: &Run, house: &House) -> Result<()> {
    let listener = TcpListener::bind("0.0.0.0:0").context("listening everywhere")?;
    let port = listener.local_addr().context("where")?.port();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    std::thread::spawn(move || {
        for _ in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut urls = vec![
        format!("http://localhost:{port}"),
        format!("https://127.0.0.1:{port}"),
        format!("http://user:word@127.0.0.1:{port}"),
        format!("http://127.0.0.1:{port}/path"),
        format!("http://0.0.0.0:{port}"),
        "http://127.0.0.1".to_owned(),
        "http://127.0.0.1:0".to_owned(),
        "http://192.0.2.1:8080".to_owned(),
        format!("http://[::ffff:192.0.2.1]:{port}"),
    ];
    match own_address() {
        Some(address) => urls.push(format!("http://{address}:{port}")),
        None => run.told("another address of this machine", "there is none"),
    }
    for (n, url) in urls.iter().enumerate() {
        let name = format!("outside-{n}");
        house
            .rig
            .publish(&format!("{name}.json"), &format!("{{\"url\": \"{url}\", \"pool_id\": \"{name}\"}}"))?;
        reached(&format!("{url} is refused"), || async {
            Ok(house.orchestratord.said().contains(&format!("{name}.json")))
        })
        .await?;
    }
    // Were it called at all, it would be within the first probes.
    tokio::time::sleep(Duration::from_millis(500)).await;
    run.count(format!("calls to {} addresses outside", urls.len()), calls.load(Ordering::SeqCst), 0..=0);
    let pools = house.api.get("/v2/pools").await?.to_string();
    run.fact("no pool of theirs", !pools.contains("outside-"), "");
    Ok(())
}

/// An address of this machine that is not loopback. Nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback() && !address.is_unspecified())
}

fn in_place(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
    mode(file, 0o600)
}

fn mode(file: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).context("its mode")
}
