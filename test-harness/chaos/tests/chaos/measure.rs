//! What was found, and how it is held against what was promised.

use std::time::Duration;

/// One number or fact of one run.
#[derive(Debug, Clone)]
pub(crate) struct Measure {
    pub(crate) what: String,
    pub(crate) found: Found,
}

/// With what it must be.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// Took so long, and may take so long.
    Time { took: Duration, limit: Duration },
    /// Was so many, and may be from and to.
    Count { found: u64, from: u64, to: u64 },
    /// Was so much, and may be so much.
    Amount { found: f64, most: f64, unit: &'static str },
    /// Held or did not, with what was seen.
    Fact { held: bool, seen: String },
    /// Measured, and nothing is promised of it.
    Told(String),
}

impl Measure {
    pub(crate) fn held(&self) -> bool {
        match &self.found {
            Found::Time { took, limit } => took <= limit,
            Found::Count { found, from, to } => (from..=to).contains(&found),
            Found::Amount { found, most, .. } => found <= most,
            Found::Fact { held, .. } => *held,
            Found::Told(_) => true,
        }
    }

    /// Whether a busy machine alone can be why it did not hold.
    pub(crate) fn depends_on_the_machine(&self) -> bool {
        matches!(self.found, Found::Time { .. } | Found::Amount { .. })
    }

    /// The one of two runs that says more: one that did not hold, else the larger.
    pub(crate) fn worse(self, other: Self) -> Self {
        let larger = match (&self.found, &other.found) {
            (Found::Time { took: a, .. }, Found::Time { took: b, .. }) => a >= b,
            (Found::Count { found: a, .. }, Found::Count { found: b, .. }) => a >= b,
            (Found::Amount { found: a, .. }, Found::Amount { found: b, .. }) => a >= b,
            _ => true,
        };
        match (self.held(), other.held()) {
            (true, false) => other,
            (false, true) => self,
            _ if larger => self,
            _ => other,
        }
    }
}

impl std::fmt::Display for Measure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = &self.what;
        match &self.found {
            Found::Time { took, limit } => write!(f, "{what} {} (≤ {})", shown(*took), shown(*limit))?,
            Found::Count { found, from, to } if from == to => write!(f, "{what} {found} (= {to})")?,
            Found::Count { found, from: 0, to } => write!(f, "{what} {found} (≤ {to})")?,
            Found::Count { found, from, to } => write!(f, "{what} {found} ({from}–{to})")?,
            Found::Amount { found, most, unit } => write!(f, "{what} {found:.1} {unit} (≤ {most:.1})")?,
            Found::Fact { seen, .. } | Found::Told(seen) if seen.is_empty() => write!(f, "{what}")?,
            Found::Fact { seen, .. } | Found::Told(seen) => write!(f, "{what}: {seen}")?,
        }
        if self.held() { Ok(()) } else { write!(f, " ✗") }
    }
}

pub(crate) fn shown(time: Duration) -> String {
    match time.as_millis() {
        ms @ 0..10_000 => format!("{ms} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}
