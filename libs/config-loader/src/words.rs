//! What a parser says of a value, in words for whoever wrote the file: no names of types of this program.

/// The parser's words, and what they mean in a configuration file. The first that fits is taken.
const EXPECTED: &[(&str, &str)] = &[
    ("u32", "a whole number, not negative"),
    ("u64", "a whole number, not negative"),
    ("f64", "a number"),
    ("a sequence", "a list, as [a, b]"),
    ("a boolean", "true or false"),
    ("a map", "keys with values, as {key: value}"),
    ("a string", "text"),
    ("path string", "a path"),
];
const FOUND: &[(&str, &str)] = &[
    ("unit value", "nothing"),
    ("sequence", "a list"),
    ("map", "a map"),
    ("floating point ", "the number "),
    ("integer ", "the number "),
    ("boolean ", ""),
    ("string ", "the text "),
];
/// Of an enum that is written as a map with one key; there is one.
const SOURCE: &str = "a source is a map with exactly one key, which is `path`, `git`, `archive` or `sdist`, as \
                      `- path: {binary: /usr/bin/llama-server}`";

/// The message of a parser for people; what is not known stays as it is.
pub(crate) fn for_people(message: &str) -> String {
    let (key, said) = match message.split_once(": ") {
        Some((key, said)) if !key.contains(' ') => (format!("{key}: "), said),
        _ => (String::new(), message),
    };
    format!("{key}{}", words(said).unwrap_or_else(|| said.to_owned()))
}

fn words(said: &str) -> Option<String> {
    if said == "invalid socket address syntax" {
        return Some("must be an IP address and a port, as 127.0.0.1:8080".to_owned());
    }
    if let Some(rest) = said.strip_prefix("missing field ") {
        return Some(format!("the key {rest} is missing"));
    }
    let rest = ["invalid type: ", "invalid value: "].iter().find_map(|lead| said.strip_prefix(lead))?;
    let (found, expected) = rest.rsplit_once(", expected ")?;
    if ["map with a single key", "newtype variant", "enum EngineSource"].contains(&expected) {
        return Some(SOURCE.to_owned());
    }
    let known = EXPECTED.iter().find_map(|(theirs, ours)| (*theirs == expected).then_some(*ours));
    let expected = match known {
        Some(ours) => ours,
        None if expected.starts_with("struct ") => "keys with values, as {key: value}",
        None => expected,
    };
    let found = FOUND.iter().find_map(|(theirs, ours)| {
        let rest = found.strip_prefix(theirs)?;
        Some(format!("{ours}{}", rest.trim_end_matches(" as u128").trim_end_matches(" as i128")))
    })?;
    Some(format!("must be {expected}; here it is {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_parsers_say_becomes_words_and_what_is_not_known_stays() {
        for (theirs, ours) in [
            (
                "models: invalid type: integer `5`, expected struct ModelsConfig",
                "models: must be keys with values, as {key: value}; here it is the number `5`",
            ),
            (
                "pools[0].slots: invalid type: string \"two\", expected u32",
                "pools[0].slots: must be a whole number, not negative; here it is the text \"two\"",
            ),
            (
                "models.quota_gib: invalid type: integer `-1` as i128, expected u64",
                "models.quota_gib: must be a whole number, not negative; here it is the number `-1`",
            ),
            (
                "pools: invalid type: unit value, expected a sequence",
                "pools: must be a list, as [a, b]; here it is nothing",
            ),
            ("pools[0]: missing field `id`", "pools[0]: the key `id` is missing"),
            (
                "api.listen: invalid socket address syntax",
                "api.listen: must be an IP address and a port, as 127.0.0.1:8080",
            ),
            (
                "mapping values are not allowed in this context",
                "mapping values are not allowed in this context",
            ),
        ] {
            assert_eq!(for_people(theirs), ours);
        }
    }
}
