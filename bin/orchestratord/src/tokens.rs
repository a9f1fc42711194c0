//! Bearer tokens with scopes. Only digests are kept; comparison takes the same time for each.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Why a tokens file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokensError {
    /// It could not be read.
    #[error("reading the tokens file {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others may read it.
    #[error("others may read the tokens file {path}; run `chmod 600 {path}`")]
    Exposed {
        /// The file.
        path: String,
    },
    /// A line is not `data TOKEN` or `control TOKEN`.
    #[error("{path}:{line}: expected `data TOKEN` or `control TOKEN` with at least 16 characters")]
    Line {
        /// The file.
        path: String,
        /// 1-based.
        line: usize,
    },
    /// It holds no token at all.
    #[error("the tokens file {path} holds no token; write a line `control TOKEN`")]
    Empty {
        /// The file.
        path: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Data,
    Control,
}

/// The known tokens.
#[derive(Debug)]
pub(crate) struct Tokens(Vec<(Scope, [u8; 32])>);

/// Who a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    name: String,
    scope: Scope,
}

impl Caller {
    /// Anyone on a loopback daemon without tokens: sees everything, as that machine's user does.
    pub(crate) fn local() -> Self {
        Self { name: "local".to_owned(), scope: Scope::Control }
    }

    pub(crate) fn is_control(&self) -> bool {
        self.scope == Scope::Control
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Tokens {
    /// Reads `data TOKEN` and `control TOKEN` lines; `#` starts a comment.
    pub(crate) fn read(path: &Path) -> Result<Self, TokensError> {
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
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let scope = match line.split_once(char::is_whitespace) {
                Some(("data", _)) => Scope::Data,
                Some(("control", _)) => Scope::Control,
                _ => return Err(TokensError::Line { path: shown, line: i + 1 }),
            };
            let token = line.split_whitespace().nth(1).unwrap_or_default();
            if token.len() < 16 || line.split_whitespace().count() != 2 {
                return Err(TokensError::Line { path: shown, line: i + 1 });
            }
            known.push((scope, digest(token)));
        }
        if known.is_empty() { Err(TokensError::Empty { path: shown }) } else { Ok(Self(known)) }
    }

    /// Whose token it is. Every known token is compared, so that time tells nothing.
    pub(crate) fn find(&self, token: &str) -> Option<Caller> {
        let given = digest(token);
        let mut found = None;
        for (scope, known) in &self.0 {
            if bool::from(known.ct_eq(&given)) {
                let name = known.iter().take(6).map(|b| format!("{b:02x}")).collect();
                found = Some(Caller { name, scope: *scope });
            }
        }
        found
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
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

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "data aaaaaaaaaaaaaaaa\n").unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Tokens::read(file.path()), Err(TokensError::Exposed { .. })));
    }

    #[test]
    fn a_bad_line_is_named() {
        for bad in ["data short\n", "\nroot cccccccccccccccc\n", "data a b c d e f g h\n"] {
            let error = tokens(bad).unwrap_err();
            assert!(matches!(error, TokensError::Line { .. }), "{bad:?}: {error}");
        }
        assert!(matches!(tokens("# nothing\n"), Err(TokensError::Empty { .. })));
    }
}
