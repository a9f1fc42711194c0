//! Bearer tokens with scopes, from a file of digests; comparison takes the same time for each.
//!
//! A line is `SCOPE NAME sha256:DIGEST`, as `orchestratord token new` writes it, or `SCOPE TOKEN`
//! for a file written by hand; `#` starts a comment. Tokens of one name are one caller, so that a
//! token can be replaced without its tasks becoming somebody else's.

use std::fmt;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use dispatch::CallerId;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use wire::SessionId;

/// What a digest begins with in the file.
const SHA256: &str = "sha256:";
const MIN_TOKEN_BYTES: usize = 16;
const MAX_NAME_BYTES: usize = 63;

/// Why a tokens file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokensError {
    /// It could not be read.
    #[error("cannot read the tokens file {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Others may read it.
    #[error("others may read the tokens file {path}; run `chmod 600 {path}`")]
    Exposed {
        /// The file.
        path: String,
    },
    /// A line is none of ours.
    #[error(
        "{path}:{line}: expected `data NAME sha256:DIGEST` or `control NAME sha256:DIGEST`, as \
         `orchestratord token new` writes them, or `data TOKEN` or `control TOKEN` with at least \
         {MIN_TOKEN_BYTES} characters"
    )]
    Line {
        /// The file.
        path: String,
        /// 1-based.
        line: usize,
    },
    /// It holds no token at all.
    #[error("the tokens file {path} holds no token; `orchestratord token new --scope control` adds one")]
    Empty {
        /// The file.
        path: String,
    },
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scope {
    /// Submit tasks and see one's own.
    Data,
    /// Everything.
    Control,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "data",
            Self::Control => "control",
        })
    }
}

/// The known tokens.
#[derive(Debug)]
pub(crate) struct Tokens(Vec<Known>);

#[derive(Debug)]
struct Known {
    caller: Caller,
    digest: [u8; 32],
}

/// Who a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    name: String,
    scope: Scope,
    /// It gave a key, known here or not.
    keyed: bool,
}

impl Caller {
    /// Anyone on a loopback daemon without tokens: sees everything, as that machine's user does.
    /// Any key is let in and names its caller.
    pub(crate) fn local(key: Option<&str>) -> Self {
        let name = key.map_or_else(|| "local".to_owned(), |key| name_of(&digest(key)));
        Self { name, scope: Scope::Control, keyed: key.is_some() }
    }

    /// Whose turn its tasks take: its key's owner's, else its session's, else its address's. Without
    /// a key it can only come from this machine: a daemon that listens elsewhere demands one.
    pub(crate) fn id(&self, session: Option<&SessionId>) -> CallerId {
        match session {
            _ if self.keyed => CallerId::key(&self.name),
            Some(session) => CallerId::session(session),
            None => CallerId::peer(Ipv4Addr::LOCALHOST.into()),
        }
    }

    pub(crate) fn is_control(&self) -> bool {
        self.scope == Scope::Control
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Tokens {
    /// Reads the file; one without any token is an error.
    pub(crate) fn read(path: &Path) -> Result<Self, TokensError> {
        let tokens = Self::reread(path)?;
        if tokens.0.is_empty() {
            return Err(TokensError::Empty { path: path.display().to_string() });
        }
        Ok(tokens)
    }

    /// Reads the file again while the daemon runs: one without any token lets nobody in, which is
    /// what taking every token out of it asks for.
    pub(crate) fn reread(path: &Path) -> Result<Self, TokensError> {
        let shown = path.display().to_string();
        let unreadable = |source| TokensError::Read { path: shown.clone(), source };
        let mode = std::fs::metadata(path).map_err(unreadable)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(TokensError::Exposed { path: shown });
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let mut known = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                let bad = || TokensError::Line { path: shown.clone(), line: i + 1 };
                known.push(Known::parse(line).ok_or_else(bad)?);
            }
        }
        Ok(Self(known))
    }

    /// Whose token it is. Every known token is compared, so that time tells nothing.
    pub(crate) fn find(&self, token: &str) -> Option<Caller> {
        let given = digest(token);
        let mut found = None;
        for known in &self.0 {
            if bool::from(known.digest.ct_eq(&given)) {
                found = Some(known.caller.clone());
            }
        }
        found
    }
}

