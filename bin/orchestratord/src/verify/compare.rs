//! Two receipts beside each other, and two answers.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use wire::event::End;

use super::subject::Subject;

/// These say which task it was, not what ran.
const OF_THE_TASK: &[&str] = &["request_sha256", "transcript_sha256", "seams", "tokens_sha256"];
/// Characters of a text that are shown around the place where it differs.
const SHOWN: usize = 24;

/// What a comparison says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The same answer came out.
    pub(super) same: bool,
    /// A line for each thing that was compared.
    pub(super) lines: Vec<String>,
    /// Why it is not the same.
    pub(super) verdict: String,
}

pub(super) fn compare(then: &Subject, text: &str, now: &End) -> Outcome {
    let flat = |receipt: &wire::Receipt| flatten(&serde_json::to_value(receipt).unwrap_or_default());
    let (before, after) = (flat(&then.receipt), flat(&now.receipt));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let compared = names.into_iter().filter(|name| !OF_THE_TASK.contains(&name.as_str()));
    let mut lines: Vec<String> = compared.map(|name| line(name, before.get(name), after.get(name))).collect();
    let (was, is) = (&then.receipt.tokens_sha256, &now.receipt.tokens_sha256);
    let known = !was.is_empty() && !is.is_empty();
    // The digest of the tokens decides; where an engine did not name them, the text.
    let same = if known { was == is } else { then.text.as_deref() == Some(text) };
    if known {
        lines.push(line("tokens_sha256", Some(&was.as_str().into()), Some(&is.as_str().into())));
    }
    let verdict = match (&then.text, known) {
        _ if same => String::new(),
        (Some(before), _) => place(before, text),
        (None, true) => {
            let counts =
                then.tokens_out.map(|count| format!(", {count} of them then and {} now", now.tokens_out));
            format!("other tokens came out{}; a transcript would say which", counts.unwrap_or_default())
        }
        (None, false) => {
            "the engine did not name all its tokens, and the receipt holds no text: it cannot be \
                          compared"
                .to_owned()
        }
    };
    Outcome { same, lines, verdict }
}

fn line(name: &str, before: Option<&Value>, after: Option<&Value>) -> String {
    let show = |value: Option<&Value>| match value {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "not told".to_owned(),
    };
    if before == after {
        format!("same     {name}: {}", show(before))
    } else {
        format!("differs  {name}: was {}, is {}", show(before), show(after))
    }
}

/// Where two texts part.
fn place(before: &str, after: &str) -> String {
    let same = before.chars().zip(after.chars()).take_while(|(a, b)| a == b).count();
    let from = |text: &str| text.chars().skip(same).take(SHOWN).collect::<String>();
    format!(
        "another answer came out: from character {same} on it was {:?} and is {:?}",
        from(before),
        from(after)
    )
}

/// Objects within as `outer.inner`.
fn flatten(value: &Value) -> Map<String, Value> {
    let mut flat = Map::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        match value {
            Value::Object(_) => {
                let inner = flatten(value);
                flat.extend(inner.into_iter().map(|(inner, value)| (format!("{name}.{inner}"), value)));
            }
            value => {
                flat.insert(name.clone(), value.clone());
            }
        }
    }
    flat
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wire::Receipt;
    use wire::event::FinishReason;

    use super::*;

    fn compared(was: Value, text: Option<&str>, is: Value) -> Outcome {
        let base = json!({"engine_version": "v", "model_digest": "m"});
        let receipt = |more: Value| -> Receipt {
            let mut receipt = base.clone();
            receipt.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value(receipt).unwrap()
        };
        let text = text.map(str::to_owned);
        let then = Subject {
            receipt: receipt(was),
            request: wire::TaskRequest::default(),
            text,
            tokens_out: None,
            notes: vec![],
        };
        let now = End {
            tokens_in: None,
            tokens_out: 3,
            decode_time_ms: 0,
            finish_reason: FinishReason::Stop,
            receipt: Box::new(receipt(is)),
            result: None,
        };
        compare(&then, "one two", &now)
    }

    /// ORCHD-VERIFY-002
    #[test]
    fn every_difference_is_named_with_both_values() {
        let was =
            json!({"tokens_sha256": "a", "engine_digest": "x", "sampling": {"top_k": 40, "samplers": ["a"]}});
        let is =
            json!({"tokens_sha256": "b", "engine_digest": "y", "sampling": {"top_k": 40, "samplers": ["b"]}});
        let outcome = compared(was, Some("one too"), is);
        for line in [
            "differs  engine_digest: was x, is y",
            "same     sampling.top_k: 40",
            "differs  sampling.samplers: was [\"a\"], is [\"b\"]",
            "same     engine_version: v",
            "differs  tokens_sha256: was a, is b",
        ] {
            assert!(outcome.lines.iter().any(|said| said == line), "{line}: {:?}", outcome.lines);
        }
        assert!(!outcome.same);
        assert_eq!(
            outcome.verdict,
            r#"another answer came out: from character 5 on it was "oo" and is "wo""#
        );
    }

    #[test]
    fn the_tokens_decide_and_where_nobody_named_them_the_text() {
        let digest = |digest: &str| json!({"tokens_sha256": digest});
        assert!(compared(digest("a"), None, digest("a")).same);
        assert!(compared(digest(""), Some("one two"), digest("")).same);
        assert!(!compared(digest(""), Some("one"), digest("")).same);
        let unknown = compared(digest(""), None, digest(""));
        assert!(!unknown.same && unknown.verdict.contains("cannot be compared"));
    }
}
