//! The members of a JSON object as text, each to be parsed by whoever wants it. A frame says a dozen things
//! of which three are read; finding where the others end costs a fraction of parsing them.

use std::str::FromStr;

use adapter_host::StreamFault;
use serde::Deserialize;

/// The members that are left. What nobody parses is looked at only as far as it takes to find its end.
#[derive(Debug)]
pub(crate) struct Members<'a> {
    text: &'a str,
    /// Behind what was read.
    at: usize,
    first: bool,
}

impl<'a> Members<'a> {
    pub(crate) fn of(text: &'a str) -> Result<Self, StreamFault> {
        let mut members = Self { text, at: 0, first: true };
        members.expect(b'{')?;
        Ok(members)
    }

    /// The next one's name, as it is written, and its value; `None` behind the last.
    pub(crate) fn next(&mut self) -> Result<Option<(&'a str, &'a str)>, StreamFault> {
        let first = std::mem::take(&mut self.first);
        match self.skip_space() {
            Some(b'}') => {
                self.at += 1;
                return if self.skip_space().is_none() { Ok(None) } else { Err(self.malformed()) };
            }
            Some(b',') if !first => self.at += 1,
            _ if first => {}
            _ => return Err(self.malformed()),
        }
        self.skip_space();
        let name = self.string()?;
        self.expect(b':')?;
        self.skip_space();
        let value = self.value()?;
        Ok(Some((&name[1..name.len() - 1], value)))
    }

    fn expect(&mut self, byte: u8) -> Result<(), StreamFault> {
        if self.skip_space() != Some(byte) {
            return Err(self.malformed());
        }
        self.at += 1;
        Ok(())
    }

    /// What stands behind the white space that is next.
    fn skip_space(&mut self) -> Option<u8> {
        loop {
            match self.peek() {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                other => return other,
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// A string with its quotes, both of which are one byte: every cut is at a character's edge.
    fn string(&mut self) -> Result<&'a str, StreamFault> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(self.malformed());
        }
        self.at = string_end(self.text.as_bytes(), start + 1).ok_or_else(|| self.malformed())?;
        Ok(&self.text[start..self.at])
    }

    fn value(&mut self) -> Result<&'a str, StreamFault> {
        let start = self.at;
        self.at = value_end(self.text.as_bytes(), start).ok_or_else(|| self.malformed())?;
        let value = self.text[start..self.at].trim_ascii_end();
        if value.is_empty() { Err(self.malformed()) } else { Ok(value) }
    }

    /// Says where, never what: frames are someone's text.
    fn malformed(&self) -> StreamFault {
        StreamFault::Protocol(format!("an event is not its JSON, at byte {}", self.at))
    }
}

/// Names and tokens are no longer than this, and are done before a search that begins with more has begun.
const SHORT: usize = 32;

/// Where a string ends, behind its quote, that goes on at `at`.
fn string_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let long = at + SHORT;
    loop {
        if at >= long {
            at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        }
        match *bytes.get(at)? {
            b'"' => return Some(at + 1),
            // What follows a backslash ends no string; it may be the first byte of many.
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Where a value ends that begins at `at`, perhaps with white space behind it.
fn value_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_u32;
    loop {
        match *bytes.get(at)? {
            b'"' => {
                at = string_end(bytes, at + 1)?;
                if depth == 0 {
                    return Some(at);
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' | b',' if depth == 0 => return Some(at),
            b'}' | b']' if depth == 1 => return Some(at + 1),
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
}

/// What a value says; the fault names the member and quotes nothing.
pub(crate) fn parse<'a, T: Deserialize<'a>>(name: &str, value: &'a str) -> Result<T, StreamFault> {
    serde_json::from_str(value).map_err(|_| unlike(name))
}

/// The same of a number or a truth value, which is written as Rust writes it.
pub(crate) fn plain<T: FromStr>(name: &str, value: &str) -> Result<T, StreamFault> {
    // A plus sign is Rust's and not JSON's.
    value.parse().ok().filter(|_| !value.starts_with('+')).ok_or_else(|| unlike(name))
}

fn unlike(name: &str) -> StreamFault {
    StreamFault::Protocol(format!("`{name}` of an event is not what it must be"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn all(text: &str) -> Result<Vec<(&str, &str)>, StreamFault> {
        let (mut members, mut found) = (Members::of(text)?, Vec::new());
        while let Some(member) = members.next()? {
            found.push(member);
        }
        Ok(found)
    }

    #[test]
    fn members_are_found_whatever_is_in_them() {
        let text = r#" { "a" : 1 ,"b":[ {"x":"]}"} , 2] , "c\"":"\\\"é🍁,}" ,"d":{"e":[]},"f":null } "#;
        let expected = [
            ("a", "1"),
            ("b", r#"[ {"x":"]}"} , 2]"#),
            (r#"c\""#, r#""\\\"é🍁,}""#),
            ("d", r#"{"e":[]}"#),
            ("f", "null"),
        ];
        assert_eq!(all(text).unwrap(), expected);
        assert_eq!(all("{}").unwrap(), []);
    }

    #[test]
    fn what_is_no_object_is_a_fault_that_quotes_nothing() {
        for bad in [
            "",
            "[]",
            "secret",
            "{",
            r#"{"secret""#,
            r#"{"secret":"#,
            r#"{"secret":1"#,
            r#"{"secret":1,"#,
            r#"{"secret":1,}"#,
            r#"{,"secret":1}"#,
            r#"{"secret":}"#,
            r#"{"secret" 1}"#,
            r#"{"secret":1}x"#,
            r#"{"secret":"a\"#,
            r#"{"secret":"a\é"#,
            r#"{"secret":1 "b":2}{"#,
        ] {
            let fault = all(bad).expect_err(bad).to_string();
            assert!(!fault.contains("secret"), "{fault}");
        }
        assert!(plain::<u64>("n", "+1").is_err() && plain::<bool>("b", "maybe").is_err());
        assert!(parse::<String>("secret", "1").is_err());
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".{0,6}".prop_map(Into::into),
            r#"["\\\\,:{}\[\]]{0,6}"#.prop_map(Into::into),
            // Around and beyond where a string is searched otherwise.
            r#"["\\é]{26,40}|[a"]{0,100}"#.prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map(r#"["\\a-c]{0,3}"#, inner, 0..4)
                    .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        /// LCPP-003: what serde_json finds in an object, this finds, too, however it is laid out.
        #[test]
        fn every_object_has_the_members_that_it_has(
            map in prop::collection::btree_map("[a-z]{1,4}", json(), 0..6),
            pretty in any::<bool>(),
        ) {
            let text = if pretty { serde_json::to_string_pretty(&map) } else { serde_json::to_string(&map) };
            let text = text.unwrap();
            let expected: std::collections::BTreeMap<&str, &RawValue> = serde_json::from_str(&text).unwrap();
            let expected: Vec<_> = expected.iter().map(|(name, raw)| (*name, raw.get())).collect();
            prop_assert_eq!(all(&text).unwrap(), expected);
        }

        /// LCPP-003: whatever comes is taken apart or refused, and nothing that is an object is refused.
        #[test]
        fn arbitrary_text_does_no_harm(text in r#"[ {}\[\]",:\\a1é\n]{0,40}"#) {
            let is_object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text).is_ok();
            prop_assert!(all(&text).is_ok() || !is_object, "{}", text);
        }
    }
}
