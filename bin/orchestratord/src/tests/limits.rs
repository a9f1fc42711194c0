//! What the listener refuses, lets go of and survives: each limit, on a whole orchestratord.

use super::*;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const SOON: Duration = Duration::from_millis(300);

async fn connect(orchestrator: &Orchestrator) -> TcpStream {
    TcpStream::connect(orchestrator.running.addr()).await.unwrap()
}

/// Sends a request and reads until the connection closes; the status, or 0 when it closed without.
async fn answer(orchestrator: &Orchestrator, request: &[u8]) -> u16 {
    let mut stream = connect(orchestrator).await;
    // The server may have answered and closed before all of it is sent.
    let _ = stream.write_all(request).await;
    status_at_end(&mut stream).await
}

async fn status_at_end(stream: &mut TcpStream) -> u16 {
    let mut text = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut text))
        .await
        .expect("the connection was not closed");
    let text = String::from_utf8_lossy(&text);
    text.split_whitespace().nth(1).map_or(0, |status| status.parse().unwrap())
}

fn post(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST /v2/tasks HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

fn sized(body: &[u8]) -> Vec<u8> {
    post(&format!("Content-Length: {}\r\n", body.len()), body)
}

/// SEC-005, R17
#[tokio::test(flavor = "multi_thread")]
async fn headers_that_trickle_in_are_cut_off() {
    let orchestrator = Orchestrator::start_limited(|_| {}, |limits| limits.header_timeout = SOON).await;
    let began = Instant::now();
    let (mut reader, mut writer) = connect(&orchestrator).await.into_split();
    let trickle = tokio::spawn(async move {
        // A byte at a time, each well within the limit.
        for byte in "GET /health HTTP/1.1\r\nHost: localhost\r\n".bytes().chain(std::iter::repeat(b'x')) {
            if writer.write_all(&[byte]).await.is_err() {
                return;
            }
            // How slow this client is.
            tokio::time::sleep(SOON / 10).await;
        }
    });
    let mut rest = Vec::new();
    let _ = reader.read_to_end(&mut rest).await;
    assert!(began.elapsed() >= SOON, "{:?}", began.elapsed());
    trickle.abort();
    orchestrator.stop().await;
}

/// SEC-005, R17
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_arrive_is_refused_in_time() {
    let orchestrator = Orchestrator::start_limited(|_| {}, |limits| limits.body_timeout = SOON).await;
    let began = Instant::now();
    let status = answer(&orchestrator, &post("Content-Length: 1000\r\n", b"{\"model\":")).await;
    assert_eq!(status, 400);
    assert!(began.elapsed() >= SOON, "{:?}", began.elapsed());
    orchestrator.stop().await;
}

/// SEC-005, R17
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_or_malformed_is_refused() {
    let orchestrator = Orchestrator::start().await;
    // With Host, Connection and Content-Length: 64 in all, and 65.
    for (headers, status) in [(61, 400), (62, 431)] {
        let headers: String = (0..headers).map(|i| format!("x-{i}: 1\r\n")).collect();
        let request = post(&format!("{headers}Content-Length: 2\r\n"), b"[]");
        assert_eq!(answer(&orchestrator, &request).await, status, "{headers}");
    }
    let long = post(&format!("x: {}\r\n", "y".repeat(40 * 1024)), b"");
    assert_eq!(answer(&orchestrator, &long).await, 431);
    assert_eq!(answer(&orchestrator, &post("Content-Length: 1000000000\r\n", b"{")).await, 413);
    let nested = |depth: usize| {
        let inner = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        sized(format!("{{\"model\":\"p\",\"prompt\":\"x\",\"json_schema\":{inner}}}").as_bytes())
    };
    assert_eq!(answer(&orchestrator, &nested(120)).await, 202);
    assert_eq!(answer(&orchestrator, &nested(128)).await, 400);
    assert_eq!(answer(&orchestrator, &sized(b"{\"model\":\"\xff\xfe\"}")).await, 400);
    assert_eq!(answer(&orchestrator, b"GARBAGE\r\n\r\n").await, 400);
    orchestrator.stop().await;
}

/// SEC-005: a body without a length is counted while it comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_end_is_refused_after_a_bound() {
    let orchestrator = Orchestrator::start().await;
    let (mut reader, mut writer) = connect(&orchestrator).await.into_split();
    let sent = tokio::spawn(async move {
        writer.write_all(&post("Transfer-Encoding: chunked\r\n", b"")).await.unwrap();
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        let mut chunks = 0;
        while chunks < 16_384 && writer.write_all(chunk.as_bytes()).await.is_ok() {
            chunks += 1;
        }
        chunks
    });
    let mut text = Vec::new();
    let _ = reader.read_to_end(&mut text).await;
    assert!(String::from_utf8_lossy(&text).starts_with("HTTP/1.1 413"));
    let sent = sent.await.unwrap();
    assert!(sent < 1_000, "{sent} chunks of 64 KiB were taken");
    orchestrator.stop().await;
}

