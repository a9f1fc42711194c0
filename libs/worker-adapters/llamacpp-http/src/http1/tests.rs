use std::future::poll_fn;

use tokio::net::TcpListener;
use tokio::time::Instant;

use super::*;

/// An engine that gives each request the next of these answers, on as many connections as it is
/// asked on; returns how many those were.
async fn engine(answers: Vec<&'static str>) -> (Connections, tokio::task::JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connections = Connections::new(listener.local_addr().unwrap(), Some("k"));
    let serve = async move {
        let (mut answers, mut accepted) = (answers.into_iter(), 0);
        let mut answer = answers.next();
        while answer.is_some() {
            let (mut stream, _) = listener.accept().await.unwrap();
            accepted += 1;
            let mut request = Vec::new();
            while let Some(text) = answer {
                request.clear();
                while !request.ends_with(b"\r\n\r\n{}") {
                    if stream.read_buf(&mut request).await.unwrap() == 0 {
                        break;
                    }
                }
                if request.is_empty() {
                    break;
                }
                let request = String::from_utf8_lossy(&request);
                assert!(request.contains("\r\nAuthorization: Bearer k\r\n"), "{request}");
                stream.write_all(text.as_bytes()).await.unwrap();
                answer = answers.next();
                if text.contains("close") || !text.contains("gth") && !text.contains("chunked") {
                    break;
                }
            }
        }
        accepted
    };
    (connections, tokio::spawn(serve))
}

async fn ask(connections: &Connections) -> Result<(u16, String), Unanswered> {
    let answer = connections.post("/x", &[], b"{}").await?;
    let whole = answer.body.whole(100).await?.unwrap();
    Ok((answer.status, String::from_utf8(whole).unwrap()))
}

#[tokio::test]
async fn answers_of_every_framing_are_read_and_a_connection_serves_again_until_it_says_close() {
    let (connections, engine) = engine(vec![
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\nf",
        "HTTP/1.0 200 OK\r\n\r\nall of it",
    ])
    .await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(ask(&connections).await.unwrap());
    }
    let expected = [(200, "abc"), (503, "de"), (200, "f"), (200, "all of it")];
    assert_eq!(seen, expected.map(|(status, text)| (status, text.to_owned())));
    assert_eq!(engine.await.unwrap(), 2, "the first connection served three requests");
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_is_none_is_an_error() {
    for (bytes, broken) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nconnection: close\r\n\r\nab", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nconnection: close\r\n\r\n2\r\nab\r\n", true),
        ("HTTP/1.1 200 OK\r\nconnection: close\r\n", true),
        ("close", false),
        ("SSH-2.0-close\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\nx: close\r\n\r\nabcd", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\nx: close\r\n\r\n", false),
    ] {
        let (connections, engine) = engine(vec![bytes]).await;
        let error = ask(&connections).await.unwrap_err();
        assert_eq!(matches!(error, Unanswered::Broken(_)), broken, "{bytes:?}: {error}");
        engine.await.unwrap();
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_not_kept() {
    let long = "HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n".to_owned() + &"x".repeat(101);
    let (connections, _engine) = engine(vec![String::leak(long)]).await;
    let answer = connections.post("/x", &[], b"{}").await.unwrap();
    assert_eq!(answer.body.whole(100).await.unwrap(), None);
}

#[tokio::test]
async fn a_connection_that_the_engine_has_closed_is_not_used_again() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nx: close\r\n\r\na";
    let (connections, engine) = engine(vec![answer, answer]).await;
    ask(&connections).await.unwrap();
    // The engine's side says when it has closed: by listening for the next.
    while connections.idle.take().is_some_and(|stream| {
        connections.idle.keep(stream);
        true
    }) {
        tokio::task::yield_now().await;
    }
    ask(&connections).await.unwrap();
    assert_eq!(engine.await.unwrap(), 2);
}

/// Reads a request to its end.
async fn heard(stream: &mut TcpStream) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n{}") {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "the request broke off");
    }
}

/// LCPP-014.
#[tokio::test]
async fn a_request_on_a_connection_that_closes_under_it_is_asked_once_more_on_a_new_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connections = Connections::new(listener.local_addr().unwrap(), None);
    let engine = async {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n";
        let (mut kept, _) = listener.accept().await.unwrap();
        heard(&mut kept).await;
        kept.write_all(format!("{answer}a").as_bytes()).await.unwrap();
        heard(&mut kept).await;
        drop(kept);
        let (mut second, _) = listener.accept().await.unwrap();
        heard(&mut second).await;
        second.write_all(format!("{answer}b").as_bytes()).await.unwrap();
        // The next breaks off in its answer: the engine has worked on it, so that it is not asked again.
        heard(&mut second).await;
        second.write_all(b"HTTP/1.1 200").await.unwrap();
        drop(second);
        // Nor is one that a new connection closed on.
        let (mut third, _) = listener.accept().await.unwrap();
        heard(&mut third).await;
    };
    let client = async {
        assert_eq!(ask(&connections).await.unwrap(), (200, "a".to_owned()));
        assert_eq!(ask(&connections).await.unwrap(), (200, "b".to_owned()));
        let error = ask(&connections).await.unwrap_err();
        assert!(matches!(error, Unanswered::Broken(_)), "{error}");
        let error = ask(&connections).await.unwrap_err();
        assert!(matches!(error, Unanswered::Closed(_)), "{error}");
    };
    tokio::join!(engine, client);
}

#[tokio::test]
async fn an_engine_that_falls_silent_is_noticed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connections = Connections::new(listener.local_addr().unwrap(), None);
    let accept = async { listener.accept().await.unwrap().0 };
    let (stream, mut engine) = tokio::join!(connections.connect(), accept);
    engine.write_all(b"HTTP/1.1 200 OK\r\n\r\na").await.unwrap();
    let mut answer = connections.head(stream.unwrap()).await.unwrap();
    let mut text = Vec::new();
    while text.is_empty() {
        poll_fn(|cx| answer.body.poll_read(cx, |piece| text.extend_from_slice(piece))).await.unwrap();
    }
    tokio::time::pause();
    let since = Instant::now();
    let error = poll_fn(|cx| answer.body.poll_read(cx, |_| {})).await.unwrap_err();
    assert!(matches!(error, Unanswered::Silent), "{error}");
    assert!((SILENCE..3 * SILENCE).contains(&since.elapsed()), "{:?}", since.elapsed());
}
