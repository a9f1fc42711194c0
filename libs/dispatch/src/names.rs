//! Which pool a model name means.

use std::collections::BTreeMap;

use wire::PoolId;

use crate::{PoolSpec, UnknownModel};

/// Names of pools. Where two pools claim one name, ids win over aliases, aliases over model names,
/// and the pool that came first over later ones.
#[derive(Debug, Default)]
pub(crate) struct Names {
    by_name: BTreeMap<String, PoolId>,
}

impl Names {
    pub(crate) fn new(pools: &[PoolSpec]) -> Self {
        let mut names = Self::default();
        for pool in pools {
            names.learn(pool.id.as_str(), &pool.id);
        }
        for pool in pools {
            pool.aliases.iter().for_each(|alias| names.learn(alias, &pool.id));
        }
        for pool in pools {
            pool.model_names.iter().for_each(|name| names.learn(name, &pool.id));
        }
        names
    }

    /// The names that a changed configuration gives. What was learned of pools that are still there stays;
    /// `dropped` are names that were given by the one before, and pools that it named.
    pub(crate) fn configure(&mut self, pools: &[PoolSpec], dropped: &[String], gone: &[PoolId]) {
        let before = std::mem::replace(self, Self::new(pools));
        for (name, pool) in &before.by_name {
            if !dropped.contains(name) && !gone.contains(pool) {
                self.learn(name, pool);
            }
        }
    }

    /// Adds a name unless it is taken.
    pub(crate) fn learn(&mut self, name: &str, pool: &PoolId) {
        self.by_name.entry(name.to_owned()).or_insert_with(|| pool.clone());
    }

    pub(crate) fn resolve(&self, model: &str) -> Result<PoolId, UnknownModel> {
        match self.by_name.get(model) {
            Some(pool) => Ok(pool.clone()),
            None => {
                // Kept short: it is echoed in an error.
                let model: String = model.chars().take(128).collect();
                Err(UnknownModel { nearest: self.nearest(&model), model })
            }
        }
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.by_name.keys().cloned().collect()
    }

    fn nearest(&self, model: &str) -> Vec<String> {
        let lower = model.to_lowercase();
        let mut scored: Vec<_> = self
            .by_name
            .keys()
            .map(|name| (strsim::jaro_winkler(&lower, &name.to_lowercase()), name))
            .filter(|(score, _)| *score > 0.6)
            .collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        scored.into_iter().take(3).map(|(_, name)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::config::QueueConfig;

    fn pool(id: &str, aliases: &[&str], model_names: &[&str]) -> PoolSpec {
        let own = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        PoolSpec {
            id: PoolId::try_new(id).unwrap(),
            aliases: own(aliases),
            model_names: own(model_names),
            model_ref: String::new(),
            ctx: 16,
            queue: QueueConfig::default(),
            deterministic: false,
        }
    }

    #[test]
    fn ids_win_over_aliases_and_aliases_over_model_names() {
        let names = Names::new(&[pool("a", &["b", "x"], &["y"]), pool("b", &["y"], &["x"])]);
        let id = |name| names.resolve(name).unwrap().to_string();
        assert_eq!([id("a"), id("b"), id("x"), id("y")], ["a", "b", "a", "b"]);
    }

    /// ORCHD-CONFIG-001
    #[test]
    fn a_changed_configuration_gives_and_takes_names_and_leaves_those_that_were_learned() {
        let mut names = Names::new(&[pool("a", &["old"], &[]), pool("b", &["mine"], &[])]);
        names.learn("model-a", &PoolId::try_new("a").unwrap());
        names.learn("model-b", &PoolId::try_new("b").unwrap());
        let dropped = ["old", "mine"].map(str::to_owned);
        names.configure(&[pool("a", &["new"], &[])], &dropped, &[PoolId::try_new("b").unwrap()]);
        assert_eq!(names.all(), ["a", "model-a", "new"]);
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest_ones() {
        let names = Names::new(&[pool("haiku", &["gpt-4o-mini"], &[])]);
        let error = names.resolve("Hiaku").unwrap_err();
        assert_eq!(error.nearest, ["haiku"]);
        assert!(error.to_string().contains("\"Hiaku\"; the nearest names are haiku"), "{error}");
        assert!(names.resolve("zzz").unwrap_err().nearest.is_empty());
    }
}
