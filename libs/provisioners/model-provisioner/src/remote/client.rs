//! One request at a time, on a thread of its own, so that whoever waits can stop at once.
//!
//! Redirects are followed by hand: each hop is held to the rule, and the token goes to the hub's own
//! origin only. Its TLS stack is its own; proxy variables are honoured except for this machine.

use std::io::Read as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ureq::http::{Request, Response, StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body as UreqBody};

use super::chunk::{AHEAD, Buffers, CHUNK, Chunk};
use super::token::{Asked, NoToken};
use super::url::{Endpoint, Rule, SafeUrl};
use super::{FetchError, Patience};
use crate::Cancel;

/// Hops after which a redirect is a circle.
const HOPS: usize = 8;
/// How often a wait looks whether it is still wanted.
const POLL: Duration = Duration::from_millis(100);

#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// Who gets the token.
    hub: Option<SafeUrl>,
    rule: Rule,
    asked: Asked,
    patience: Patience,
    /// One for https and one for plain http, so that a connection that is free again can be used again.
    agents: Arc<[OnceLock<Agent>; 2]>,
}

/// What to ask.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    /// Only the headers, of the hub itself: a redirect to another host is the answer.
    Head,
    /// Only the headers, wherever redirects lead.
    HeadAnywhere,
    /// The body from this byte on, up to `to` where it is given, if the validator still holds.
    Get { from: u64, to: Option<u64>, if_range: Option<String> },
}

impl Ask {
    /// All of it.
    pub(crate) fn whole() -> Self {
        Self::Get { from: 0, to: None, if_range: None }
    }

    /// The `Range` header; none for all of it.
    fn range(&self) -> Option<String> {
        match self {
            Self::Head | Self::HeadAnywhere | Self::Get { from: 0, to: None, .. } => None,
            Self::Get { from, to: None, .. } => Some(format!("bytes={from}-")),
            // The header's last byte is the last one that is wanted.
            Self::Get { from, to: Some(to), .. } => Some(format!("bytes={from}-{}", to.saturating_sub(1))),
        }
    }
}

/// Status and headers of the answer.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    /// `name` in lower case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.trim().parse().ok()
    }

    /// Worth another try.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self.status, 408 | 425 | 429 | 500..=599)
    }
}

/// Why there is no answer, or no more of it.
#[derive(Debug)]
pub(crate) enum Problem {
    /// Worth another try.
    Transient(String),
    Final(FetchError),
}

impl From<FetchError> for Problem {
    fn from(error: FetchError) -> Self {
        Self::Final(error)
    }
}

enum Event {
    Head(Head),
    Chunk(Chunk),
    End,
    Failed(Problem),
}

/// The rest of an answer.
pub(crate) struct Incoming<'a> {
    events: Receiver<Event>,
    stall: Duration,
    cancel: &'a Cancel,
}

impl Client {
    pub(crate) fn new(endpoint: &Endpoint, asked: Asked, patience: Patience) -> Self {
        let hub = Some(endpoint.base().clone());
        Self { hub, rule: endpoint.rule(), asked, patience, agents: Arc::default() }
    }

    /// Knows no hub and no token.
    pub(crate) fn anonymous(rule: Rule, patience: Patience) -> Self {
        let asked = Asked::Without(NoToken::None { place: None });
        Self { hub: None, rule, asked, patience, agents: Arc::default() }
    }

    /// With which token the hub is asked.
    pub(crate) fn asked(&self) -> &Asked {
        &self.asked
    }

