//! Sampling seeds, in the two spellings that clients need.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A seed: a number, or a string for clients whose numbers end at 2^53.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(into = "String")]
#[schemars(with = "SeedForm")]
pub struct Seed(pub u32);

impl From<Seed> for String {
    fn from(seed: Seed) -> String {
        seed.0.to_string()
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum SeedForm {
    Number(u32),
    Text(String),
}

impl<'de> Deserialize<'de> for Seed {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bad = || serde::de::Error::custom("seed must be 0 to 4294967295, as a number or a string");
        match SeedForm::deserialize(deserializer) {
            Ok(SeedForm::Number(n)) => Ok(Self(n)),
            Ok(SeedForm::Text(s)) => s.parse().map(Self).map_err(|_| bad()),
            Err(_) => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_may_be_text_and_is_answered_as_text() {
        let seed: Seed = serde_json::from_str("\"42\"").unwrap();
        assert_eq!(seed, Seed(42));
        assert_eq!(serde_json::to_string(&seed).unwrap(), "\"42\"");
        for bad in ["-1", "9223372036854775808", "\"x\"", "4294967296"] {
            assert!(serde_json::from_str::<Seed>(bad).is_err(), "{bad}");
        }
    }
}
