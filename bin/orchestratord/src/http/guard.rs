//! What every request passes before a handler sees it: `Host` and `Origin`, bearer token. A web page must not be able to drive a daemon on loopback.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use wire::operations::Access;
use wire::{ErrorBody, ErrorCode};

use super::error::ApiError;
use crate::reload::Current;
use crate::tokens::{Caller, Tokens};

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What the guard checks against.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    pub(crate) hosts: Arc<[String]>,
    pub(crate) listen: SocketAddr,
    pub(crate) tokens: Option<Current<Tokens>>,
}

/// Refuses foreign `Host` names and cross-origin requests.
pub(crate) async fn same_origin(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let authority = request.uri().authority().map(|authority| authority.as_str());
    match guard.check_origin(authority, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Requires a token of the right scope, where tokens are configured, and notes whose it is.
pub(crate) async fn authorise(
    State((guard, access)): State<(Guard, Access)>,
    mut request: Request,
    next: Next,
) -> Response {
    match guard.check_token(request.headers(), access) {
        Ok(caller) => {
            request.extensions_mut().insert(caller.clone());
            let mut response = next.run(request).await;
            // For the request log.
            response.extensions_mut().insert(caller);
            response
        }
        Err(error) => error.into_response(),
    }
}

impl Guard {
    fn check_origin(&self, uri_host: Option<&str>, headers: &HeaderMap) -> Result<(), ApiError> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host_header = hosts.next().and_then(|v| v.to_str().ok());
        if hosts.next().is_some() {
            return Err(ApiError::invalid("Host", "the request has several Host headers"));
        }
        // The request line wins over the header, as in RFC 9112.
        let Some(host) = uri_host.or(host_header) else {
            return Err(ApiError::invalid("Host", "the request has no Host header"));
        };
        if !self.knows(host) {
            return Err(ErrorBody::new(
                ErrorCode::Forbidden,
                format!("the host name {host:?} is not served here"),
            )
            .hint("add it to api.hosts in the configuration")
            .into());
        }
        let cross_site = headers.get("sec-fetch-site").is_some_and(|v| v == "cross-site");
        let foreign = headers.get(header::ORIGIN).is_some_and(|origin| !same_authority(origin, host));
        if cross_site || foreign {
            return Err(ApiError::new(ErrorCode::Forbidden, "cross-origin requests are refused"));
        }
        Ok(())
    }

    fn knows(&self, host: &str) -> bool {
        let name = host_name(host);
        if let Ok(ip) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
            return ip.is_loopback() || ip == self.listen.ip() || self.listen.ip().is_unspecified();
        }
        self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    fn check_token(&self, headers: &HeaderMap, access: Access) -> Result<Caller, ApiError> {
        let given = headers.get(header::AUTHORIZATION).and_then(|v| bearer(v.to_str().ok()?));
        let given = given.or_else(|| headers.get(&API_KEY)?.to_str().ok());
        let Some(tokens) = &self.tokens else {
            return Ok(Caller::local(given.filter(|key| !key.is_empty())));
        };
        let Some(token) = given else {
            return Err(ErrorBody::new(ErrorCode::MissingToken, "this daemon needs a bearer token")
                .hint("send `Authorization: Bearer <token>`")
                .into());
        };
        match tokens.get().find(token) {
            Some(caller) if access == Access::Control && !caller.is_control() => {
                Err(ApiError::new(ErrorCode::Forbidden, "this needs a token of the control scope"))
            }
            Some(caller) => Ok(caller),
            None => Err(ApiError::new(ErrorCode::BadToken, "the bearer token is not known here")),
        }
    }
}

/// The token of an `Authorization` header; the scheme's case does not matter.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The host part of `host:port`, `[v6]:port` or either without a port.
fn host_name(host: &str) -> &str {
    match host.rfind(']') {
        Some(end) => &host[..=end],
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

fn same_authority(origin: &HeaderValue, host: &str) -> bool {
    let origin = origin.to_str().unwrap_or_default();
    origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard {
            hosts: Arc::from(["localhost".to_owned()]),
            listen: ([127, 0, 0, 1], 8080).into(),
            tokens: None,
        }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn a_rebound_dns_name_is_refused() {
        for host in ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "10.0.0.1:8080"] {
            let headers: HeaderMap = [(header::HOST, HeaderValue::from_static(host))].into_iter().collect();
            assert!(guard().check_origin(None, &headers).is_err(), "{host} must be refused");
        }
        for host in ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080"] {
            let headers: HeaderMap = [(header::HOST, HeaderValue::from_static(host))].into_iter().collect();
            assert!(guard().check_origin(None, &headers).is_ok(), "{host} must be accepted");
        }
    }

    #[test]
    fn the_scheme_of_a_token_may_be_written_in_any_case() {
        assert_eq!(bearer("bearer abc"), Some("abc"));
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("abc"), None);
    }

    #[test]
    fn the_request_line_decides_the_host_and_two_headers_are_refused() {
        let mut headers = headers(&[("host", "localhost:8080")]);
        assert!(guard().check_origin(Some("evil.example"), &headers).is_err());
        headers.append(header::HOST, HeaderValue::from_static("evil.example"));
        assert!(guard().check_origin(None, &headers).is_err());
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        let foreign = headers(&[("host", "localhost:8080"), ("origin", "http://evil.example")]);
        assert!(guard().check_origin(None, &foreign).is_err());
        let null = headers(&[("host", "localhost:8080"), ("origin", "null")]);
        assert!(guard().check_origin(None, &null).is_err());
        let fetch = headers(&[("host", "localhost:8080"), ("sec-fetch-site", "cross-site")]);
        assert!(guard().check_origin(None, &fetch).is_err());
        let own = headers(&[("host", "localhost:8080"), ("origin", "http://localhost:8080")]);
        assert!(guard().check_origin(None, &own).is_ok());
    }
}