    pub(crate) fn ask<'a>(
        &self,
        url: &SafeUrl,
        ask: Ask,
        cancel: &'a Cancel,
    ) -> Result<(Head, Incoming<'a>), Problem> {
        let (sender, events) = sync_channel(AHEAD);
        let (client, url) = (self.clone(), url.clone());
        std::thread::spawn(move || {
            if let Err(problem) = client.carry(&url, &ask, &sender) {
                // Nobody waits any more: nobody needs to know.
                let _ = sender.send(Event::Failed(problem));
            }
        });
        let stall = self.patience.stall;
        let mut incoming = Incoming { events, stall: stall.saturating_add(self.patience.connect), cancel };
        let head = match incoming.event()? {
            Event::Head(head) => head,
            Event::Failed(problem) => return Err(problem),
            Event::Chunk(_) | Event::End => return Err(Problem::Transient("no headers came".to_owned())),
        };
        incoming.stall = stall;
        Ok((head, incoming))
    }

    /// The whole of a small answer.
    pub(crate) fn read(
        &self,
        url: &SafeUrl,
        limit: usize,
        cancel: &Cancel,
    ) -> Result<(Head, Vec<u8>), Problem> {
        let (head, mut incoming) = self.ask(url, Ask::whole(), cancel)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = incoming.next()? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > limit {
                let problem = format!("it is longer than {limit} bytes");
                return Err(FetchError::Answer { url: url.to_string(), problem }.into());
            }
        }
        Ok((head, bytes))
    }

    /// On the thread: ask, follow, pass on.
    fn carry(&self, url: &SafeUrl, ask: &Ask, sender: &SyncSender<Event>) -> Result<(), Problem> {
        let response = self.follow(url, ask)?;
        let text = |value: &header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = response.headers().iter().map(|(key, value)| (key.as_str().to_owned(), text(value)));
        let head = Head { status: response.status().as_u16(), headers: headers.collect() };
        if sender.send(Event::Head(head)).is_err() {
            return Ok(());
        }
        let (mut body, buffers) = (response.into_body().into_reader(), Buffers::default());
        loop {
            let read = buffers.filled(|buffer| body.read(buffer));
            let chunk = read.map_err(|e| Problem::Transient(e.to_string()))?;
            let ended = chunk.is_empty();
            let event = if ended { Event::End } else { Event::Chunk(chunk) };
            if sender.send(event).is_err() || ended {
                return Ok(());
            }
        }
    }

    fn follow(&self, url: &SafeUrl, ask: &Ask) -> Result<Response<UreqBody>, Problem> {
        let mut url = url.clone();
        for _ in 0..HOPS {
            let response = self.hop(&url, ask)?;
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let next = match (is_redirect(response.status()), location) {
                (true, Some(location)) => url.join(location, self.rule)?,
                _ => return Ok(response),
            };
            if matches!(ask, Ask::Head) && !next.same_origin(&url) {
                return Ok(response);
            }
            url = next;
        }
        let problem = format!("it led through more than {HOPS} redirects");
        Err(FetchError::Refused { url: url.to_string(), problem }.into())
    }

    fn hop(&self, url: &SafeUrl, ask: &Ask) -> Result<Response<UreqBody>, Problem> {
        let mut request = Request::builder().uri(url.uri().clone());
        if matches!(ask, Ask::Head | Ask::HeadAnywhere) {
            request = request.method("HEAD");
        }
        if let Some(range) = ask.range() {
            request = request.header(header::RANGE, range);
            if let Ask::Get { if_range: Some(validator), .. } = ask {
                request = request.header(header::IF_RANGE, validator);
            }
        }
        let to_the_hub = self.hub.as_ref().is_some_and(|hub| url.same_origin(hub));
        if let Some(token) = self.asked.token().filter(|_| to_the_hub) {
            request = request.header(header::AUTHORIZATION, token.bearer());
        }
        let request = request.body(()).map_err(|e| Problem::Transient(e.to_string()))?;
        self.agent(url).run(request).map_err(|error| match error {
            ureq::Error::RequireHttpsOnly(_) => {
                FetchError::Refused { url: url.to_string(), problem: "it is not https".to_owned() }.into()
            }
            other => Problem::Transient(other.to_string()),
        })
    }

    fn agent(&self, url: &SafeUrl) -> &Agent {
        let [secure, plain] = &*self.agents;
        let agent = if url.is_plain_http() { plain } else { secure };
        agent.get_or_init(|| self.new_agent(url.is_plain_http()))
    }

    fn new_agent(&self, plain: bool) -> Agent {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .https_only(!plain)
            .tls_config(tls)
            .max_redirects(0)
            .http_status_as_error(false)
            .input_buffer_size(CHUNK)
            .user_agent(concat!("llama-orch/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(self.patience.connect))
            .timeout_connect(Some(self.patience.connect))
            .timeout_recv_response(Some(self.patience.stall))
            .timeout_per_read(Some(self.patience.stall));
        // Plain http is this machine only, and no proxy leads there.
        let config = if plain { config.proxy(None) } else { config };
        config.build().into()
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

impl Incoming<'_> {
    /// The next bytes; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Chunk>, Problem> {
        match self.event()? {
            Event::Chunk(bytes) => Ok(Some(bytes)),
            Event::End => Ok(None),
            Event::Failed(problem) => Err(problem),
            Event::Head(_) => Err(Problem::Transient("headers came twice".to_owned())),
        }
    }

    fn event(&mut self) -> Result<Event, Problem> {
        let since = Instant::now();
        loop {
            if self.cancel.is_cancelled() {
                return Err(FetchError::Cancelled.into());
            }
            let left = self.stall.saturating_sub(since.elapsed());
            match self.events.recv_timeout(left.min(POLL)) {
                Ok(event) => return Ok(event),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Problem::Transient("the connection ended".to_owned()));
                }
                Err(RecvTimeoutError::Timeout) if since.elapsed() >= self.stall => {
                    return Err(Problem::Transient(format!("no byte came for {:?}", self.stall)));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}
