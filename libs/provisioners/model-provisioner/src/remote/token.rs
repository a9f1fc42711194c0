//! The hub's token: `HF_TOKEN`, else the file in which `hf auth login` keeps it. It is read when the hub is about
//! to be asked, so that who logs in meanwhile need not start anything again.
//!
//! One that cannot be used stops nothing, because most models need none; whoever is refused then is told why it
//! was not sent.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

/// Tokens have a few dozen bytes; whatever is longer than this is another file.
const LIMIT: u64 = 4096;

/// Where to look for a token.
#[derive(Debug, Clone)]
pub(crate) enum TokenPlace {
    /// `HF_TOKEN` has one.
    Variable(Unchecked),
    /// What `hf auth login` writes, if it did.
    File(PathBuf),
    /// There is not even a home directory.
    Nowhere,
}

/// The value of `HF_TOKEN`, never printed.
#[derive(Clone)]
pub(crate) struct Unchecked(OsString);

/// Sent to the hub only; never printed.
#[derive(Clone)]
pub(crate) struct Token(String);

/// With which token the hub is asked, for whoever it refuses.
#[derive(Debug, Clone)]
pub(crate) enum Asked {
    With { token: Token, place: String },
    Without(NoToken),
}

/// Why no token is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoToken {
    /// Nobody gave one.
    None { place: Option<PathBuf> },
    /// The one that was given is of no use.
    Unusable { place: String, problem: String },
}

impl TokenPlace {
    /// As the hub's own programs look for it. `path` expands a `~` and is `None` where a variable is not set.
    pub(super) fn from_vars(
        var: impl Fn(&str) -> Option<OsString>,
        path: impl Fn(&str) -> Option<PathBuf>,
        hub_home: Option<PathBuf>,
    ) -> Self {
        let given = var(VARIABLE).filter(|token| !token.to_string_lossy().trim().is_empty());
        match given {
            Some(token) => Self::Variable(Unchecked(token)),
            None => path("HF_TOKEN_PATH")
                .or_else(|| hub_home.map(|home| home.join("token")))
                .map_or(Self::Nowhere, Self::File),
        }
    }

    /// Looks now.
    pub(crate) fn look(&self) -> Asked {
        let (place, read) = match self {
            Self::Nowhere => return Asked::Without(NoToken::None { place: None }),
            Self::Variable(Unchecked(value)) => {
                (VARIABLE.to_owned(), value.to_str().map(str::to_owned).ok_or(NO_TOKEN.to_owned()))
            }
            Self::File(path) => match read(path) {
                Ok(None) => return Asked::Without(NoToken::None { place: Some(path.clone()) }),
                Ok(Some(text)) => (path.display().to_string(), Ok(text)),
                Err(problem) => (path.display().to_string(), Err(problem)),
            },
        };
        match read.and_then(|text| Token::parse(&text)) {
            Ok(token) => Asked::With { token, place },
            Err(problem) => Asked::Without(NoToken::Unusable { place, problem }),
        }
    }
}

const VARIABLE: &str = "HF_TOKEN";
const NO_TOKEN: &str = "it is no token: one is a single line of letters, digits and signs";

/// `None` where there is no such file, or nothing in it.
fn read(path: &Path) -> Result<Option<String>, String> {
    if !path.is_absolute() {
        return Err("it is not an absolute path".to_owned());
    }
    match path.metadata() {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(format!("it cannot be read ({error})")),
        // A pipe would be waited for.
        Ok(meta) if !meta.is_file() => return Err("it is not a file".to_owned()),
        Ok(_) => {}
    }
    let mut bytes = Vec::new();
    let file = File::open(path).and_then(|file| file.take(LIMIT + 1).read_to_end(&mut bytes));
    file.map_err(|error| format!("it cannot be read ({error})"))?;
    if bytes.len() as u64 > LIMIT {
        return Err(NO_TOKEN.to_owned());
    }
    let text = String::from_utf8(bytes).map_err(|_| NO_TOKEN.to_owned())?;
    Ok(Some(text).filter(|text| !text.trim().is_empty()))
}

impl Token {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        // With a line break in it, it would be a second header.
        match text.bytes().all(|b| b.is_ascii_graphic()) {
            true => Ok(Self(text.to_owned())),
            false => Err(NO_TOKEN.to_owned()),
        }
    }

    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl Asked {
    pub(crate) fn token(&self) -> Option<Token> {
        match self {
            Self::With { token, .. } => Some(token.clone()),
            Self::Without(_) => None,
        }
    }

    /// What whoever waits should know although nobody was refused yet.
    pub(crate) fn notice(&self) -> Option<String> {
        match self {
            Self::Without(NoToken::Unusable { place, problem }) => {
                Some(format!("the hub is asked without the token in {place}: {problem}; {}", mended(place)))
            }
            Self::With { .. } | Self::Without(NoToken::None { .. }) => None,
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::With { place, .. } => write!(f, "it was asked with the token in {place}"),
            Self::Without(NoToken::Unusable { place, problem }) => {
                write!(f, "it was asked without the token in {place}: {problem}; {}", mended(place))
            }
            Self::Without(NoToken::None { place: None }) => {
                f.write_str("it was asked without a token: set HF_TOKEN")
            }
            Self::Without(NoToken::None { place: Some(place) }) => write!(
                f,
                "it was asked without a token: set HF_TOKEN, or log in with `hf auth login`, which writes {}",
                place.display()
            ),
        }
    }
}

/// What to do about one that cannot be used.
fn mended(place: &str) -> &'static str {
    match place {
        VARIABLE => "correct it, or unset it to use the one of `hf auth login`",
        _ => "log in again with `hf auth login`, or set HF_TOKEN",
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl fmt::Debug for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unchecked(…)")
    }
}
