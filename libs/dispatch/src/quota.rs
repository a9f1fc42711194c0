//! What each caller may ask for per minute and at once.
//!
//! Requests and tokens fill up evenly over the minute (a bucket each), so that a caller that was
//! refused is told exactly when its next request will do. Tokens are charged as they are expected
//! and settled when a task has ended, so a bucket may be overdrawn by what was in flight.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use wire::config::{CallerLimits, LimitsConfig};

use crate::CallerId;
use crate::size::Size;

/// Callers that are kept count of before those that ask for nothing any more are let go.
const CALLERS: usize = 4_096;
const MINUTE_S: f64 = 60.0;

/// Which limit a caller has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitReached {
    /// Tasks per minute.
    Requests(u32),
    /// Tokens per minute.
    Tokens(u32),
    /// Tasks at once.
    Concurrent(u32),
}

impl std::fmt::Display for LimitReached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Requests(limit) => write!(f, "{limit} requests per minute"),
            Self::Tokens(limit) => write!(f, "{limit} tokens per minute"),
            Self::Concurrent(limit) => write!(f, "{limit} tasks at once"),
        }
    }
}

/// A refusal: the limit, and when it lets the next request in; `None` where that depends on how long
/// the caller's own tasks take.
pub(crate) type Over = (LimitReached, Option<Duration>);

/// Everybody's use. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Quotas {
    limits: Arc<LimitsConfig>,
    callers: Arc<Mutex<HashMap<CallerId, Use>>>,
}

#[derive(Debug)]
struct Use {
    requests: Bucket,
    tokens: Bucket,
    concurrent: u32,
}

/// What is left of a minute's worth.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// A task that counts among its caller's tasks at once, until this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    quotas: Quotas,
    caller: CallerId,
}

impl Quotas {
    pub(crate) fn new(limits: LimitsConfig) -> Self {
        Self { limits: Arc::new(limits), callers: Arc::default() }
    }

    /// Lets a task in and charges its caller for it. `None` for a caller without limits.
    pub(crate) fn admit(&self, caller: &CallerId, size: Size, now: Instant) -> Result<Option<Permit>, Over> {
        self.change(caller, now, |used, limits| used.admit(limits, size, now))
    }

    /// Counts a task that an earlier process let in among its caller's, whatever the caller's limits
    /// are, and charges its tokens: they are settled when it has ended. It is no new request.
    pub(crate) fn take_over(&self, caller: &CallerId, size: Size, now: Instant) -> Option<Permit> {
        let taken = self.change(caller, now, |used, limits| {
            used.take_over(limits, size, now);
            Ok::<_, Infallible>(())
        });
        taken.unwrap_or_else(|never| match never {})
    }

    fn change<E>(
        &self,
        caller: &CallerId,
        now: Instant,
        change: impl FnOnce(&mut Use, &CallerLimits) -> Result<(), E>,
    ) -> Result<Option<Permit>, E> {
        let limits = self.limits.of(caller.key_name());
        if limits == CallerLimits::default() {
            return Ok(None);
        }
        let mut callers = self.lock();
        if callers.len() >= CALLERS {
            let limits = |caller: &CallerId| self.limits.of(caller.key_name());
            callers.retain(|caller, used| used.concurrent > 0 || !used.is_rested(&limits(caller), now));
        }
        let used = callers.entry(caller.clone()).or_insert_with(|| Use::new(&limits, now));
        change(used, &limits)?;
        Ok(Some(Permit { quotas: self.clone(), caller: caller.clone() }))
    }

    /// A task was smaller or larger than it was charged.
    pub(crate) fn settle(&self, caller: &CallerId, charged: Size, real: Size) {
        if let Some(used) = self.lock().get_mut(caller) {
            used.tokens.left += tokens(charged) - tokens(real);
        }
    }

