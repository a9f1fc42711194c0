//! One file over several connections: faster where each is slow, and in every other way as over one.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use provisioners_model_provisioner::{Cancel, Catalog, Connections, ModelRef, StageEvent};

use crate::server::{Reply, Seen, Server};
use crate::{Machine, REF, chain, good, hub, model, plain, sha256};

const PIECE: usize = 128 << 10;

/// Several at once, whatever the file and the line.
const AT_ONCE: Connections =
    Connections { most: 4, watched: Duration::ZERO, fast: u64::MAX, worth_it: 1, piece: PIECE as u64 };

fn machine(server: &Server) -> Machine {
    Machine { connections: AT_ONCE, ..Machine::new(server) }
}

/// A request of several: it names where it ends.
fn of_several(seen: &Seen) -> bool {
    seen.to().is_some()
}

fn files_with(machine: &Machine, extension: &str) -> Vec<PathBuf> {
    machine.files(|path| path.extension().is_some_and(|e| e == extension))
}

/// MPROV-026
#[test]
fn a_file_that_comes_slowly_is_fetched_by_four_at_once_and_no_byte_twice() {
    let together = Arc::new((Mutex::new(0), Condvar::new()));
    let count = together.clone();
    let hub = hub(move |seen, nth| {
        if of_several(seen) {
            // Nobody gets anything before four have asked.
            let (asked, more) = &*count;
            *asked.lock().unwrap() += 1;
            more.notify_all();
            let waiting = more.wait_timeout_while(asked.lock().unwrap(), Duration::from_secs(20), |n| *n < 4);
            assert!(!waiting.unwrap().1.timed_out(), "four ask at once");
        }
        good(seen, nth)
    });
    let machine = machine(&hub);
    let seen = Mutex::new(Vec::new());
    let listen = |event| {
        if let StageEvent::Progress(p) = event
            && p.description.starts_with("fetching")
        {
            seen.lock().unwrap().push(p.bytes_done);
        }
    };
    let record = machine.stage_with(&REF.parse().unwrap(), None, &listen).unwrap();
    assert_eq!(record.digest, sha256(model()));
    let progress = seen.into_inner().unwrap();
    assert!(progress.is_sorted() && progress.last() == Some(&(model().len() as u64)), "{progress:?}");
    assert_eq!(files_with(&machine, "pieces"), Vec::<PathBuf>::new());
    let gets = hub.gets();
    assert_eq!((gets[0].from(), gets[0].to()), (0, None), "the first request is for all of it");
    let mut parts: Vec<_> = gets[1..].iter().map(|seen| (seen.from(), seen.to().unwrap())).collect();
    parts.sort_unstable();
    assert!(parts.len() >= 4 && parts.windows(2).all(|pair| pair[0].1 == pair[1].0), "{parts:?}");
    assert!(parts[0].0 > 0 && parts.last().unwrap().1 == model().len(), "{parts:?}");
    assert!(gets[1..].iter().all(|seen| seen.header("if-range") == Some("\"v1\"")));
}

/// MPROV-026
#[test]
fn a_server_that_does_not_say_that_it_gives_parts_of_this_very_file_is_asked_for_all_of_it() {
    type Answer = fn(&Seen) -> Reply;
    let answers: [Answer; 3] = [
        |_| Reply::body(model()).with("ETag", "\"v1\""),
        |_| Reply::body(model()).with("Accept-Ranges", "bytes").with("ETag", "W/\"v1\""),
        |_| Reply::body(model()).with("Accept-Ranges", "none").with("ETag", "\"v1\""),
    ];
    for answer in answers {
        let hub = hub(move |seen, _| answer(seen));
        assert_eq!(machine(&hub).stage(REF).unwrap().digest, sha256(model()));
        assert_eq!(hub.gets().len(), 1);
    }
}

