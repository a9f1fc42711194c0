//! JSON that is kept and passed on as the text it came in.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A JSON value as text. It was read once, where it came from; whoever passes it on does not read it again,
/// which for the chunks of a stream is most of what they would cost; only writing it with serde does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawJson(Box<str>);

impl RawJson {
    /// Takes a text that must be JSON, without the white space around it.
    pub fn parse(text: &str) -> serde_json::Result<Self> {
        let value = serde_json::from_str::<&RawValue>(text)?.get();
        Ok(Self(value.into()))
    }

    /// An object of these members in one line, so that it can be an event's data. Each value must be JSON that
    /// was read as such, and the names be such that JSON escapes nothing in them.
    #[must_use]
    pub fn object<'a>(members: impl IntoIterator<Item = (&'static str, Option<&'a str>)> + Clone) -> Self {
        let there = || members.clone().into_iter().filter_map(|(name, value)| Some((name, value?)));
        let length: usize = there().map(|(name, value)| name.len() + value.len() + r#""":,"#.len()).sum();
        let mut text = String::with_capacity(length + "}".len());
        let mut before = '{';
        for (name, value) in there() {
            text.push(before);
            text.push('"');
            text.push_str(name);
            text.push_str("\":");
            text.push_str(value);
            before = ',';
        }
        if before == '{' {
            text.push('{');
        }
        text.push('}');
        if text.as_bytes().contains(&b'\n') {
            // Only white space between values can be one.
            text = text.replace('\n', " ");
        }
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn get(&self) -> &str {
        &self.0
    }

    /// What stands between the braces of an [object](Self::object) that has members.
    #[must_use]
    pub fn members(&self) -> Option<&str> {
        let members = self.0.strip_prefix('{')?.strip_suffix('}')?;
        (!members.is_empty()).then_some(members)
    }
}

impl Serialize for RawJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RawJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(|raw| Self(raw.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_raw_members_is_the_json_that_they_make() {
        let (one, lines, text) = ("[1, 2]", "[1,\n\"\\n\"]", "\"a}\"");
        for (members, expected) in [
            ([("a", Some(one)), ("b", None), ("c", Some(text))], r#"{"a":[1, 2],"c":"a}"}"#),
            ([("a", None), ("b", None), ("c", Some(one))], r#"{"c":[1, 2]}"#),
            ([("a", None), ("b", None), ("c", None)], "{}"),
            ([("a", Some(lines)), ("b", None), ("c", None)], r#"{"a":[1, "\n"]}"#),
        ] {
            let object = RawJson::object(members);
            assert_eq!(object.get(), expected);
            assert_eq!(RawJson::parse(&format!(" {expected}\n")).unwrap(), object);
            let members = &expected[1..expected.len() - 1];
            assert_eq!(object.members(), Some(members).filter(|members| !members.is_empty()));
        }
        assert!(RawJson::parse("{").is_err());
        assert_eq!(RawJson::parse("[1]").unwrap().members(), None);
    }

    #[test]
    fn it_is_written_as_the_json_it_is_and_read_back_as_it_was_written() {
        let text = r#"{"raw":{"a": [1,  2]}}"#;
        let object: std::collections::BTreeMap<String, RawJson> = serde_json::from_str(text).unwrap();
        assert_eq!(object["raw"].get(), r#"{"a": [1,  2]}"#);
        assert_eq!(serde_json::to_string(&object).unwrap(), text);
    }
}