    /// A task was let in here and found no place behind it: it never was.
    pub(crate) fn give_back(&self, caller: &CallerId, charged: Size) {
        if let Some(used) = self.lock().get_mut(caller) {
            used.requests.left += 1.0;
            used.tokens.left += tokens(charged);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CallerId, Use>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(used) = self.quotas.lock().get_mut(&self.caller) {
            used.concurrent = used.concurrent.saturating_sub(1);
        }
    }
}

impl Use {
    fn new(limits: &CallerLimits, now: Instant) -> Self {
        let full = |per_minute: Option<u32>| Bucket { left: per_minute.map_or(0.0, f64::from), at: now };
        Self {
            requests: full(limits.requests_per_minute),
            tokens: full(limits.tokens_per_minute),
            concurrent: 0,
        }
    }

    fn admit(&mut self, limits: &CallerLimits, size: Size, now: Instant) -> Result<(), Over> {
        if let Some(limit) = limits.concurrent_tasks.filter(|limit| self.concurrent >= *limit) {
            return Err((LimitReached::Concurrent(limit), None));
        }
        if let Some(limit) = limits.requests_per_minute {
            self.requests.fill(limit, now);
            self.requests.check(limit, 1.0).map_err(|wait| (LimitReached::Requests(limit), Some(wait)))?;
        }
        if let Some(limit) = limits.tokens_per_minute {
            self.tokens.fill(limit, now);
            // A task larger than a minute's worth would never fit; it waits for a full bucket.
            let needed = tokens(size).min(f64::from(limit));
            self.tokens.check(limit, needed).map_err(|wait| (LimitReached::Tokens(limit), Some(wait)))?;
            self.tokens.left -= tokens(size);
        }
        self.requests.left -= 1.0;
        self.concurrent += 1;
        Ok(())
    }

    fn take_over(&mut self, limits: &CallerLimits, size: Size, now: Instant) {
        if let Some(limit) = limits.tokens_per_minute {
            self.tokens.fill(limit, now);
            self.tokens.left -= tokens(size);
        }
        self.concurrent += 1;
    }

    /// Nothing would be forgotten but what a new entry says as well.
    fn is_rested(&self, limits: &CallerLimits, now: Instant) -> bool {
        let full = |mut bucket: Bucket, per_minute: Option<u32>| {
            per_minute.is_none_or(|limit| {
                bucket.fill(limit, now);
                bucket.left >= f64::from(limit)
            })
        };
        full(self.requests, limits.requests_per_minute) && full(self.tokens, limits.tokens_per_minute)
    }
}

impl Bucket {
    fn fill(&mut self, per_minute: u32, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let limit = f64::from(per_minute);
        self.left = (self.left + passed * limit / MINUTE_S).min(limit);
        self.at = now;
    }

