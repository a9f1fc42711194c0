//! The files and values that cross a process boundary outside HTTP, held against the committed schemas:
//! what a suite reads goes through here before it is looked at.

use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use jsonschema::Validator;
use serde_json::Value;

/// A committed schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// What `engine-provisioner models … --json` prints of a model.
    CatalogModel,
    /// A configuration file.
    Config,
    /// A handoff file.
    Handoff,
    /// What `engine-provisioner` prints of an engine.
    PreparedEngine,
    /// What is kept of a task that asked for it.
    Transcript,
}

impl Schema {
    /// Checks a value.
    ///
    /// # Errors
    ///
    /// When it is not what the schema says, with each place where it is not.
    pub fn check(self, value: &Value) -> Result<()> {
        let problems: Vec<String> = self
            .validator()?
            .iter_errors(value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        ensure!(problems.is_empty(), "{value:#} is no {self:?} by its schema:\n{}", problems.join("\n"));
        Ok(())
    }

    /// Checks each value of a text of one or several, and says how many there were.
    ///
    /// # Errors
    ///
    /// When one is not JSON, or not what the schema says.
    pub fn check_each(self, text: &str) -> Result<usize> {
        let mut count = 0;
        for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
            self.check(&value.with_context(|| format!("no JSON where a {self:?} was expected: {text}"))?)?;
            count += 1;
        }
        Ok(count)
    }

    /// Checks a configuration file; one that says nothing is one, too.
    ///
    /// # Errors
    ///
    /// When it is no YAML, or not what the schema says.
    pub fn check_config(yaml: &str) -> Result<()> {
        let value: Value =
            serde_yaml::from_str(yaml).with_context(|| format!("no YAML where a config was: {yaml}"))?;
        if value.is_null() { Ok(()) } else { Self::Config.check(&value) }
    }

    fn text(self) -> &'static str {
        match self {
            Self::CatalogModel => include_str!("../../../contracts/schemas/catalog-model.schema.json"),
            Self::Config => include_str!("../../../contracts/schemas/config.schema.json"),
            Self::Handoff => include_str!("../../../contracts/schemas/handoff.schema.json"),
            Self::PreparedEngine => include_str!("../../../contracts/schemas/prepared-engine.schema.json"),
            Self::Transcript => include_str!("../../../contracts/schemas/transcript.schema.json"),
        }
    }

    /// Compiled once for each process: handoffs are read again and again while something is waited for.
    fn validator(self) -> Result<&'static Validator> {
        static COMPILED: [OnceLock<Option<Validator>>; 5] = [const { OnceLock::new() }; 5];
        let compiled = COMPILED.get(self as usize).context("a schema without a place")?;
        let compile = || jsonschema::validator_for(&serde_json::from_str(self.text()).ok()?).ok();
        compiled.get_or_init(compile).as_ref().with_context(|| format!("the schema of {self:?} is none"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ENGINE: &str = r#"{"binary_path":"/e","flags":[],"port":0,"host":"127.0.0.1","model_path":"/m",
        "engine_version":"v","pool_id":"p","replica_id":"r0","engine_digest":"","model_digest":"","ctx":1,"slots":1}"#;

    /// PROOF-009
    #[test]
    fn what_is_no_value_of_its_schema_is_refused_with_the_place() {
        for (schema, least) in [
            (Schema::Handoff, json!({"url": "http://127.0.0.1:1"})),
            (Schema::PreparedEngine, serde_json::from_str(ENGINE).unwrap()),
        ] {
            schema.check(&least).unwrap();
            for key in least.as_object().unwrap().keys() {
                let mut without = least.clone();
                without.as_object_mut().unwrap().remove(key);
                let error = schema.check(&without).unwrap_err().to_string();
                assert!(error.contains(key), "{schema:?} without {key}: {error}");
            }
        }
        let mut more: Value = serde_json::from_str(ENGINE).unwrap();
        more["prot"] = json!(1);
        assert!(Schema::PreparedEngine.check(&more).is_err(), "a field that nobody wrote down");
        let port = json!({"url": "http://127.0.0.1:1", "slots_total": "one"});
        assert!(Schema::Handoff.check(&port).unwrap_err().to_string().contains("/slots_total"));
        assert!(Schema::Transcript.check(&json!({})).is_err());
        assert!(Schema::CatalogModel.check(&json!({"digest": "x"})).is_err());
    }

    /// PROOF-009
    #[test]
    fn several_values_are_each_checked_and_a_config_is_yaml_or_nothing() {
        assert_eq!(Schema::PreparedEngine.check_each(&format!("{ENGINE}\n{ENGINE}\n")).unwrap(), 2);
        assert_eq!(Schema::PreparedEngine.check_each("").unwrap(), 0);
        assert!(Schema::PreparedEngine.check_each(&format!("{ENGINE}\n{{}}\n")).is_err());
        assert!(Schema::PreparedEngine.check_each(&format!("{ENGINE}\nready\n")).is_err());
        Schema::check_config("# nothing\n").unwrap();
        Schema::check_config("pools: [{ id: p, model: builtin:haiku, provisioning: { gpu: off } }]\n")
            .unwrap();
        let error = Schema::check_config("pools: [{ id: p, model: builtin:haiku, replcias: 2 }]\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("replcias") && error.contains("/pools/0"), "{error}");
        assert!(Schema::check_config("pools: {{\n").is_err());
    }
}
