//! Query parameters: known names only, each at most once, errors that name the one at fault.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use http::Uri;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// The parameters of one request.
pub(super) struct Params(BTreeMap<String, String>);

impl Params {
    /// Reads the query of `uri`; a name that is not in `known` is refused.
    pub(super) fn of(uri: &Uri, known: &[&str]) -> Result<Self, ApiError> {
        let mut params = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            if !known.contains(&name.as_ref()) {
                let known = known.join(", ");
                return Err(ApiError::invalid(
                    &name,
                    format!("there is no parameter of this name; known are: {known}"),
                ));
            }
            if params.insert(name.to_string(), value.into_owned()).is_some() {
                return Err(ApiError::invalid(&name, format!("{name} is given twice")));
            }
        }
        Ok(Self(params))
    }

    /// A text; empty counts as absent.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A switch: present, `true` or `1` is on.
    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.0.get(name).map(String::as_str) {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(_) => Err(ApiError::invalid(name, format!("{name} must be true or false"))),
        }
    }

    /// A number in a range.
    pub(super) fn number(&self, name: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => {
                let message = format!("{name} must be {} to {}", range.start(), range.end());
                Err(ApiError::invalid(name, message))
            }
        }
    }

    /// One of the names of a type.
    pub(super) fn one_of<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        serde_json::from_value(text.into()).map(Some).map_err(|error: serde_json::Error| {
            let message = error.to_string();
            let expected = message.split_once("expected ").map_or("another value", |(_, expected)| expected);
            ApiError::invalid(name, format!("{name} must be {expected}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::TaskState;

    fn param(query: &str) -> Option<String> {
        let uri: Uri = format!("/x?{query}").parse().unwrap();
        let read = || {
            let params = Params::of(&uri, &["limit", "state", "verbose"])?;
            params.number("limit", 1..=10)?;
            params.one_of::<TaskState>("state")?;
            params.flag("verbose")?;
            Ok::<_, ApiError>(())
        };
        read().err().and_then(|error| error.0.param)
    }

    #[test]
    fn the_parameter_at_fault_is_named() {
        assert_eq!(param("limit=3&state=running&verbose=1"), None);
        for (query, at_fault) in [
            ("limit=-1", "limit"),
            ("limit=11", "limit"),
            ("state=sleeping", "state"),
            ("verbose=maybe", "verbose"),
            ("cursor=x", "cursor"),
            ("limit=1&limit=2", "limit"),
        ] {
            assert_eq!(param(query).as_deref(), Some(at_fault), "{query}");
        }
    }
}