    /// Whether so much is left; if not, when it will be.
    fn check(self, per_minute: u32, needed: f64) -> Result<(), Duration> {
        let missing = needed - self.left;
        // Rounding must not refuse what is exactly there.
        if missing <= 1e-6 {
            return Ok(());
        }
        Err(Duration::from_secs_f64(missing * MINUTE_S / f64::from(per_minute)))
    }
}

fn tokens(size: Size) -> f64 {
    size.tokens_in.saturating_add(size.tokens_out) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas(json: &str) -> Quotas {
        Quotas::new(serde_json::from_str(json).unwrap())
    }

    fn size(tokens_in: u64, tokens_out: u64) -> Size {
        Size { tokens_in, tokens_out }
    }

    /// ORCHD-LIMIT-001
    #[test]
    fn who_waits_as_long_as_it_was_told_is_let_in_and_not_before() {
        let quotas = quotas(r#"{"default":{"requests_per_minute":6}}"#);
        let (caller, start) = (CallerId::key("a"), Instant::now());
        let ask = |after| quotas.admit(&caller, size(1, 1), start + after);
        for _ in 0..6 {
            drop(ask(Duration::ZERO).unwrap());
        }
        let (reached, wait) = ask(Duration::ZERO).unwrap_err();
        assert_eq!((reached, wait), (LimitReached::Requests(6), Some(Duration::from_secs(10))));
        assert!(ask(Duration::from_millis(9_900)).is_err());
        assert!(ask(Duration::from_secs(10)).is_ok());
        let other = CallerId::key("b");
        assert!(quotas.admit(&other, size(1, 1), start).is_ok(), "limits are each caller's own");
    }

    /// ORCHD-LIMIT-002
    #[test]
    fn tokens_are_charged_as_expected_and_settled_as_they_were() {
        let quotas = quotas(r#"{"default":{"tokens_per_minute":600}}"#);
        let (caller, now) = (CallerId::key("a"), Instant::now());
        drop(quotas.admit(&caller, size(100, 500), now).unwrap());
        let (_, wait) = quotas.admit(&caller, size(100, 0), now).unwrap_err();
        assert_eq!(wait, Some(Duration::from_secs(10)));
        quotas.settle(&caller, size(100, 500), size(100, 300));
        assert!(quotas.admit(&caller, size(100, 100), now).is_ok());
        quotas.settle(&caller, size(100, 100), size(100, 700));
        let (_, wait) = quotas.admit(&caller, size(60, 0), now).unwrap_err();
        assert_eq!(wait, Some(Duration::from_secs(66)), "what was overdrawn is owed");
        let later = now + Duration::from_secs(1_000);
        assert!(
            quotas.admit(&caller, size(100_000, 0), later).is_ok(),
            "a large task waits for a full minute"
        );
    }

    /// ORCHD-LIMIT-003
    #[test]
    fn a_task_counts_until_its_permit_is_dropped() {
        let quotas = quotas(r#"{"tokens":{"a":{"concurrent_tasks":1}}}"#);
        let (caller, now) = (CallerId::key("a"), Instant::now());
        let permit = quotas.admit(&caller, size(1, 1), now).unwrap();
        assert_eq!(quotas.admit(&caller, size(1, 1), now).unwrap_err(), (LimitReached::Concurrent(1), None));
        assert!(quotas.admit(&CallerId::key("b"), size(1, 1), now).unwrap().is_none());
        drop(permit);
        assert!(quotas.admit(&caller, size(1, 1), now).is_ok());
    }

    /// ORCHD-LIMIT-002, ORCHD-LIMIT-003
    #[test]
    fn a_task_that_is_taken_over_is_charged_and_counted_and_never_refused() {
        let quotas = quotas(r#"{"default":{"tokens_per_minute":600,"concurrent_tasks":2}}"#);
        let (caller, now) = (CallerId::key("a"), Instant::now());
        let permits: Vec<_> = (0..3).map(|_| quotas.take_over(&caller, size(100, 200), now)).collect();
        assert_eq!(quotas.admit(&caller, size(1, 0), now).unwrap_err(), (LimitReached::Concurrent(2), None));
        drop(permits);
        let (_, wait) = quotas.admit(&caller, size(10, 0), now).unwrap_err();
        assert_eq!(wait, Some(Duration::from_secs(31)), "300 more than a minute's worth");
        (0..3).for_each(|_| quotas.settle(&caller, size(100, 200), size(100, 100)));
        let (_, wait) = quotas.admit(&caller, size(10, 0), now).unwrap_err();
        assert_eq!(wait, Some(Duration::from_secs(1)), "what it used is owed, and nothing is given for it");
    }

    #[test]
    fn callers_that_are_made_up_are_not_remembered_for_ever() {
        let quotas = quotas(r#"{"default":{"requests_per_minute":60}}"#);
        let start = Instant::now();
        for n in 0..3 * CALLERS {
            let now = start + Duration::from_millis(n as u64);
            drop(quotas.admit(&CallerId::key(&n.to_string()), size(1, 1), now).unwrap());
        }
        assert!(quotas.lock().len() <= CALLERS + 1, "{}", quotas.lock().len());
    }
}
