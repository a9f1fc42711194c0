//! Each of client, engine and orchestratord killed at random tokens: what its reader joins is what nobody
//! interrupted. `SURVIVE_KILLS` says how often each, `SURVIVE_SEED` where.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::house::{Daemon, House, Seen, frames};

const TOKENS: usize = 40;

fn kills() -> usize {
    std::env::var("SURVIVE_KILLS").map_or(5, |kills| kills.parse().unwrap())
}

/// Where the next one is killed: after 1 to `TOKENS` - 1 tokens.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        Self(std::env::var("SURVIVE_SEED").map_or(20_261_128, |seed| seed.parse().unwrap()))
    }

    fn token(&mut self) -> usize {
        // Knuth's MMIX constants; the upper bits are the better ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1 + (self.0 >> 33) as usize % (TOKENS - 1)
    }
}

/// An engine that is a process of its own.
struct Engine {
    child: Child,
    addr: SocketAddr,
}

impl Engine {
    fn start() -> Self {
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(stub_llama::binary().unwrap())
            .args(["--port", &addr.port().to_string(), "--parallel", "1", "--stub-token-ms", "3"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let engine = Self { child, addr };
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(addr).is_err() {
            assert!(Instant::now() < deadline, "the engine does not listen");
            std::thread::sleep(Duration::from_millis(2));
        }
        engine
    }

    fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Drop for Engine {
    /// SIGKILL.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn submit(house: &House, daemon: &Daemon, id: &str) {
    submit_long(house, daemon, id, TOKENS).await;
}

async fn submit_long(house: &House, daemon: &Daemon, id: &str, tokens: usize) {
    let ask =
        json!({"model": "p", "task_id": id, "prompt": "survive", "max_tokens": tokens, "temperature": 0});
    let (status, answer) = house.post(daemon, &ask).await;
    assert_eq!(status, 202, "{answer}");
}

fn tokens(events: &[Seen]) -> usize {
    events.iter().filter(|event| event.1 == "token").count()
}

/// The text, and whether another engine went on; the stream must be whole and in order.
fn joined(events: &[Seen], of: &str) -> (String, bool) {
    joined_of(events, of, TOKENS)
}

fn joined_of(events: &[Seen], of: &str, tokens: usize) -> (String, bool) {
    let mut text = String::new();
    for (i, token) in events.iter().filter(|event| event.1 == "token").enumerate() {
        assert_eq!(token.2["i"], i, "{of}: {events:?}");
        text.push_str(token.2["t"].as_str().unwrap());
    }
    let ends = events.iter().filter(|event| event.1 == "end" || event.1 == "error").count();
    let last = events.last().unwrap();
    assert_eq!((ends, last.1.as_str()), (1, "end"), "{of}: {events:?}");
    assert_eq!(last.2["tokens_out"], tokens, "{of}");
    // Each seam that was announced behind a token is in the receipt, whoever was killed for it.
    let announced: Vec<_> = events.iter().filter(|event| event.1 == "resumed").collect();
    let behind = announced.iter().map(|event| &event.2["from_index"]).filter(|index| **index != 0);
    let seams = last.2["receipt"]["seams"].as_array().cloned().unwrap_or_default();
    let told = seams.iter().map(|seam| &seam["from_index"]);
    assert!(behind.eq(told), "{of}: {announced:?} and {seams:?}");
    (text, events.iter().any(|event| event.1 == "resumed"))
}

/// Reads until there are so many tokens more, or the end, and breaks the connection.
async fn read_some(house: &House, daemon: &Daemon, id: &str, after: Option<&str>, many: usize) -> Vec<Seen> {
    let mut request = house.http.get(format!("{}/v2/tasks/{id}/events", daemon.base));
    if let Some(after) = after {
        request = request.header("Last-Event-ID", after);
    }
    let mut answer = request.send().await.unwrap().error_for_status().unwrap();
    let mut text = String::new();
    loop {
        let seen = frames(&text);
        if tokens(&seen) >= many || seen.last().is_some_and(|event| event.1 == "end") {
            return seen;
        }
        text.push_str(std::str::from_utf8(&answer.chunk().await.unwrap().unwrap()).unwrap());
    }
}

/// A reader of a task in a task of its own: everything that it is sent.
async fn reader(house: &House, daemon: &Daemon, id: &str) -> JoinHandle<String> {
    let url = format!("{}/v2/tasks/{id}/events", daemon.base);
    let mut answer = house.http.get(url).send().await.unwrap();
    tokio::spawn(async move {
        let mut text = String::new();
        while let Some(bytes) = answer.chunk().await.unwrap() {
            text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        text
    })
}

/// Reads on behind what was seen, to the end.
async fn read_on(house: &House, daemon: &Daemon, id: &str, mut seen: Vec<Seen>) -> Vec<Seen> {
    let last = seen.last().unwrap().0.clone();
    seen.extend(house.events(daemon, id, Some(&last)).await);
    seen
}

async fn uninterrupted(house: &House, daemon: &Daemon) -> (String, Value) {
    submit(house, daemon, "whole").await;
    let events = house.events(daemon, "whole", None).await;
    let (text, resumed) = joined(&events, "whole");
    assert!(!resumed);
    (text, events.last().unwrap().2["receipt"]["tokens_sha256"].clone())
}

/// STREAM-002
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_killed_at_any_token_goes_on_behind_what_it_has() {
    let (house, mut dice) = (House::new(1), Dice::new());
    house.stub.set_faults(|faults| faults.token = Duration::from_millis(3));
    let daemon = house.start();
    let (whole, _) = uninterrupted(&house, &daemon).await;
    for n in 0..kills() {
        let (id, at) = (format!("client-{n}"), dice.token());
        submit(&house, &daemon, &id).await;
        let seen = read_some(&house, &daemon, &id, None, at).await;
        let seen = read_on(&house, &daemon, &id, seen).await;
        assert_eq!(joined(&seen, &id), (whole.clone(), false), "killed at token {at}");
    }
    daemon.terminate();
}

/// ORCHD-RESUME-001, ORCHD-RESUME-002
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_killed_at_any_token_changes_nothing_of_the_text() {
    let (house, mut dice) = (House::new(1), Dice::new());
    let daemon = house.start();
    let mut engine = Engine::start();
    house.publish(&engine.url(), 2);
    let (whole, digest) = uninterrupted(&house, &daemon).await;
    let mut seams = 0;
    for n in 0..kills() {
        let (id, at) = (format!("engine-{n}"), dice.token());
        submit(&house, &daemon, &id).await;
        let url = format!("{}/v2/tasks/{id}/events", daemon.base);
        let mut answer = house.http.get(url).send().await.unwrap();
        let (say, mut read) = mpsc::unbounded_channel();
        let reader = tokio::spawn(async move {
            let mut text = String::new();
            while let Some(bytes) = answer.chunk().await.unwrap() {
                text.push_str(std::str::from_utf8(&bytes).unwrap());
                let _ = say.send(tokens(&frames(&text)));
            }
            frames(&text)
        });
        while read.recv().await.is_some_and(|many| many < at) {}
        drop(engine);
        engine = Engine::start();
        house.publish(&engine.url(), 3 + n as u64);
        let events = reader.await.unwrap();
        let (text, resumed) = joined(&events, &id);
        assert_eq!(text, whole, "killed at token {at}: {events:?}");
        assert_eq!(events.last().unwrap().2["receipt"]["tokens_sha256"], digest, "killed at token {at}");
        seams += usize::from(resumed);
    }
    // The last tokens may have been on their way when it was killed.
    assert!(seams * 2 > kills(), "{seams}");
    println!("{} kills of the engine, {seams} seams", kills());
    daemon.terminate();
}

/// ORCHD-RESUME-010, ORCHD-JOURNAL-002, ORCHD-JOURNAL-003
#[tokio::test(flavor = "multi_thread")]
async fn an_orchestratord_that_is_killed_at_any_token_changes_nothing_of_the_text() {
    let (house, mut dice) = (House::new(1), Dice::new());
    house.stub.set_faults(|faults| faults.token = Duration::from_millis(3));
    let mut daemon = house.start();
    let (whole, digest) = uninterrupted(&house, &daemon).await;
    let mut seams = 0;
    for n in 0..kills() {
        let (id, at) = (format!("orchestratord-{n}"), dice.token());
        submit(&house, &daemon, &id).await;
        let mut seen = read_some(&house, &daemon, &id, None, at).await;
        daemon.kill();
        daemon = house.start();
        // Once more, if it has not ended until then: its receipt tells of both.
        let more = 1 + dice.token() / 4;
        if let Some((last, _, _)) = seen.last().filter(|event| event.1 != "end").cloned() {
            seen.extend(read_some(&house, &daemon, &id, Some(&last), more).await);
            daemon.kill();
            daemon = house.start();
        }
        let events = read_on(&house, &daemon, &id, seen).await;
        let (text, resumed) = joined(&events, &id);
        assert_eq!(text, whole, "killed at token {at}: {events:?}");
        assert_eq!(events.last().unwrap().2["receipt"]["tokens_sha256"], digest, "killed at token {at}");
        assert_eq!(events, house.events(&daemon, &id, None).await, "what was seen is what is kept");
        seams += usize::from(resumed);
    }
    assert!(seams * 2 > kills(), "{seams}");
    println!("{} times two kills of orchestratord, {seams} seams", kills());
    daemon.terminate();
}

/// ORCHD-STOP-004, STREAM-013
#[tokio::test(flavor = "multi_thread")]
async fn an_orchestratord_that_is_stopped_in_the_middle_of_an_answer_changes_nothing_of_the_text() {
    const LONG: usize = 2_000;
    let house = House::new(1);
    house.configure(|config| config["limits"] = json!({"drain_ms": 50}));
    house.stub.set_faults(|faults| faults.token = Duration::from_millis(1));
    let daemon = house.start();
    submit_long(&house, &daemon, "whole", LONG).await;
    let (whole, resumed) = joined_of(&house.events(&daemon, "whole", None).await, "whole", LONG);
    assert!(!resumed);

    // Slow enough that it does not end by itself.
    house.stub.set_faults(|faults| faults.token = Duration::from_millis(50));
    submit_long(&house, &daemon, "stopped", LONG).await;
    submit_long(&house, &daemon, "queued", LONG).await;
    let (runs, waits) = (reader(&house, &daemon, "stopped").await, reader(&house, &daemon, "queued").await);
    read_some(&house, &daemon, "stopped", None, 5).await;
    daemon.terminate();
    let (runs, waits) = (runs.await.unwrap(), waits.await.unwrap());
    // It says why, with no id: a reader that comes back asks for what follows the last event.
    for told in [&runs, &waits] {
        let last = told.trim_end().rsplit("\n\n").next().unwrap();
        let data = last.strip_prefix("event: error\ndata: ").expect(told);
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!((&data["code"], &data["retriable"]), (&json!("INTERRUPTED"), &json!(true)), "{told}");
    }
    let seen = frames(&runs);
    assert!((5..LONG).contains(&tokens(&seen)), "{runs}");
    assert_eq!(frames(&waits), []);

    house.stub.set_faults(|faults| faults.token = Duration::from_millis(1));
    let daemon = house.start();
    let events = read_on(&house, &daemon, "stopped", seen).await;
    assert_eq!(joined_of(&events, "stopped", LONG), (whole.clone(), true));
    assert_eq!(joined_of(&house.events(&daemon, "queued", None).await, "queued", LONG), (whole, false));
    daemon.terminate();
}
