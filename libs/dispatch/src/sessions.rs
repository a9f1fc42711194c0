//! Turns that belong together: what a session has used, what it may still use, and which replica
//! holds its prompt. Kept in memory and bounded; a session that is not used is forgotten.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use wire::config::SessionsConfig;
use wire::session::{SessionBudgets, SessionView};
use wire::{ReplicaKey, SessionId};

use crate::Owner;
use crate::ending::millis;
use crate::size::Size;

/// What a session has used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionSpent {
    /// Its tasks.
    Turns(u64),
    /// Its tokens.
    Tokens(u64),
}

impl std::fmt::Display for SessionSpent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Turns(limit) => write!(f, "{limit} tasks"),
            Self::Tokens(limit) => write!(f, "{limit} tokens"),
        }
    }
}

/// Where the prompt of a session's last turn lies in an engine's cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The replica.
    pub key: ReplicaKey,
    /// Its life.
    pub generation: u64,
    /// Tokens that it holds.
    pub tokens: u64,
}

/// All sessions. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Sessions {
    config: Arc<SessionsConfig>,
    all: Arc<Mutex<HashMap<(Owner, SessionId), Session>>>,
}

#[derive(Debug)]
struct Session {
    turns: u64,
    used: Size,
    last: Instant,
    home: Option<Home>,
}

impl Sessions {
    pub(crate) fn new(config: SessionsConfig) -> Self {
        Self { config: Arc::new(config), all: Arc::default() }
    }

    /// Whether the session may take one more turn.
    pub(crate) fn check(&self, owner: &Owner, id: &SessionId, now: Instant) -> Result<(), SessionSpent> {
        let all = self.lock();
        let Some(session) = all.get(&(owner.clone(), id.clone())).filter(|s| self.lives(s, now)) else {
            return Ok(());
        };
        let left = self.budgets(session);
        match (self.config.turns, self.config.tokens) {
            (Some(limit), _) if left.turns_remaining == Some(0) => Err(SessionSpent::Turns(limit)),
            (_, Some(limit)) if left.tokens_remaining == Some(0) => Err(SessionSpent::Tokens(limit)),
            _ => Ok(()),
        }
    }

    /// A task was admitted to the session.
    pub(crate) fn turn(&self, owner: &Owner, id: &SessionId, now: Instant) {
        let mut all = self.lock();
        let key = (owner.clone(), id.clone());
        if !all.contains_key(&key) && all.len() >= self.config.capacity {
            all.retain(|_, session| self.lives(session, now));
            if all.len() >= self.config.capacity
                && let Some(oldest) = all.iter().min_by_key(|(_, s)| s.last).map(|(key, _)| key.clone())
            {
                all.remove(&oldest);
            }
        }
        let new = || Session { turns: 0, used: Size::default(), last: now, home: None };
        let session = all.entry(key).or_insert_with(new);
        if !self.lives(session, now) {
            *session = new();
        }
        session.turns += 1;
        session.last = now;
    }

    /// A task that was admitted to the session never was.
    pub(crate) fn take_back(&self, owner: &Owner, id: &SessionId) {
        if let Some(session) = self.lock().get_mut(&(owner.clone(), id.clone())) {
            session.turns = session.turns.saturating_sub(1);
        }
    }

    /// A task of the session has ended. What it read and wrote counts even if it broke off.
    pub(crate) fn ended(&self, owner: &Owner, id: &SessionId, used: Size, home: Option<Home>, now: Instant) {
        if let Some(session) = self.lock().get_mut(&(owner.clone(), id.clone())) {
            session.used += used;
            session.last = now;
            session.home = home.or(session.home.take());
        }
    }

    /// Where its prompt lies.
    pub(crate) fn home(&self, owner: &Owner, id: &SessionId) -> Option<Home> {
        self.lock().get(&(owner.clone(), id.clone()))?.home.clone()
    }

    /// What is shown of it; of several the control scope sees the one used last.
    pub(crate) fn view(&self, owner: &Owner, id: &SessionId, now: Instant) -> Option<SessionView> {
        let all = self.lock();
        let seen = all
            .iter()
            .filter(|((of, known), session)| known == id && owner.sees(of) && self.lives(session, now));
        let (_, session) = seen.max_by_key(|(_, session)| session.last)?;
        let remaining = self.ttl().saturating_sub(now.saturating_duration_since(session.last));
        Some(SessionView {
            session_id: id.clone(),
            turns: session.turns,
            ttl_ms_remaining: millis(remaining),
            tokens_in: session.used.tokens_in,
            tokens_out: session.used.tokens_out,
            budgets: self.budgets(session),
            pool_id: session.home.as_ref().map(|home| home.key.pool.clone()),
            replica_id: session.home.as_ref().map(|home| home.key.replica.clone()),
        })
    }

