//! A client for tests that stands in reqwest's place: the requests are written as before and the answers
//! are reqwest's own, but each was held against the daemon's contract when it came, whatever the test
//! reads of it.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Body, IntoUrl, Method, RequestBuilder, Response, ResponseBuilderExt as _};
use serde::Serialize;

use crate::Contract;

/// A client of one daemon.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    contract: &'static Contract,
}

/// A request that is being written.
#[derive(Debug)]
pub struct Request {
    builder: RequestBuilder,
    contract: &'static Contract,
}

impl Client {
    /// A client of orchestratord, with no proxy between.
    ///
    /// # Panics
    /// When there is no contract to hold answers against, or no client can be built.
    #[must_use]
    pub fn orchestratord() -> Self {
        Self::with(plain(), held(Contract::orchestratord()))
    }

    /// A client of pool-managerd, with no proxy between.
    ///
    /// # Panics
    /// When there is no contract to hold answers against, or no client can be built.
    #[must_use]
    pub fn pool_managerd() -> Self {
        Self::with(plain(), held(Contract::pool_managerd()))
    }

    /// A client that a test made for itself, and the contract of the daemon that it asks.
    #[must_use]
    pub fn with(http: reqwest::Client, contract: &'static Contract) -> Self {
        Self { http, contract }
    }

    /// Without the contract: for an engine, or where an answer is measured now and checked later.
    #[must_use]
    pub fn unchecked(&self) -> &reqwest::Client {
        &self.http
    }

    /// A request with any method.
    pub fn request(&self, method: Method, url: impl IntoUrl) -> Request {
        Request { builder: self.http.request(method, url), contract: self.contract }
    }

    /// A GET.
    pub fn get(&self, url: impl IntoUrl) -> Request {
        self.request(Method::GET, url)
    }

    /// A POST.
    pub fn post(&self, url: impl IntoUrl) -> Request {
        self.request(Method::POST, url)
    }

    /// A DELETE.
    pub fn delete(&self, url: impl IntoUrl) -> Request {
        self.request(Method::DELETE, url)
    }
}

impl Request {
    fn map(self, write: impl FnOnce(RequestBuilder) -> RequestBuilder) -> Self {
        Self { builder: write(self.builder), ..self }
    }

    /// One more header.
    #[must_use]
    pub fn header(self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.map(|request| request.header(name.as_ref(), value.as_ref()))
    }

    /// A bearer token.
    #[must_use]
    pub fn bearer_auth(self, token: impl std::fmt::Display) -> Self {
        self.map(|request| request.bearer_auth(token))
    }

    /// A body of JSON, and its content type.
    #[must_use]
    pub fn json<T: Serialize + ?Sized>(self, body: &T) -> Self {
        self.map(|request| request.json(body))
    }

    /// Any body.
    #[must_use]
    pub fn body(self, body: impl Into<Body>) -> Self {
        self.map(|request| request.body(body))
    }

    /// How long all of it may take.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.map(|request| request.timeout(timeout))
    }

    /// The same request again, unless its body is a stream.
    #[must_use]
    pub fn try_clone(&self) -> Option<Self> {
        Some(Self { builder: self.builder.try_clone()?, contract: self.contract })
    }

    /// Sends it. A JSON answer is read whole and checked before this returns; the frames of a stream are
    /// checked as the test reads them.
    ///
    /// # Panics
    /// When the answer is not what the contract says.
    pub async fn send(self) -> reqwest::Result<Response> {
        let (http, request) = self.builder.build_split();
        let request = request?;
        let asked = Asked {
            contract: self.contract,
            method: request.method().to_string(),
            path: request.url().path().to_owned(),
        };
        let answer = http.execute(request).await?;
        asked.check(answer).await
    }
}

/// What was asked, for as long as the answer comes.
struct Asked {
    contract: &'static Contract,
    method: String,
    path: String,
}

impl Asked {
    async fn check(self, answer: Response) -> reqwest::Result<Response> {
        let (status, url, headers) = (answer.status(), answer.url().clone(), answer.headers().clone());
        let media = media(&headers);
        let body = if media.starts_with("text/event-stream") {
            held(self.contract.check_status(&self.method, &self.path, status.as_u16()));
            let mut unread = Vec::new();
            let frames = answer.bytes_stream().inspect_ok(move |bytes| {
                unread.extend_from_slice(bytes);
                while let Some(end) = unread.windows(2).position(|pair| pair == b"\n\n") {
                    let frame: Vec<u8> = unread.drain(..end + 2).collect();
                    self.hold(status, "text/event-stream", &frame);
                }
            });
            Body::wrap_stream(frames)
        } else if media.starts_with("application/json") {
            let bytes = answer.bytes().await?;
            self.hold(status, &media, &bytes);
            bytes.into()
        } else {
            held(self.contract.check_media(&self.method, &self.path, status.as_u16(), &media));
            answer.into()
        };
        let mut whole = held(http::Response::builder().status(status).url(url).body(body));
        *whole.headers_mut() = headers;
        Ok(whole.into())
    }

    fn hold(&self, status: reqwest::StatusCode, media: &str, body: &[u8]) {
        let text = held(std::str::from_utf8(body));
        held(self.contract.check(&self.method, &self.path, status.as_u16(), media, text));
    }
}

fn plain() -> reqwest::Client {
    held(reqwest::Client::builder().no_proxy().build())
}

fn media(headers: &HeaderMap) -> String {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

#[expect(clippy::panic, reason = "an answer that nobody promised fails the test that met it")]
fn held<T, E: Into<anyhow::Error>>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{:#}", error.into()))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// What a test sees of one answer, read to its end; an error when the client did not let it pass.
    async fn met(path: &'static str, head: &str, body: &str) -> Result<String, tokio::task::JoinError> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}{path}", listener.local_addr().unwrap());
        let answer = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        tokio::spawn(async move {
            let mut stream = listener.accept().await.unwrap().0;
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let read = async { Client::orchestratord().get(url).send().await.unwrap().text().await.unwrap() };
        tokio::spawn(read).await
    }

    /// PROOF-007
    #[tokio::test]
    async fn an_answer_that_nobody_promised_fails_whatever_is_read_of_it() {
        let json = "Content-Type: application/json";
        let unknown = r#"{"error":{"code":"NOT_FOUND","message":"m","type":"t","retriable":false}}"#;
        let fine = met("/v2/tasks/x", &format!("404 Not Found\r\n{json}"), unknown).await;
        assert_eq!(fine.unwrap(), unknown);
        assert!(met("/v2/tasks/x", &format!("404 Not Found\r\n{json}"), "{}").await.is_err(), "a shape");
        assert!(met("/v2/tasks/x", &format!("418 Teapot\r\n{json}"), unknown).await.is_err(), "a status");
        assert!(met("/metrics", "200 OK\r\nContent-Type: text/plain", "x 1").await.is_err(), "a media type");
    }

    /// PROOF-007
    #[tokio::test]
    async fn each_frame_of_a_stream_is_held_against_the_contract_when_it_is_read() {
        let head = "200 OK\r\nContent-Type: text/event-stream; charset=utf-8";
        let token = "id: 1\nevent: token\ndata: {\"t\":\"a\",\"i\":0}\n\n";
        assert_eq!(met("/v2/tasks/x/events", head, token).await.unwrap(), token);
        let surprise = format!("{token}event: surprise\ndata: {{}}\n\n");
        assert!(met("/v2/tasks/x/events", head, &surprise).await.is_err());
    }
}