impl Known {
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let scope = match *words.first()? {
            "data" => Scope::Data,
            "control" => Scope::Control,
            _ => return None,
        };
        match words[1..] {
            [token] if token.len() >= MIN_TOKEN_BYTES && !token.starts_with(SHA256) => {
                let digest = digest(token);
                let name = name_of(&digest);
                Some(Self { caller: Caller { name, scope, keyed: true }, digest })
            }
            [name, digest] if is_name(name) => {
                let digest = unhex(digest.strip_prefix(SHA256)?)?;
                Some(Self { caller: Caller { name: name.to_owned(), scope, keyed: true }, digest })
            }
            _ => None,
        }
    }
}

/// A new token and the line that lets it in.
pub(crate) fn generate(scope: Scope, name: &str) -> (String, String) {
    let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    let line = format!("{scope} {name} {SHA256}{}\n", hex(&digest(&token)));
    (token, line)
}

/// Whether a caller may be called that: it appears in logs, never in a path.
pub(crate) fn is_name(name: &str) -> bool {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(known)
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Of a key that nobody gave a name: the first digits of its digest tell it from others.
fn name_of(digest: &[u8; 32]) -> String {
    hex(&digest[..6])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Result<Tokens, TokensError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Tokens::read(file.path())
    }

    #[test]
    fn a_token_has_the_scope_of_its_line() {
        let known = tokens("# ours\ndata aaaaaaaaaaaaaaaa\ncontrol bbbbbbbbbbbbbbbb\n").unwrap();
        assert!(!known.find("aaaaaaaaaaaaaaaa").unwrap().is_control());
        assert!(known.find("bbbbbbbbbbbbbbbb").unwrap().is_control());
        assert_eq!(known.find("aaaaaaaaaaaaaaab"), None);
    }

    /// SEC-009
    #[test]
    fn a_generated_token_is_let_in_by_its_line_which_does_not_hold_it() {
        let (token, line) = generate(Scope::Control, "ops");
        assert!(!line.contains(&token), "{line}");
        let known = tokens(&format!("{line}data web {}", line.rsplit(' ').next().unwrap())).unwrap();
        let caller = known.find(&token).unwrap();
        assert_eq!(caller.name(), "web", "the last line of a token wins");
        let known = tokens(&line).unwrap();
        assert_eq!(
            (known.find(&token).unwrap().name(), known.find(&token).unwrap().is_control()),
            ("ops", true)
        );
        let digest = line.trim().rsplit(' ').next().unwrap();
        assert_eq!(known.find(digest), None, "the digest is not the token");
        assert_eq!(known.find(digest.strip_prefix(SHA256).unwrap()), None);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "data aaaaaaaaaaaaaaaa\n").unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Tokens::read(file.path()), Err(TokensError::Exposed { .. })));
    }

    #[test]
    fn a_bad_line_is_named() {
        for bad in [
            "data short\n",
            "\nroot cccccccccccccccc\n",
            "data a b c d e f g h\n",
            "data web sha256:12\n",
            "data We sha256:00\n",
            "data sha256:0000000000000000\n",
        ] {
            let error = tokens(bad).unwrap_err();
            assert!(matches!(error, TokensError::Line { .. }), "{bad:?}: {error}");
        }
        assert!(matches!(tokens("# nothing\n"), Err(TokensError::Empty { .. })));
    }

    /// ORCHD-FAIR-001
    #[test]
    fn a_key_names_its_caller_and_without_one_the_session_does() {
        let session = SessionId::try_new("s").unwrap();
        let id = |key, session| Caller::local(key).id(session);
        assert_eq!(id(Some("sk-a"), Some(&session)), id(Some("sk-a"), None));
        assert_ne!(id(Some("sk-a"), None), id(Some("sk-b"), None));
        assert_eq!(id(None, Some(&session)), CallerId::session(&session));
        assert_eq!(id(None, None).to_string(), "peer 127.0.0.1");
        assert!(!Caller::local(Some("sk-a")).name().contains("sk-a"), "a key is never a name");
    }

    /// SEC-010
    #[test]
    fn taking_every_token_out_of_the_file_lets_nobody_in() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# all gone\n").unwrap();
        assert_eq!(Tokens::reread(file.path()).unwrap().find("aaaaaaaaaaaaaaaa"), None);
    }
}
