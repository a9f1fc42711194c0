//! The current minute, spelled out: a word the test cannot know beforehand.

use std::time::{SystemTime, UNIX_EPOCH};

const SMALL: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 4] = ["twenty", "thirty", "forty", "fifty"];

/// The minute of the hour, 0 to 59.
#[must_use]
pub fn current_minute() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() / 60 % 60)
}

/// A number below sixty in words, `twenty nine`.
#[must_use]
pub fn spelled(n: u64) -> String {
    let n = usize::try_from(n % 60).unwrap_or(0);
    match (n.checked_sub(20), n % 10) {
        (None, _) => SMALL[n].to_owned(),
        (Some(rest), 0) => TENS[rest / 10].to_owned(),
        (Some(rest), ones) => format!("{} {}", TENS[rest / 10], SMALL[ones]),
    }
}

#[cfg(test)]
mod tests {
    use super::spelled;

    #[test]
    fn minutes_are_spelled_as_people_say_them() {
        let words: Vec<String> = [0, 9, 10, 19, 20, 29, 59].map(spelled).into();
        assert_eq!(words, ["zero", "nine", "ten", "nineteen", "twenty", "twenty nine", "fifty nine"]);
    }
}
