//! A name in the file that means nothing there: which it is, what may be there instead, and which of that is
//! nearest to what somebody wrote.

use std::fmt;

/// A parser's message about it, taken apart. `Display` is for people.
pub(crate) struct Unknown<'a> {
    /// Of the map that it is in, or of the value that it is, as far as the parser says it.
    key: Option<&'a str>,
    pub(crate) name: &'a str,
    kind: Kind,
    known: Vec<&'a str>,
}

#[derive(Clone, Copy)]
enum Kind {
    Key,
    Value,
}

impl<'a> Unknown<'a> {
    pub(crate) fn from_message(message: &'a str) -> Option<Self> {
        let kinds = [("unknown field `", Kind::Key), ("unknown variant `", Kind::Value)];
        let (lead, kind) = kinds.into_iter().find(|(lead, _)| message.contains(lead))?;
        let (before, rest) = message.split_once(lead)?;
        let (name, rest) = rest.split_once('`')?;
        let known = rest.split('`').skip(1).step_by(2).collect();
        Some(Self { key: before.strip_suffix(": "), name, kind, known })
    }

    fn nearest(&self) -> Option<&'a str> {
        let scored = self.known.iter().map(|known| (strsim::damerau_levenshtein(self.name, known), *known));
        // Further apart than half its length, a suggestion confuses more than it helps.
        let nearest =
            scored.min().filter(|(distance, known)| distance * 2 <= known.len().max(self.name.len()));
        nearest.map(|(_, known)| known)
    }

    /// As `a`, `b` or `c`.
    fn choices(&self) -> String {
        let quoted: Vec<_> = self.known.iter().map(|known| format!("`{known}`")).collect();
        match quoted.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            Some((last, _)) => last.clone(),
            None => "left out".to_owned(),
        }
    }
}

impl fmt::Display for Unknown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, name, kind, known } = self;
        if let Some(key) = key {
            write!(f, "{key}: ")?;
        }
        match (kind, self.nearest()) {
            (Kind::Key, Some(nearest)) => {
                write!(f, "there is no key `{name}` here; did you mean `{nearest}`?")
            }
            (Kind::Key, None) if known.is_empty() => {
                write!(f, "there is no key `{name}` here, nor any other")
            }
            (Kind::Key, None) => write!(f, "there is no key `{name}` here; it may be {}", self.choices()),
            (Kind::Value, nearest) => {
                write!(f, "must be {}; here it is `{name}`", self.choices())?;
                nearest.map_or(Ok(()), |nearest| write!(f, "; did you mean `{nearest}`?"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OV-007
    #[test]
    fn a_name_that_means_nothing_is_told_with_the_nearest_or_all_that_may_be_there() {
        for (theirs, ours) in [
            (
                "pools[0]: unknown field `modle`, expected one of `id`, `model`, `slots`",
                "pools[0]: there is no key `modle` here; did you mean `model`?",
            ),
            (
                "unknown field `something`, expected one of `id`, `model`, `slots`",
                "there is no key `something` here; it may be `id`, `model` or `slots`",
            ),
            ("a.b: unknown field `c`, there are no fields", "a.b: there is no key `c` here, nor any other"),
            (
                "log.format: unknown variant `jsn`, expected one of `auto`, `text`, `json`",
                "log.format: must be `auto`, `text` or `json`; here it is `jsn`; did you mean `json`?",
            ),
            (
                "pools[0].engine: unknown variant `something`, expected `llamacpp`",
                "pools[0].engine: must be `llamacpp`; here it is `something`",
            ),
            (
                "models.trust: unknown variant `high`, expected `permissive` or `strict`",
                "models.trust: must be `permissive` or `strict`; here it is `high`",
            ),
        ] {
            assert_eq!(Unknown::from_message(theirs).unwrap().to_string(), ours);
        }
        assert!(Unknown::from_message("a: missing field `b`").is_none());
    }
}
