//! What a new configuration means for a pool: a pure comparison. Only what changed moves, and as little
//! as possible of that.
//!
//! *Unchanged*: nothing moves. *Route only*: names, queue and what a manager's end does; no engine moves.
//! *Rolling*: one replica after the other goes over to a new engine, beside the old one where there is
//! memory for both. *Restart*: the old engine ends before the new one starts, because both must not
//! answer for the pool at once.

use std::fmt;

use serde_json::Value;
use wire::PoolId;
use wire::config::PoolConfig;

/// Keys that no engine knows of.
const ROUTE: &[&str] = &["aliases", "queue", "on_exit", "allow_oversubscribe"];
/// How many engines there are; none of them is another for it.
const COUNT: &str = "replicas";
/// Keys that make another kind of pool: what the old engine answers is wrong for the new one's clients.
const RESTART: &[&str] = &["kind"];

/// What becomes of a pool's engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EngineChange {
    /// They stay.
    Stay,
    /// They are exchanged one by one, beside each other where there is memory for both.
    Rolling,
    /// They are exchanged one by one, the old one ending first.
    Restart,
}

/// What a new configuration means for one pool that it names, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolDiff {
    /// Of its engines.
    pub engines: EngineChange,
    /// Its number of replicas, before and after.
    pub replicas: (u32, u32),
    /// The keys that differ, as they are written in the file.
    pub keys: Vec<String>,
}

/// What a new configuration means for one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolChange {
    /// It is new.
    Added(PoolId),
    /// It is not named any more: it is drained and stopped.
    Removed(PoolId),
    /// It is configured otherwise.
    Changed(PoolId, PoolDiff),
}

impl PoolDiff {
    /// `None` when both are the same.
    pub(crate) fn of(before: &PoolConfig, after: &PoolConfig) -> Option<Self> {
        let keys = differing_keys(before, after);
        let class = |key: &String| match key.as_str() {
            key if ROUTE.contains(&key) || key == COUNT => EngineChange::Stay,
            key if RESTART.contains(&key) => EngineChange::Restart,
            _ => EngineChange::Rolling,
        };
        let engines = keys.iter().map(class).max()?;
        Some(Self { engines, replicas: (before.replicas, after.replicas), keys })
    }

    /// Neither engines nor their number change.
    pub(crate) fn is_route_only(&self) -> bool {
        self.engines == EngineChange::Stay && self.replicas.0 == self.replicas.1
    }
}

impl fmt::Display for PoolChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added(pool) => write!(f, "{pool}: added"),
            Self::Removed(pool) => write!(f, "{pool}: removed"),
            Self::Changed(pool, diff) => write!(f, "{pool}: {diff}"),
        }
    }
}

impl fmt::Display for PoolDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = self.replicas;
        let what = match self.engines {
            EngineChange::Stay if before == after => "route only".to_owned(),
            EngineChange::Stay => format!("{before} to {after} replicas"),
            EngineChange::Rolling => "rolling".to_owned(),
            EngineChange::Restart => "restart".to_owned(),
        };
        write!(f, "{what} ({})", self.keys.join(", "))
    }
}

/// A configuration without what no engine knows of: of two pools for which it is the same, both launch
/// the same engine.
pub(crate) fn engine_part(pool: &PoolConfig) -> Value {
    let mut value = serde_json::to_value(pool).unwrap_or_default();
    if let Some(keys) = value.as_object_mut() {
        keys.retain(|key, _| key != COUNT && !ROUTE.contains(&key.as_str()));
    }
    value
}

/// `engines` as they are, and everything else as `routes` says.
pub(crate) fn with_routes_of(engines: &PoolConfig, routes: &PoolConfig) -> PoolConfig {
    PoolConfig {
        aliases: routes.aliases.clone(),
        queue: routes.queue.clone(),
        on_exit: routes.on_exit,
        allow_oversubscribe: routes.allow_oversubscribe,
        replicas: routes.replicas,
        ..engines.clone()
    }
}

fn differing_keys(before: &PoolConfig, after: &PoolConfig) -> Vec<String> {
    let value = |pool: &PoolConfig| serde_json::to_value(pool).unwrap_or_default();
    let (before, after) = (value(before), value(after));
    let keys = after.as_object().into_iter().flatten();
    keys.filter(|(key, value)| before.get(*key) != Some(*value)).map(|(key, _)| key.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(edit: impl FnOnce(&mut PoolConfig)) -> String {
        let before = PoolConfig::haiku();
        let mut after = before.clone();
        edit(&mut after);
        PoolDiff::of(&before, &after).map_or_else(|| "unchanged".to_owned(), |diff| diff.to_string())
    }

    /// POOLD-CONFIG-001
    #[test]
    fn each_key_moves_as_little_as_it_must() {
        assert_eq!(change(|_| {}), "unchanged");
        assert_eq!(change(|pool| pool.aliases.push("x".to_owned())), "route only (aliases)");
        assert_eq!(change(|pool| pool.queue.capacity = 7), "route only (queue)");
        assert_eq!(change(|pool| pool.on_exit = wire::config::OnExit::Keep), "route only (on_exit)");
        assert_eq!(change(|pool| pool.replicas = 3), "1 to 3 replicas (replicas)");
        assert_eq!(change(|pool| pool.ctx = 4096), "rolling (ctx)");
        let both = |pool: &mut PoolConfig| {
            pool.flags.push("--no-mmap".to_owned());
            pool.replicas = 2;
        };
        assert_eq!(change(both), "rolling (replicas, flags)");
        let kind = |pool: &mut PoolConfig| {
            pool.ctx = 512;
            pool.kind = wire::config::PoolKind::Embedding;
        };
        assert_eq!(change(kind), "restart (kind, ctx)");
    }

    /// POOLD-CONFIG-001
    #[test]
    fn what_no_engine_knows_of_is_all_that_is_taken_over_without_one() {
        let engines = PoolConfig::haiku();
        let mut routes = PoolConfig { ctx: 9999, model: "hf:a/b".to_owned(), ..engines.clone() };
        routes.aliases = vec!["other".to_owned()];
        routes.queue.capacity = 3;
        routes.on_exit = wire::config::OnExit::Keep;
        routes.replicas = 5;
        routes.allow_oversubscribe = true;
        let merged = with_routes_of(&engines, &routes);
        assert_eq!(engine_part(&merged), engine_part(&engines));
        let routed: Vec<&str> = ROUTE.iter().copied().chain([COUNT]).collect();
        let differ = differing_keys(&engines, &merged);
        assert!(
            routed.iter().all(|key| differ.iter().any(|d| d == key)) && differ.len() == routed.len(),
            "{differ:?}"
        );
        assert_eq!(differing_keys(&merged, &routes), ["model", "ctx"]);
    }
}
