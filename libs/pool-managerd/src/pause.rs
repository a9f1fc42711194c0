//! A pause between two attempts of a replica, and the words that clients read meanwhile: a step that
//! will be tried again runs, because they take a failed one as final.

use std::time::Duration;

use wire::Phase;

use crate::schedule::Next;

/// Descriptions of steps are one line of a terminal, more or less.
const LONGEST: usize = 240;

/// What happens until the next attempt.
#[derive(Debug)]
pub(crate) struct Pause {
    pub(crate) length: Duration,
    pub(crate) phase: Phase,
    /// For the replica's start-up step; `None` leaves it as it is.
    pub(crate) words: Option<String>,
    /// Whether a new request to run ends it.
    pub(crate) ends_when_asked: bool,
}

impl Pause {
    /// After a lost engine, or one that could not be started.
    pub(crate) fn after_loss(next: Next) -> Self {
        let (length, phase, words) = match next {
            Next::Restart(pause) => {
                (pause, Phase::Backoff, format!("the engine was lost; starting again {}", soon(pause)))
            }
            Next::Trial(pause) => {
                (pause, Phase::BreakerOpen, format!("breaker open; next trial {}", soon(pause)))
            }
        };
        Self { length, phase, words: Some(words), ends_when_asked: false }
    }

    /// Before another port.
    pub(crate) fn none(words: &str) -> Self {
        let words = Some(words.to_owned());
        Self { length: Duration::ZERO, phase: Phase::Starting, words, ends_when_asked: false }
    }

    /// For a disk that is full.
    pub(crate) fn for_disk(length: Duration) -> Self {
        let words = format!("the runtime directory cannot be written; trying again {}", soon(length));
        Self { length, phase: Phase::Backoff, words: Some(words), ends_when_asked: false }
    }

    /// For a preparation that may succeed later; its own steps say why.
    pub(crate) fn for_preparation(length: Duration) -> Self {
        Self { length, phase: Phase::Backoff, words: None, ends_when_asked: true }
    }
}

/// `now` or `in 5 s`.
pub(crate) fn soon(pause: Duration) -> String {
    let seconds = pause.as_millis().div_ceil(1000);
    if seconds == 0 { "now".to_owned() } else { format!("in {seconds} s") }
}

/// A message in one line, cut where it gets too long.
pub(crate) fn one_line(message: &str) -> String {
    let line = message.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// What a log line may say of a message; all of it is on the board.
pub(crate) fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_says_what_comes_next_and_when() {
        let words = |next| Pause::after_loss(next).words.unwrap();
        let ms = Duration::from_millis;
        assert_eq!(words(Next::Restart(ms(0))), "the engine was lost; starting again now");
        assert_eq!(words(Next::Restart(ms(1500))), "the engine was lost; starting again in 2 s");
        assert_eq!(words(Next::Trial(ms(60_000))), "breaker open; next trial in 60 s");
    }

    #[test]
    fn a_long_message_becomes_one_short_line() {
        assert_eq!(one_line("no source:\n  - git: a\n\n    b"), "no source: - git: a b");
        assert_eq!(one_line(&"ä".repeat(1000)).chars().count(), LONGEST + 1);
    }
}
