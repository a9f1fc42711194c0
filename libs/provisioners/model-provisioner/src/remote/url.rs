//! Which URLs may be asked, as a type: a [`SafeUrl`] exists only after [`Rule::admit`] said yes, and
//! nothing else can be requested.

use std::fmt;
use std::net::IpAddr;

use ureq::http::Uri;

use super::FetchError;

/// https everywhere; plain http only to this machine, and only where the hub itself is configured to
/// be on this machine (a mirror, a test).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    HttpsOnly,
    LoopbackHttpToo,
}

/// A URL that passed the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SafeUrl(Uri);

impl Rule {
    pub(crate) fn admit(self, text: &str) -> Result<SafeUrl, FetchError> {
        let refuse = |problem: &str| FetchError::Refused { url: shown(text), problem: problem.to_owned() };
        let uri: Uri = text.parse().map_err(|_| refuse("it is not a URL"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(refuse("it is not a complete URL"));
        };
        if authority.as_str().contains('@') {
            return Err(refuse("a user name or password in a URL would end up in logs"));
        }
        let host = authority.host();
        match (self, scheme) {
            (_, "https") => Ok(SafeUrl(uri)),
            (Self::LoopbackHttpToo, "http") if is_loopback(host) => Ok(SafeUrl(uri)),
            _ => Err(refuse("only https is fetched, because anyone on the way could replace the model")),
        }
    }
}

/// Queries of redirects carry signatures; errors and logs do without them.
fn shown(text: &str) -> String {
    text.split('?').next().unwrap_or_default().to_owned()
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl SafeUrl {
    /// With its query: for the request itself.
    pub(crate) fn uri(&self) -> &Uri {
        &self.0
    }

    pub(crate) fn is_plain_http(&self) -> bool {
        self.0.scheme_str() == Some("http")
    }

    pub(crate) fn same_origin(&self, other: &Self) -> bool {
        let origin = |url: &Self| {
            let port = url.0.port_u16().unwrap_or(if url.is_plain_http() { 80 } else { 443 });
            (url.0.scheme_str().map(str::to_owned), url.0.host().map(str::to_ascii_lowercase), port)
        };
        origin(self) == origin(other)
    }

    /// The last part of the path.
    pub(crate) fn file_name(&self) -> String {
        self.0.path().rsplit('/').next().unwrap_or_default().to_owned()
    }

    /// The URL of `file`, a plain name, in the same directory; the query stays.
    pub(crate) fn beside(&self, file: &str, rule: Rule) -> Result<Self, FetchError> {
        let (path, query) = (self.0.path(), self.0.query());
        let dir = path.rfind('/').map_or("/", |at| &path[..=at]);
        let query = query.map_or_else(String::new, |query| format!("?{query}"));
        let scheme = self.0.scheme_str().unwrap_or("https");
        let authority = self.0.authority().map_or("", |a| a.as_str());
        rule.admit(&format!("{scheme}://{authority}{dir}{file}{query}"))
    }

    /// Where a `Location` header leads to from here.
    pub(crate) fn join(&self, location: &str, rule: Rule) -> Result<Self, FetchError> {
        let scheme = self.0.scheme_str().unwrap_or("https");
        let authority = self.0.authority().map_or("", |a| a.as_str());
        if location.starts_with("//") {
            rule.admit(&format!("{scheme}:{location}"))
        } else if location.starts_with('/') {
            rule.admit(&format!("{scheme}://{authority}{location}"))
        } else {
            rule.admit(location)
        }
    }
}

impl fmt::Display for SafeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0.to_string()))
    }
}

/// The hub's base URL; it decides the rule for everything fetched with it.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    base: SafeUrl,
    rule: Rule,
}

impl Endpoint {
    pub(crate) fn parse(value: &str) -> Result<Self, FetchError> {
        let base = Rule::LoopbackHttpToo.admit(value.trim_end_matches('/')).map_err(|_| {
            let problem = "it has to be https, or http on this machine".to_owned();
            FetchError::Endpoint { value: shown(value), problem }
        })?;
        let rule = if base.is_plain_http() { Rule::LoopbackHttpToo } else { Rule::HttpsOnly };
        Ok(Self { base, rule })
    }

    pub(crate) fn rule(&self) -> Rule {
        self.rule
    }

    pub(crate) fn base(&self) -> &SafeUrl {
        &self.base
    }

    /// `path` begins with `/` and is encoded.
    pub(crate) fn at(&self, path: &str) -> Result<SafeUrl, FetchError> {
        self.rule.admit(&format!("{}{path}", self.base.to_string().trim_end_matches('/')))
    }
}

/// One or several path segments: `/` stays when `keep_slash`.
pub(crate) fn encode(text: &str, keep_slash: bool) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b) || (keep_slash && b == b'/');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_and_only_when_the_hub_is_there() {
        let local = Endpoint::parse("http://127.0.0.1:9/").unwrap().rule();
        let public = Endpoint::parse("https://hub.example").unwrap().rule();
        assert_eq!((local, public), (Rule::LoopbackHttpToo, Rule::HttpsOnly));
        for (rule, url, ok) in [
            (public, "https://a.example/x", true),
            (public, "http://a.example/x", false),
            (public, "http://127.0.0.1/x", false),
            (local, "http://[::1]:8/x", true),
            (local, "http://localhost/x", true),
            (local, "http://a.example/x", false),
            (local, "http://127.0.0.1.a.example/x", false),
            (local, "https://u:p@a.example/x", false),
            (local, "ftp://127.0.0.1/x", false),
            (local, "/x", false),
        ] {
            assert_eq!(rule.admit(url).is_ok(), ok, "{rule:?} {url}");
        }
        assert!(Endpoint::parse("http://hub.example").is_err());
    }

    #[test]
    fn a_redirect_is_resolved_and_held_to_the_rule() {
        let from = Rule::HttpsOnly.admit("https://a.example/dir/x?q=1").unwrap();
        let at = |location| from.join(location, Rule::HttpsOnly).map(|url| url.to_string());
        assert_eq!(at("/y?sig=1").unwrap(), "https://a.example/y");
        assert_eq!(at("//b.example/z").unwrap(), "https://b.example/z");
        assert!(at("http://b.example/z").is_err());
        assert_eq!(encode("refs/pr/1 ü", false), "refs%2Fpr%2F1%20%C3%BC");
    }
}