/// SEC-011
#[tokio::test(flavor = "multi_thread")]
async fn a_route_may_take_larger_bodies_and_another_smaller_ones() {
    let orchestrator = Orchestrator::start_with(|config| {
        config.api.body_limits =
            [("/v2/tasks".to_owned(), 1_000), ("/v1/chat/completions".to_owned(), 2 << 20)].into();
    })
    .await;
    let body = json!({"model": "nobody", "prompt": "x".repeat(2_000)});
    assert_eq!(orchestrator.post("/v2/tasks", body).await.0, 413);
    let long = "x".repeat(3 << 19);
    let body = json!({"model": "nobody", "messages": [{"role": "user", "content": long}]});
    assert_eq!(orchestrator.post("/v1/chat/completions", body).await.0, 404);
    orchestrator.stop().await;
}

/// STREAM-005, STREAM-010, R13
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_reads_nothing_is_let_go_and_holds_nothing_up() {
    let orchestrator = Orchestrator::start_limited(|_| {}, |limits| limits.unread = SOON).await;
    let stub = stub();
    orchestrator.publish(&stub, "p", 1);
    orchestrator.until_ready("p", true).await;
    let task = orchestrator.submit(json!({"max_tokens": 3_000, "detach_grace_ms": 60_000})).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2_048).unwrap();
    let mut stuck = socket.connect(orchestrator.running.addr()).await.unwrap();
    let request = format!("GET /v2/tasks/{task}/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stuck.write_all(request.as_bytes()).await.unwrap();
    // Another reader, whose stream is whole.
    let events = orchestrator.events(&task, None).await;
    assert_eq!(events.last().unwrap().1, "end");
    let metrics = &orchestrator.running.state().metrics;
    until(async || metrics.evictions.get() == 1).await;
    until(async || metrics.streams_open.get() == 0).await;
    drop(stuck);
    orchestrator.stop().await;
}

/// SEC-012
#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_cap_wait_until_one_closes() {
    let orchestrator = Orchestrator::start_limited(|_| {}, |limits| limits.connections = 2).await;
    let (first, _second) = (connect(&orchestrator).await, connect(&orchestrator).await);
    let mut third = connect(&orchestrator).await;
    third.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut byte = [0];
    let early = tokio::time::timeout(SOON, third.read(&mut byte)).await;
    assert!(early.is_err(), "the third was served beside two others");
    drop(first);
    assert_eq!(status_at_end(&mut third).await, 200);
    orchestrator.stop().await;
}

/// SEC-002: no page of another origin is ever told that it may.
#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_cors() {
    let orchestrator = Orchestrator::start().await;
    let preflight = |origin: &'static str| {
        let url = orchestrator.url("/v1/chat/completions");
        let request = orchestrator.http.request(http::Method::OPTIONS, url).header("Origin", origin);
        let request = request.header("Access-Control-Request-Method", "POST");
        async { request.send().await.unwrap() }
    };
    let own: &'static str = format!("http://{}", orchestrator.running.addr()).leak();
    for (origin, status) in [("http://evil.example", 403), (own, 405)] {
        let answer = preflight(origin).await;
        assert_eq!(answer.status(), status, "{origin}");
        let cors = answer.headers().keys().filter(|name| name.as_str().starts_with("access-control"));
        assert_eq!(cors.count(), 0);
    }
    orchestrator.stop().await;
}
