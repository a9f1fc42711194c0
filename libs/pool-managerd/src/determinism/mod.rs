//! What an engine may say about sameness, found out before it is published: a pool declared deterministic
//! is tested on its own device, once for each engine, model, flags and device; any other says what stands
//! against it and claims nothing.
//!
//! Stops no engine: one that fails serves as well as before, it only may not claim.

mod compare;
mod kept;

use std::time::SystemTime;

use serde_json::{Value, json};
use wire::config::{PoolConfig, PoolKind};
use wire::{Determinism, PreparedEngine, SelfTest, rfc3339};

use crate::engine_http::EngineClient;
use crate::shared::Shared;
use compare::Answers;
pub(crate) use kept::Kept;

/// Each prompt is answered twice, and the other one in between, so that nothing of the first answer is
/// left in the slot when the second begins. The first is answered greedily, the second with drawn tokens.
const PROMPTS: [&str; 2] = [
    "The sea is calm tonight, and the moon",
    "A machine that is asked the same question twice should give the same answer twice. Whoever keeps an \
     answer as evidence relies on it, and so does whoever goes on with an answer on another machine. So \
     before anything is promised, this text is read and",
];
const TOKENS: u32 = 16;

/// Finds out what an engine that has loaded may claim. Takes at most the time of a canary.
pub(crate) async fn examine(
    shared: &Shared,
    pool: &PoolConfig,
    prepared: &PreparedEngine,
    client: &EngineClient,
) -> Determinism {
    let device = device(shared, prepared).await;
    let without_test = |result, differs| Determinism {
        result,
        device: device.clone(),
        tested_at: None,
        tokens_sha256: None,
        differs,
    };
    if !pool.deterministic {
        return without_test(SelfTest::NotDeclared, may_differ(pool));
    }
    if pool.kind != PoolKind::Chat {
        let why = "only completions are tested, and this pool makes none".to_owned();
        return without_test(SelfTest::NotTested, vec![why]);
    }
    if let Some(known) = shared.self_tests.read(prepared, &device).await {
        return known;
    }
    let limit = shared.timings.canary_timeout;
    let answers = tokio::time::timeout(limit, ask(client, limit));
    let answers = answers.await.unwrap_or_else(|_| Err(format!("it took longer than {} s", limit.as_secs())));
    let result = match answers {
        Ok(answers) => judge(&answers, device),
        Err(why) => return without_test(SelfTest::NotTested, vec![format!("the test was not made: {why}")]),
    };
    if result.result == SelfTest::Failed {
        tracing::warn!(pool = %pool.id, differs = ?result.differs, "declared deterministic and is not");
    }
    shared.self_tests.write(prepared, &result).await;
    result
}

/// What may make two answers of a pool differ that is not declared deterministic.
fn may_differ(pool: &PoolConfig) -> Vec<String> {
    let mut found = vec![
        "the prompt cache is used, so a prompt is computed in other batches when a part of it is known"
            .to_owned(),
        "continuous batching is on, so an answer is computed together with whatever else runs".to_owned(),
    ];
    if pool.slots > 1 {
        found
            .push(format!("{} slots share each batch, and output depends on what else is in it", pool.slots));
    }
    found
}

/// The answers in the order in which they were asked for: each prompt, and each again.
async fn ask(client: &EngineClient, limit: std::time::Duration) -> Result<Answers, String> {
    let mut answers = Vec::new();
    for (nth, prompt) in PROMPTS.iter().chain(&PROMPTS).enumerate() {
        let body = question(prompt, nth % PROMPTS.len() != 0);
        answers.push(client.complete(&body, limit).await?);
    }
    let again = answers.split_off(PROMPTS.len());
    Ok(Answers { first: answers, again })
}

fn question(prompt: &str, drawn: bool) -> Value {
    json!({
        "prompt": prompt, "n_predict": TOKENS, "ignore_eos": true, "cache_prompt": false, "stream": false,
        "return_tokens": true, "n_probs": 1, "seed": 29, "temperature": if drawn { 1.0 } else { 0.0 },
    })
}

fn judge(answers: &Answers, device: String) -> Determinism {
    let differs = answers.differences();
    Determinism {
        result: if differs.is_empty() { SelfTest::Passed } else { SelfTest::Failed },
        device,
        tested_at: Some(rfc3339(SystemTime::now())),
        tokens_sha256: Some(answers.sha256()),
        differs,
    }
}

/// What an engine computes on: its cards with their driver, or the processor and its threads.
async fn device(shared: &Shared, prepared: &PreparedEngine) -> String {
    let Some(mask) = &prepared.device_mask else { return processor() };
    let cards = shared.cards.recent().await;
    let names: Vec<String> = mask
        .split(',')
        .map(|uuid| match cards.cards().iter().find(|card| card.uuid == uuid.trim()) {
            Some(card) => {
                format!("{} {uuid}, driver {}", card.name, card.driver.as_deref().unwrap_or("unknown"))
            }
            None => uuid.to_owned(),
        })
        .collect();
    names.join("; ")
}

fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // arm64 kernels do not name the model.
    format!("{}, {threads} threads", model.map_or(std::env::consts::ARCH, |(_, name)| name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine_http::Completed;

    fn said(tokens: &[u32]) -> Completed {
        Completed { tokens: tokens.to_vec(), content: format!("{tokens:?}"), probabilities: Value::Null }
    }

    /// DET-002
    #[test]
    fn only_equal_answers_are_a_claim_and_a_difference_is_told_with_its_place() {
        let same = Answers { first: vec![said(&[1, 2]), said(&[3])], again: vec![said(&[1, 2]), said(&[3])] };
        let passed = judge(&same, "d".to_owned());
        assert_eq!((passed.result, passed.differs.len()), (SelfTest::Passed, 0));
        assert_eq!(passed.tokens_sha256.unwrap().len(), 64);
        let other = Answers { again: vec![said(&[1, 9]), said(&[3])], ..same };
        let failed = judge(&other, "d".to_owned());
        assert_eq!(failed.result, SelfTest::Failed);
        assert_eq!(failed.differs, ["prompt 1: token 1 is 2 in one answer and 9 in the other"]);
    }

    /// DET-003
    #[test]
    fn a_pool_that_is_not_declared_says_what_may_differ() {
        let pool = PoolConfig { deterministic: false, slots: 4, ..PoolConfig::haiku() };
        let said = may_differ(&pool).join("\n");
        assert!(said.contains("prompt cache") && said.contains("4 slots"), "{said}");
        let said = may_differ(&PoolConfig { slots: 1, ..pool }).join("\n");
        assert!(said.contains("continuous batching") && !said.contains("slots"), "{said}");
    }

    #[test]
    fn one_prompt_is_answered_greedily_and_one_with_drawn_tokens() {
        assert_eq!(question("x", false)["temperature"], 0.0);
        assert_eq!(question("x", true)["temperature"], 1.0);
    }
}