    /// Forgets it and says what it was. Its tasks go on.
    pub(crate) fn remove(&self, owner: &Owner, id: &SessionId, now: Instant) -> Option<SessionView> {
        let view = self.view(owner, id, now)?;
        self.lock().retain(|(of, known), _| known != id || !owner.sees(of));
        Some(view)
    }

    fn budgets(&self, session: &Session) -> SessionBudgets {
        let tokens = session.used.tokens_in.saturating_add(session.used.tokens_out);
        SessionBudgets {
            turns_remaining: self.config.turns.map(|limit| limit.saturating_sub(session.turns)),
            tokens_remaining: self.config.tokens.map(|limit| limit.saturating_sub(tokens)),
        }
    }

    fn lives(&self, session: &Session, now: Instant) -> bool {
        now.saturating_duration_since(session.last) < self.ttl()
    }

    fn ttl(&self) -> Duration {
        Duration::from_millis(self.config.ttl_ms)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Owner, SessionId), Session>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(json: &str) -> Sessions {
        Sessions::new(serde_json::from_str(json).unwrap())
    }

    fn id(n: u32) -> SessionId {
        SessionId::try_new(n.to_string()).unwrap()
    }

    fn owner(name: &str) -> Owner {
        Owner::Data(name.into())
    }

    /// ORCHD-SESSION-001
    #[test]
    fn a_session_counts_its_turns_and_is_forgotten_when_it_is_not_used() {
        let sessions = sessions(r#"{"ttl_ms":10000}"#);
        let (a, now) = (owner("a"), Instant::now());
        sessions.turn(&a, &id(1), now);
        sessions.ended(&a, &id(1), Size { tokens_in: 7, tokens_out: 3 }, None, now + Duration::from_secs(4));
        let view = |s| sessions.view(&a, &id(1), now + Duration::from_secs(s));
        let seen = view(5).unwrap();
        assert_eq!((seen.turns, seen.tokens_in, seen.tokens_out), (1, 7, 3));
        assert_eq!(seen.ttl_ms_remaining, 9_000);
        assert_eq!(view(14), None);
        sessions.turn(&a, &id(1), now + Duration::from_secs(20));
        assert_eq!(view(20).unwrap().tokens_in, 0, "it is another one now");
    }

    /// ORCHD-SESSION-002
    #[test]
    fn a_spent_session_takes_no_more_turns() {
        let sessions = sessions(r#"{"turns":2,"tokens":100}"#);
        let (a, now) = (owner("a"), Instant::now());
        (0..2).for_each(|_| sessions.turn(&a, &id(1), now));
        assert_eq!(sessions.check(&a, &id(1), now), Err(SessionSpent::Turns(2)));
        sessions.turn(&a, &id(2), now);
        assert_eq!(sessions.check(&a, &id(2), now), Ok(()));
        sessions.ended(&a, &id(2), Size { tokens_in: 60, tokens_out: 60 }, None, now);
        assert_eq!(sessions.check(&a, &id(2), now), Err(SessionSpent::Tokens(100)));
        assert!(sessions.remove(&a, &id(2), now).is_some());
        assert_eq!(sessions.check(&a, &id(2), now), Ok(()));
    }

    /// ORCHD-SESSION-001
    #[test]
    fn sessions_are_their_owners_and_bounded() {
        let sessions = sessions(r#"{"capacity":3}"#);
        let start = Instant::now();
        for n in 0..10 {
            sessions.turn(&owner("a"), &id(n), start + Duration::from_secs(n.into()));
        }
        let now = start + Duration::from_secs(10);
        let known = |n| sessions.view(&owner("a"), &id(n), now).is_some();
        assert_eq!((0..10).filter(|n| known(*n)).collect::<Vec<_>>(), [7, 8, 9]);
        assert_eq!(sessions.view(&owner("b"), &id(9), now), None);
        assert!(sessions.view(&Owner::Control, &id(9), now).is_some());
        assert_eq!(sessions.remove(&owner("b"), &id(9), now), None);
        assert!(known(9));
    }
}
