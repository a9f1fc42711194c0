//! The bearer token of this daemon: random, shown to nobody, compared in constant time.

use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::durable;
use crate::launch::random_key;

/// A secret that never appears in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new random one.
    ///
    /// # Errors
    /// The kernel gives no randomness.
    pub fn generate() -> io::Result<Self> {
        random_key().map(Self)
    }

    /// The token in a file, or a new one that is written there (0600). Blocking.
    ///
    /// # Errors
    /// The file cannot be read or made, is empty, or others may read it.
    pub fn from_file(path: &Path) -> io::Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => checked(path, text.trim()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let token = Self::generate()?;
                durable::write_private(path, format!("{}\n", token.0).as_bytes())?;
                Ok(token)
            }
            Err(e) => Err(e),
        }
    }

    /// The secret itself, for whoever must send it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether somebody sent this token. Digests are compared, so the time says nothing about it.
    pub(crate) fn is(&self, sent: &str) -> bool {
        Sha256::digest(&self.0).ct_eq(&Sha256::digest(sent)).into()
    }
}

fn checked(path: &Path, text: &str) -> io::Result<Token> {
    let refuse = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidData, why.to_owned()));
    if std::fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        return refuse("others may read it; chmod 600 it, or delete it and a new one is made");
    }
    if text.len() < 16 || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return refuse(
            "it must hold one token of at least 16 visible characters; delete it and a new one is made",
        );
    }
    Ok(Token(text.to_owned()))
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_is_made_once_private_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let token = Token::from_file(&path).unwrap();
        assert_eq!(Token::from_file(&path).unwrap(), token);
        assert!(token.is(token.expose()) && !token.is("") && !token.is(&token.expose()[1..]));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Token::from_file(&path).unwrap_err().to_string().contains("chmod 600"));
        assert!(!format!("{token:?}").contains(token.expose()));
    }
}
