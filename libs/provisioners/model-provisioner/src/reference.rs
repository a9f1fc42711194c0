//! Model references as people write them, parsed strictly: a reference that parses can be put into
//! a path or a URL without a second look.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where a model comes from. `Display` gives the canonical spelling.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ModelRef {
    /// `builtin:NAME`: ships with the program.
    Builtin(String),
    /// `file:PATH` or a bare path.
    File(PathBuf),
    /// `https://…`: one file.
    Https(String),
    /// `hf:org/repo[:QUANT|/file][@revision]`.
    Hub {
        /// `org/repo`.
        repo: String,
        /// Which file of the repository.
        selector: Selector,
        /// Branch, tag or commit; absent means the default branch.
        revision: Option<String>,
    },
}

/// Which file of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Selector {
    /// The hub's usual choice.
    Default,
    /// The file with this quantisation, as `Q4_K_M`.
    Quant(String),
    /// This file, as `sub/model.gguf`.
    File(String),
}

/// How a reference may be written, for people.
pub(crate) const FORMS: &str =
    "builtin:haiku, file:PATH, https://HOST/FILE.gguf or hf:ORG/REPO[:QUANT|/FILE][@REVISION]";

/// Why a model reference cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("model reference {reference:?}: {problem}; write {FORMS}")]
pub struct ModelRefError {
    reference: String,
    problem: String,
}

impl ModelRef {
    /// Parses and checks a reference. A text without a scheme is a path.
    pub fn parse(text: &str) -> Result<Self, ModelRefError> {
        parse(text).map_err(|problem| ModelRefError { reference: text.to_owned(), problem })
    }
}

impl FromStr for ModelRef {
    type Err = ModelRefError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin(name) => write!(f, "builtin:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Https(url) => f.write_str(url),
            Self::Hub { repo, selector, revision } => {
                write!(f, "hf:{repo}")?;
                match selector {
                    Selector::Default => {}
                    Selector::Quant(quant) => write!(f, ":{quant}")?,
                    Selector::File(file) => write!(f, "/{file}")?,
                }
                revision.as_ref().map_or(Ok(()), |revision| write!(f, "@{revision}"))
            }
        }
    }
}

fn parse(text: &str) -> Result<ModelRef, String> {
    if text.trim() != text || text.is_empty() || text.chars().any(char::is_control) {
        return Err("it is empty or has spaces around it or control characters in it".to_owned());
    }
    let head = text.split('/').next().unwrap_or_default();
    let Some((scheme, rest)) = head.split_once(':').map(|(scheme, _)| (scheme, &text[scheme.len() + 1..]))
    else {
        return Ok(ModelRef::File(PathBuf::from(text)));
    };
    match scheme {
        "builtin"
            if !rest.is_empty()
                && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') =>
        {
            Ok(ModelRef::Builtin(rest.to_owned()))
        }
        "builtin" => Err("the name of a built-in model has only a-z, 0-9 and '-'".to_owned()),
        "file" => file(rest),
        "https" => https(text, rest),
        "http" => {
            Err("http is refused because anyone on the way could replace the model; use https".to_owned())
        }
        "hf" => hub(rest),
        other => Err(format!("the scheme {other:?} is not known")),
    }
}

fn file(rest: &str) -> Result<ModelRef, String> {
    let path = match rest.strip_prefix("//") {
        Some(absolute) if absolute.starts_with('/') => absolute,
        Some(_) => return Err("file:// needs an absolute path, as file:///models/a.gguf".to_owned()),
        None => rest,
    };
    if path.is_empty() {
        return Err("the path is empty".to_owned());
    }
    Ok(ModelRef::File(Path::new(path).to_path_buf()))
}

fn https(text: &str, rest: &str) -> Result<ModelRef, String> {
    let (host, path) =
        rest.strip_prefix("//").and_then(|r| r.split_once('/')).ok_or("it needs a host and a path")?;
    let plain = |c: char| c.is_ascii_graphic() && !"\"'<>\\^`{|}".contains(c);
    if host.is_empty() || path.is_empty() || !text.chars().all(plain) {
        return Err("it needs a host and a path of plain characters".to_owned());
    }
    if host.contains('@') {
        return Err(
            "a user name or password in a URL would end up in logs; use HF_TOKEN or a file".to_owned()
        );
    }
    Ok(ModelRef::Https(text.to_owned()))
}