/// MPROV-026, MPROV-006
#[test]
fn whatever_goes_wrong_for_several_the_file_is_the_right_one_in_the_end() {
    type Wrong = fn(&Seen, usize) -> Reply;
    let wrongs: [(&str, Wrong); 9] = [
        ("wants one connection", |seen, nth| match of_several(seen) {
            true => Reply::status(429),
            false => good(seen, nth),
        }),
        ("ignores where parts begin", |seen, nth| match of_several(seen) {
            true => Reply::body(model()).with("ETag", "\"v1\""),
            false => good(seen, nth),
        }),
        ("gives another part", |seen, nth| match of_several(seen) {
            true => good(seen, nth).with("Content-Range", "bytes 0-9/10"),
            false => good(seen, nth),
        }),
        ("fails now and then", |seen, nth| match nth % 3 {
            1 => Reply::status(500),
            _ => good(seen, nth),
        }),
        ("cuts each part", |seen, nth| match of_several(seen) {
            true => good(seen, nth).cut_after(PIECE / 3),
            false => good(seen, nth),
        }),
        ("cuts some parts at once", |seen, nth| match of_several(seen) && nth % 2 == 0 {
            true => good(seen, nth).cut_after(0),
            false => good(seen, nth),
        }),
        ("stalls in some parts", |seen, nth| match of_several(seen) && nth % 5 == 2 {
            true => good(seen, nth).stall_after(1000),
            false => good(seen, nth),
        }),
        ("stalls in every part, at once", |seen, nth| match of_several(seen) {
            true => good(seen, nth).stall_after(0),
            false => good(seen, nth),
        }),
        ("gives more than it was asked for", |seen, nth| match of_several(seen) {
            true => good(seen, nth).followed_by(b"more"),
            false => good(seen, nth),
        }),
    ];
    for (what, wrong) in wrongs {
        let hub = hub(wrong);
        let mut machine = machine(&hub);
        machine.patience.stall = Duration::from_millis(300);
        let staged =
            machine.stage(REF).unwrap_or_else(|error| panic!("a server that {what}: {}", chain(&error)));
        assert_eq!(staged.digest, sha256(model()), "a server that {what}");
        assert!(hub.gets().iter().any(of_several), "a server that {what} was asked for parts");
        assert!(machine.partials().is_empty() && files_with(&machine, "pieces").is_empty());
    }
}

/// MPROV-026, MPROV-007
#[test]
fn a_file_that_changes_between_its_parts_is_never_a_mixture() {
    for ignores_if_range in [false, true] {
        let changed = Arc::new(AtomicUsize::new(0));
        let parts = changed.clone();
        let old: Vec<u8> = model().iter().map(|b| !b).collect();
        let server = Server::start(move |seen, nth| {
            if nth == 0 || of_several(seen) && parts.fetch_add(1, Ordering::SeqCst) < 6 {
                Reply::ranged(seen, &old, "\"old\"")
            } else if ignores_if_range && seen.from() > 0 {
                Reply::rest(seen, model(), "\"new\"")
            } else {
                Reply::ranged(seen, model(), "\"new\"")
            }
        });
        let record = machine(&server).stage_with(&plain(&server), None, &|_| ()).unwrap();
        assert_eq!(record.digest, sha256(model()), "ignores If-Range: {ignores_if_range}");
        assert!(changed.load(Ordering::SeqCst) >= 6);
    }
}

/// MPROV-026, MPROV-007, MPROV-010
#[test]
fn wrong_bytes_in_one_part_get_no_final_name_and_a_part_is_not_fetched_from_where_it_must_not() {
    let wrong = hub(|seen, nth| {
        let mut bytes = model().to_vec();
        bytes[model().len() / 2] ^= 1;
        if of_several(seen) { Reply::ranged(seen, &bytes, "\"v1\"") } else { good(seen, nth) }
    });
    let there = machine(&wrong);
    let error = there.stage(REF).unwrap_err();
    assert!(error.is_wrong_digest(), "{}", chain(&error));
    assert_eq!((there.finals().len(), there.partials().len()), (0, 0));
    assert_eq!(files_with(&there, "pieces"), Vec::<PathBuf>::new());
    let away = hub(|seen, nth| match seen.from() {
        0 => good(seen, nth),
        _ => Reply::status(302).with("Location", "http://models.example/m.gguf?sig=secret"),
    });
    let error = machine(&away).refusal(REF);
    assert!(error.contains("http://models.example/m.gguf is refused"), "{error}");
}

