//! An engine that dies in the middle of an answer, between a real HTTP client and real connections to
//! stubs: what the client has read at the end is what it would have read without.

use serde_json::{Value, json};
use stub_llama::{RunningStub, Stub, StubConfig};
use wire::Handoff;

use super::{Orchestrator, stub_with};

const TOKENS: u64 = 24;

impl Orchestrator {
    fn publish_replica(&self, stub: &RunningStub, replica: &str, generation: u64) {
        let handoff = json!({
            "url": stub.url(), "pool_id": "p", "replica_id": replica, "generation": generation,
            "engine_version": format!("stub-{generation}"), "slots_total": 1, "model": {"id": "m", "path": "", "digest": "abc"},
        });
        let handoff: Handoff = serde_json::from_value(handoff).unwrap();
        self.handoffs.publish(&handoff).unwrap();
    }

    /// Prefers r0; the joined text, the terminal event and the events' names.
    async fn answer(&self, more: Value) -> (String, Value, Vec<String>) {
        let mut body = json!({"max_tokens": TOKENS, "temperature": 0,
            "placement": {"mode": "prefer", "replica_id": "r0"}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let task = self.submit(body).await;
        let events = self.events(&task, None).await;
        let tokens = || events.iter().filter(|(_, event, _)| event == "token");
        for (expected, (_, _, token)) in tokens().enumerate() {
            assert_eq!(token["i"], expected as u64, "the indices have no gap");
        }
        let text = tokens().filter_map(|(_, _, token)| token["t"].as_str()).collect();
        let last = events.last().unwrap().2.clone();
        (text, last, events.into_iter().map(|(_, event, _)| event).collect())
    }

    pub(super) async fn until_up(&self, replica: &str, generation: u64, stub: &RunningStub) {
        self.publish_replica(stub, replica, generation);
        let path = "/v2/pools/p/health";
        super::until(async || {
            let snapshot = self.running.state().registry.snapshot();
            // Of the life before this one the registry may not have noticed the end yet.
            let of = |r: &registry::Replica| r.ready && *r.engine_version == *format!("stub-{generation}");
            let up = snapshot.replicas.iter().any(|(key, r)| key.replica.as_str() == replica && of(r));
            up && self.get(path).await["ready"] == true
        })
        .await;
    }
}

fn dying_after(tokens: u64, char_tokens: bool) -> RunningStub {
    stub_with(|faults| {
        faults.exit_after = Some(tokens);
        faults.char_tokens = char_tokens;
    })
}

/// ORCHD-RESUME-001, ORCHD-RESUME-002, ORCHD-RESUME-003, STREAM-011
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_killed_at_any_token_changes_nothing_of_the_answer() {
    for char_tokens in [false, true] {
        let orchestrator = Orchestrator::start().await;
        let good = stub_with(|faults| faults.char_tokens = char_tokens);
        orchestrator.until_up("r1", 1, &good).await;
        let (whole, end, names) = orchestrator.answer(json!({})).await;
        assert!(!whole.is_ascii() && !names.contains(&"resumed".to_owned()), "{whole}");
        let mut seams = 0;
        for cut in 1..TOKENS {
            let dying = dying_after(cut, char_tokens);
            orchestrator.until_up("r0", cut, &dying).await;
            let (joined, cut_end, names) = orchestrator.answer(json!({})).await;
            assert_eq!(joined, whole, "cut at {cut}: {names:?}");
            assert_eq!(cut_end["receipt"]["tokens_sha256"], end["receipt"]["tokens_sha256"]);
            assert_eq!(cut_end["tokens_out"], end["tokens_out"]);
            if names.contains(&"resumed".to_owned()) {
                seams += 1;
                let by = &cut_end["receipt"]["seams"][0]["by"];
                assert!(by == "ids" || char_tokens && by == "text", "cut at {cut}: {cut_end}");
            }
        }
        // With several tokens a character some counts are stepped over, and that engine lives on.
        assert!(seams >= if char_tokens { 10 } else { TOKENS - 1 }, "{seams}");
        orchestrator.stop().await;
    }
}

/// ORCHD-RESUME-004
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_string_that_straddles_the_seam_still_ends_the_answer() {
    let orchestrator = Orchestrator::start().await;
    let good = stub_with(|_| {});
    orchestrator.until_up("r1", 1, &good).await;
    let (whole, ..) = orchestrator.answer(json!({})).await;
    // The stop string begins with the last letter of the eighth word and ends in the twelfth.
    let words: Vec<&str> = whole.split(' ').collect();
    let before = words[..9].join(" ").len() - words[8].chars().last().unwrap().len_utf8();
    let stop = whole[before..words[..12].join(" ").len()].to_owned();
    let wanted = whole.split(&stop).next().unwrap();
    let (uncut, end, _) = orchestrator.answer(json!({"stop": [stop]})).await;
    assert_eq!((uncut.as_str(), &end["finish_reason"]), (wanted, &json!("stop")));
    for cut in 5..13 {
        let dying = dying_after(cut, false);
        orchestrator.until_up("r0", cut, &dying).await;
        let (joined, end, names) = orchestrator.answer(json!({"stop": [stop]})).await;
        assert_eq!((joined.as_str(), &end["finish_reason"]), (wanted, &json!("stop")), "{cut}: {names:?}");
    }
    orchestrator.stop().await;
}

/// ORCHD-RESUME-001
#[tokio::test(flavor = "multi_thread")]
async fn the_next_life_of_the_only_replica_goes_on() {
    let orchestrator = Orchestrator::start().await;
    let good = stub_with(|_| {});
    orchestrator.until_up("r0", 1, &good).await;
    let (whole, ..) = orchestrator.answer(json!({})).await;
    let dying = dying_after(7, false);
    orchestrator.until_up("r0", 2, &dying).await;
    let answer = orchestrator.answer(json!({}));
    let restart = async {
        super::until(async || dying.stats().tokens >= 7).await;
        let next = Stub::start(StubConfig::default()).unwrap();
        orchestrator.publish_replica(&next, "r0", 3);
        next
    };
    let ((joined, end, names), _next) = tokio::join!(answer, restart);
    assert_eq!((joined, &end["finish_reason"]), (whole, &json!("length")), "{names:?} {end}");
    assert!(names.contains(&"resumed".to_owned()));
    orchestrator.stop().await;
}

/// ORCHD-RESUME-007
#[tokio::test(flavor = "multi_thread")]
async fn without_resume_the_loss_is_told() {
    let orchestrator = Orchestrator::start().await;
    for (more, generation) in
        [(json!({"on_interrupt": "fail"}), 1), (json!({"grammar": "root ::= [a-z]+"}), 2)]
    {
        let dying = dying_after(3, false);
        orchestrator.until_up("r0", generation, &dying).await;
        let (_, error, names) = orchestrator.answer(more).await;
        assert_eq!((names.last().unwrap().as_str(), &error["code"]), ("error", &json!("ENGINE_LOST")));
        assert_eq!(error["tokens_sent"], 3);
    }
    orchestrator.stop().await;
}