fn hub(rest: &str) -> Result<ModelRef, String> {
    let (rest, revision) = match rest.split_once('@') {
        Some((_, "")) => return Err("the revision after '@' is empty".to_owned()),
        Some((rest, revision)) => (rest, Some(hub_path(revision, "revision")?)),
        None => (rest, None),
    };
    let (org, rest) =
        rest.split_once('/').ok_or("it needs an organisation and a repository, as hf:org/repo")?;
    let (repo, selector) = match rest.find([':', '/']) {
        None => (rest, Selector::Default),
        Some(at) if rest[at..].starts_with(':') => {
            (&rest[..at], Selector::Quant(name(&rest[at + 1..], "quantisation")?))
        }
        Some(at) => (&rest[..at], Selector::File(hub_path(&rest[at + 1..], "file")?)),
    };
    let repo = format!("{}/{}", name(org, "organisation")?, name(repo, "repository")?);
    Ok(ModelRef::Hub { repo, selector, revision })
}

fn name(text: &str, what: &str) -> Result<String, String> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let ok = (1..=96).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with(['.', '-']);
    if ok && !text.contains("..") {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not a valid {what}"))
    }
}

fn hub_path(text: &str, what: &str) -> Result<String, String> {
    for part in text.split('/') {
        name(part, what)?;
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MPROV-001
    #[test]
    fn every_documented_form_parses_and_prints_back() {
        for text in [
            "builtin:haiku",
            "file:/models/a.gguf",
            "https://host.example/dir/a.gguf?download=1",
            "hf:org/repo",
            "hf:org/Repo-1.5B-GGUF:Q4_K_M",
            "hf:org/repo/sub/a.gguf",
            "hf:org/repo:Q8_0@refs/pr/1",
            "hf:org/repo@0123456789abcdef0123456789abcdef01234567",
        ] {
            assert_eq!(ModelRef::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(ModelRef::parse("file:///a/b").unwrap(), ModelRef::File("/a/b".into()));
        assert_eq!(ModelRef::parse("./a:b.gguf").unwrap(), ModelRef::File("./a:b.gguf".into()));
        let hub = ModelRef::parse("hf:o/r:Q4_K_M@main").unwrap();
        let expected = ModelRef::Hub {
            repo: "o/r".into(),
            selector: Selector::Quant("Q4_K_M".into()),
            revision: Some("main".into()),
        };
        assert_eq!(hub, expected);
    }

    /// MPROV-001
    #[test]
    fn what_could_leave_a_directory_or_a_host_is_refused() {
        for text in [
            "",
            " a",
            "a\n",
            "builtin:",
            "builtin:../x",
            "builtin:Haiku",
            "file:",
            "file://host/x",
            "http://host/x",
            "https://",
            "https://host",
            "https:///x",
            "https://user:pw@host/x",
            "https://h/a b",
            "hf:repo",
            "hf:/repo",
            "hf:org/",
            "hf:org/..",
            "hf:../repo",
            "hf:org/repo/../../x",
            "hf:org/repo:",
            "hf:org/repo:a/b",
            "hf:org/repo@",
            "hf:org/repo@../x",
            "hf:org/repo//x",
            "s3:bucket",
            "hf:-o/r",
        ] {
            let refused = ModelRef::parse(text);
            assert!(refused.is_err(), "{text:?} must be refused, got {refused:?}");
        }
    }

    #[test]
    fn a_refusal_quotes_the_reference_and_shows_the_forms() {
        let error = ModelRef::parse("s3:bucket").unwrap_err().to_string();
        assert!(
            error.contains("\"s3:bucket\"") && error.contains("\"s3\"") && error.contains("hf:ORG/REPO"),
            "{error}"
        );
    }
}