/// MPROV-026
#[test]
fn whoever_stops_in_the_middle_of_several_parts_goes_on_with_each_of_them() {
    let cancel = Cancel::new();
    let (remote, stopped) = (cancel.clone(), Arc::new(AtomicUsize::new(0)));
    let parts = stopped.clone();
    let hub = hub(move |seen, nth| {
        if of_several(seen) && parts.fetch_add(1, Ordering::SeqCst) == 9 {
            remote.cancel();
            return Reply::status(500);
        }
        good(seen, nth)
    });
    let machine = machine(&hub);
    let reference: ModelRef = REF.parse().unwrap();
    let error = machine.provisioner().stage(&reference, None, &|_| (), &cancel).unwrap_err();
    assert!(error.is_cancelled(), "{error}");
    assert_eq!((machine.finals().len(), files_with(&machine, "pieces").len()), (0, 1));
    let asked = hub.gets().len();
    // What is there is told by its parts, not by where the last of them ends.
    let unfinished = Catalog::new(machine.dir.path()).unfinished().remove(0);
    assert_eq!(unfinished.bytes_total, Some(model().len() as u64));
    assert!(unfinished.bytes > 0 && unfinished.bytes < model().len() as u64, "{unfinished:?}");
    assert_eq!(machine.stage(REF).unwrap().digest, sha256(model()));
    let again: usize = hub.gets()[asked..].iter().map(|seen| seen.to().unwrap() - seen.from()).sum();
    assert_eq!(again as u64, model().len() as u64 - unfinished.bytes, "exactly what was missing");
}

/// MPROV-026, MPROV-025
#[test]
fn parts_of_another_life_of_the_machine_count_for_nothing_and_old_ones_are_collected() {
    let cancel = Cancel::new();
    let remote = cancel.clone();
    let parts = AtomicUsize::new(0);
    let hub = hub(move |seen, nth| {
        if of_several(seen) && parts.fetch_add(1, Ordering::SeqCst) == 6 {
            remote.cancel();
        }
        good(seen, nth)
    });
    let machine = machine(&hub);
    machine.provisioner().stage(&REF.parse().unwrap(), None, &|_| (), &cancel).unwrap_err();
    let sidecar = machine.partials().remove(0).with_extension("json");
    let text = std::fs::read_to_string(&sidecar).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    std::fs::write(&sidecar, text.replace(boot.trim(), "another-life")).unwrap();
    let asked = hub.gets().len();
    let other = Cancel::new();
    let stop = |event| {
        if let StageEvent::Progress(p) = event
            && p.description.starts_with("fetching")
        {
            other.cancel();
        }
    };
    let error = machine.provisioner().stage(&REF.parse().unwrap(), None, &stop, &other).unwrap_err();
    assert!(error.is_cancelled(), "{error}");
    assert_eq!((hub.gets()[asked].from(), hub.gets()[asked].to()), (0, None), "it began anew");
    let gone = Catalog::new(machine.dir.path()).collect_unfinished(Duration::ZERO).unwrap();
    assert_eq!(gone.len(), 1);
    assert!(machine.partials().is_empty() && files_with(&machine, "pieces").is_empty());
}

const CHILD: &str = "LLORCH_TEST_FETCH_FROM";

/// MPROV-026, MPROV-007: a process that fetches with several connections is killed again and again.
#[test]
fn a_kill_in_the_middle_of_several_parts_costs_almost_nothing_and_leaves_no_wrong_file() {
    if let Ok(place) = std::env::var(CHILD) {
        // This is the process that is killed.
        let (base, cache) = place.split_once(' ').unwrap();
        let network = provisioners_model_provisioner::Network::from_vars(|name| {
            (name == "HF_ENDPOINT").then(|| base.into())
        });
        let provisioner = provisioners_model_provisioner::ModelProvisioner::new(cache);
        let provisioner = provisioner.with_network(network.with_connections(AT_ONCE));
        provisioner.stage(&REF.parse().unwrap(), None, &|_| (), &Cancel::new()).unwrap();
        return;
    }
    // 16 in the fast pass; `LLORCH_KILLS=200` is the whole one.
    let kills: u64 = std::env::var("LLORCH_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(16);
    let requests = Arc::new(AtomicUsize::new(0));
    // After so many requests and so many bytes of the last of them nothing more comes, until whoever waits for it
    // is killed; so none is done before it is killed, however late whoever kills it wakes up.
    let end = Arc::new((Mutex::new((0usize, 0usize)), Condvar::new()));
    let reached = Arc::new(AtomicUsize::new(0));
    // Bytes of parts that were answered.
    let given = Arc::new(AtomicUsize::new(0));
    let (count, gate, at_end, giving) = (requests.clone(), end.clone(), reached.clone(), given.clone());
    let hub = hub(move |seen, nth| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        let (last, more) = &*gate;
        let limit = Duration::from_secs(60);
        let waited = more.wait_timeout_while(last.lock().unwrap(), limit, |(last, _)| number > *last);
        let (last, bytes) = *waited.unwrap().0;
        let reply = good(seen, nth);
        let part = seen.to().map_or(0, |to| to - seen.from());
        giving.fetch_add(if number == last { part.min(bytes) } else { part }, Ordering::SeqCst);
        if number == last {
            at_end.store(number, Ordering::SeqCst);
            return reply.stall_after(bytes);
        }
        reply
    });
    let ends = |number, bytes| {
        *end.0.lock().unwrap() = (number, bytes);
        end.1.notify_all();
    };
    let place = Machine::new(&hub);
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "several::a_kill_in_the_middle_of_several_parts_costs_almost_nothing_and_leaves_no_wrong_file"])
            .env(CHILD, format!("{} {}", hub.base, place.dir.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let there = || {
        let unfinished = Catalog::new(place.dir.path()).unfinished();
        unfinished.first().map_or(0, |download| download.bytes)
    };
    // A kill costs no more than what four connections had on their way.
    let frugal = |kills: usize| {
        let (given, most) = (given.swap(0, Ordering::SeqCst), model().len() + kills * 4 * PIECE);
        assert!(given <= most, "{given} bytes of parts for {} and {kills} kills", model().len());
    };
    let (mut random, mut interrupted, mut finished, mut before, mut kills_of_this) = (23u64, 0, 0, 0, 0);
    for kill in 0..kills {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (after, bytes) = (1 + (random >> 33) as usize % 24, (random >> 40) as usize % PIECE);
        let last = requests.load(Ordering::SeqCst) + after;
        ends(last, bytes);
        let mut child = start();
        let until = Instant::now() + Duration::from_secs(60);
        while reached.load(Ordering::SeqCst) < last && child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "the download does not move");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let finals = place.finals();
        for file in &finals {
            assert_eq!(sha256(&std::fs::read(file).unwrap()), sha256(model()), "{}", file.display());
        }
        let after = there();
        kills_of_this += 1;
        if finals.is_empty() {
            assert!(after >= before, "kill {kill} took bytes back: {before} were there, {after} are");
            (interrupted, before) = (interrupted + 1, after);
        } else {
            // From the start again.
            std::fs::remove_dir_all(place.dir.path().join("models")).unwrap();
            frugal(kills_of_this);
            (finished, before, kills_of_this) = (finished + 1, 0, 0);
        }
    }
    let both = interrupted > finished && (finished > 0 || kills < 100);
    assert!(both, "{interrupted} were interrupted and {finished} finished: both ends were met");
    eprintln!("{kills} kills: {interrupted} downloads were interrupted, {finished} finished");
    ends(usize::MAX, 0);
    assert!(start().wait().unwrap().success());
    frugal(kills_of_this);
    assert_eq!(place.finals().len(), 1);
    assert!(place.partials().is_empty() && files_with(&place, "pieces").is_empty());
}
