//! A task goes on with another engine when the one under it is lost in the middle of its answer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test helper fails by panicking"
)]

mod support;

use std::time::Duration;

use adapter_host::{CompletionRequest, EngineRequest, SoFar};
use dispatch::{Limits, TaskSpec};
use proptest::prelude::*;
use registry::{Event, Up};
use support::{Engine, Script, World, all, chunk, key, spec, until_entries, words};
use task_log::Entry;
use tokio::time::Instant;
use wire::config::FullPolicy;
use wire::event::{End, Receipt, SeamBy};
use wire::task::OnInterrupt;
use wire::{EngineChunk, ReplicaId, TaskState};

const MS: Duration = Duration::from_millis(1);
const SEC: Duration = Duration::from_secs(1);

fn resuming(prompt: &str, change: impl FnOnce(&mut CompletionRequest)) -> TaskSpec {
    let mut spec = TaskSpec { on_interrupt: OnInterrupt::Resume, ..spec(prompt) };
    let EngineRequest::Completion(completion) = &mut spec.request else { panic!("a completion") };
    change(completion);
    spec
}

fn text(entries: &[Entry]) -> String {
    let said = |entry: &Entry| match entry {
        Entry::Chunk { chunk, .. } => Some(chunk.text.clone()),
        _ => None,
    };
    entries.iter().filter_map(said).collect()
}

fn end(entries: &[Entry]) -> End {
    let Some(Entry::End(end)) = entries.last() else { panic!("no end: {entries:?}") };
    end.clone()
}

/// ORCHD-RESUME-001, ORCHD-RESUME-002, STREAM-011
#[tokio::test(start_paused = true)]
async fn another_replica_goes_on_with_the_next_index() {
    let world = World::new();
    let second = Engine::new(Script::Speak(4, MS));
    world.up(0, 1, 1, &Engine::new(Script::BreakAfter(2)));
    let task = world.submit(resuming("x", |_| {}));
    until_entries(&task, 3).await;
    world.up(1, 1, 1, &second);
    assert_eq!(words(&task).await, "started:r0 0=t0 1=t1 resumed:r1 2=t2 3=t3 end:stop");
    assert_eq!(second.asked()[0].so_far, SoFar::Ids(vec![0, 1]));
    let entries = all(&task).await;
    assert!(entries.iter().any(|e| matches!(e, Entry::Resumed(r) if r.from_index == 2)), "{entries:?}");
    let end = end(&entries);
    assert_eq!((end.tokens_in, end.tokens_out), (Some(7), 5), "what was said is no prompt");
    let seam = &end.receipt.seams[0];
    assert_eq!((seam.from_index, seam.by, &seam.replica_id), (2, SeamBy::Ids, &ReplicaId::nth(1)));
    assert_eq!(world.metric(r#"orchd_tokens_out_total{pool_id="p",priority="interactive"}"#), Some(5.0));
    assert_eq!(world.metric(r#"orchd_tasks_started_total{pool_id="p",priority="interactive"}"#), Some(1.0));
}

/// ORCHD-DRAIN-001, ORCHD-DRAIN-002
#[tokio::test(start_paused = true)]
async fn an_answer_waits_for_the_next_life_of_its_replica_and_not_for_an_undrain() {
    for superseded in [true, false] {
        let world = World::new();
        world.up(0, 1, 1, &Engine::new(Script::HangAfter(2)));
        let task = world.submit(resuming("x", |_| {}));
        until_entries(&task, 3).await;
        world.registry.apply(if superseded {
            Event::Superseded { key: key(0), generation: 1 }
        } else {
            Event::Up(Up { draining: true, ..Up::new(key(0), 1, 1) })
        });
        world.down(0, 1);
        // The next life has yet to prove itself.
        tokio::time::sleep(SEC).await;
        world.up(0, 2, 1, &Engine::new(Script::Speak(4, MS)));
        let said = words(&task).await;
        if superseded {
            assert_eq!(said, "started:r0 0=t0 1=t1 resumed:r0 2=t2 3=t3 end:stop");
        } else {
            assert_eq!(said, "started:r0 0=t0 1=t1 error:POOL_DRAINING:2");
        }
    }
}

async fn joined(total: u32, cuts: &[u32]) -> (String, Receipt) {
    let limits = Limits { suspect_for: MS, ..Limits::default() };
    let world = World::with(8, FullPolicy::Reject, limits);
    let engine = Engine::new(Script::Speak(total, MS));
    cuts.iter().for_each(|cut| engine.then(Script::BreakAfter(*cut)));
    world.up(0, 1, 1, &engine);
    let entries = all(&world.submit(resuming("x", |c| c.sampling.max_tokens = Some(total + 1)))).await;
    (text(&entries), *end(&entries).receipt)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// ORCHD-RESUME-001
    #[test]
    fn cut_anywhere_up_to_four_times_the_joined_answer_is_the_uninterrupted_one(
        total in 1u32..60,
        mut cuts in prop::collection::vec(1u32..60, 0..=4),
    ) {
        cuts.retain(|cut| *cut < total);
        cuts.sort_unstable();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let (whole, cut) = runtime.block_on(async { (joined(total, &[]).await, joined(total, &cuts).await) });
        prop_assert_eq!(&whole.0, &cut.0);
        prop_assert_eq!(whole.1.tokens_sha256, cut.1.tokens_sha256);
        prop_assert_eq!(cut.1.seams.len(), cuts.len());
    }
}

/// ORCHD-RESUME-005
#[tokio::test(start_paused = true)]
async fn an_engine_that_goes_on_may_say_only_what_is_left() {
    let world = World::new();
    world.up(0, 1, 1, &Engine::new(Script::BreakAfter(3)));
    let second = Engine::new(Script::Speak(9, MS));
    let task = world.submit(resuming("x", |c| c.sampling.max_tokens = Some(10)));
    until_entries(&task, 4).await;
    world.up(1, 1, 1, &second);
    all(&task).await;
    assert_eq!(second.asked()[0].sampling.max_tokens, Some(7));
}

/// ORCHD-RESUME-005
#[tokio::test(start_paused = true)]
async fn an_answer_that_was_complete_when_its_engine_died_ends_without_another() {
    let world = World::new();
    world.up(0, 1, 1, &Engine::new(Script::BreakAfter(3)));
    let task = world.submit(resuming("x", |c| c.sampling.max_tokens = Some(3)));
    assert_eq!(words(&task).await, "started:r0 0=t0 1=t1 2=t2 end:length");
    let view = task.view();
    assert_eq!((view.state, view.tokens_in, view.tokens_out), (TaskState::Done, None, Some(3)));
}

/// ORCHD-RESUME-006
#[tokio::test(start_paused = true)]
async fn what_is_drawn_behind_a_seam_is_drawn_with_another_seed_and_greedy_answers_keep_theirs() {
    for (temperature, another) in [(Some(0.0), false), (Some(0.8), true), (None, true)] {
        let world = World::new();
        world.up(0, 1, 1, &Engine::new(Script::BreakAfter(2)));
        let second = Engine::new(Script::Speak(4, MS));
        let task = world.submit(resuming("x", |c| c.sampling.temperature = temperature));
        until_entries(&task, 3).await;
        world.up(1, 1, 1, &second);
        let receipt = end(&all(&task).await).receipt;
        let seed = second.asked()[0].sampling.seed.unwrap();
        assert_eq!(seed != 42, another, "at {temperature:?}");
        assert_eq!(receipt.seed.unwrap().0, 42);
        assert_eq!(receipt.seams[0].seed.map(|seed| seed.0), another.then_some(seed));
    }
}

fn maple(n: u32) -> EngineChunk {
    // Of a character of several tokens only the last id is said.
    let (text, unnamed) = if n % 3 == 1 { ("\u{1f341}", 2) } else { ("a", 0) };
    EngineChunk { text: text.to_owned(), unnamed, ..chunk(n) }
}

/// ORCHD-RESUME-003
#[tokio::test(start_paused = true)]
async fn an_answer_whose_ids_are_not_all_known_goes_on_by_its_text_and_the_receipt_says_so() {
    let world = World::new();
    world.up(0, 1, 1, &Engine::saying(maple, Script::BreakAfter(3)));
    let second = Engine::saying(maple, Script::Speak(6, MS));
    let task = world.submit(resuming("x", |c| c.sampling.max_tokens = Some(20)));
    until_entries(&task, 4).await;
    world.up(1, 1, 1, &second);
    let entries = all(&task).await;
    assert_eq!(text(&entries), "a\u{1f341}aa\u{1f341}a");
    let asked = &second.asked()[0];
    assert_eq!(asked.so_far, SoFar::Text("a\u{1f341}a".to_owned()));
    assert_eq!(asked.sampling.max_tokens, Some(15), "five tokens were said, two of them without their ids");
    let end = end(&entries);
    assert_eq!(end.receipt.seams[0].by, SeamBy::Text);
    assert_eq!(end.tokens_in, None, "how many tokens the text was, nobody has said");
}

/// ORCHD-RESUME-007
#[tokio::test(start_paused = true)]
async fn a_task_that_is_bound_to_a_grammar_or_says_fail_fails_at_once_and_says_why() {
    let grammar = resuming("x", |c| c.sampling.grammar = Some("root ::= [a-z]+".to_owned()));
    let schema = resuming("x", |c| c.sampling.json_schema = Some(serde_json::json!({})));
    for (spec, why) in [(grammar, true), (schema, true), (spec("x"), false)] {
        let world = World::new();
        world.up(0, 1, 1, &Engine::new(Script::HangAfter(2)));
        world.up(1, 1, 1, &Engine::new(Script::Speak(4, MS)));
        let task = world.submit(spec);
        until_entries(&task, 3).await;
        let lost = Instant::now();
        world.down(0, 1);
        assert_eq!(words(&task).await, "started:r0 0=t0 1=t1 error:ENGINE_LOST:2");
        assert!(lost.elapsed() < 250 * MS);
        let hint = task.view().error.unwrap().hint;
        assert_eq!(hint.is_some_and(|hint| hint.contains("grammar")), why);
    }
}

/// ORCHD-RESUME-008
#[tokio::test(start_paused = true)]
async fn a_task_is_taken_over_so_often_and_no_more() {
    let limits = Limits { suspect_for: MS, ..Limits::default() };
    let world = World::with(8, FullPolicy::Reject, limits);
    let engine = Engine::new(Script::Unreachable);
    (1..=5).for_each(|cut| engine.then(Script::BreakAfter(cut)));
    world.up(0, 1, 1, &engine);
    let task = world.submit(resuming("x", |_| {}));
    assert!(words(&task).await.ends_with("4=t4 error:ENGINE_LOST:5"));
    assert_eq!(engine.asked().len(), 5);
    assert!(task.view().error.unwrap().hint.unwrap().contains("as often as"));
}

/// ORCHD-RESUME-008
#[tokio::test(start_paused = true)]
async fn an_interrupted_answer_waits_so_long_for_an_engine_and_never_longer_than_its_deadline() {
    for (deadline, after, error) in [
        (None, Limits::default().resume_within, "error:ENGINE_LOST:2"),
        (Some(10 * SEC), 10 * SEC, "error:DEADLINE_EXCEEDED:2"),
    ] {
        let world = World::new();
        world.up(0, 1, 1, &Engine::new(Script::HangAfter(2)));
        let task = world.submit(TaskSpec { deadline, ..resuming("x", |_| {}) });
        until_entries(&task, 3).await;
        let lost = Instant::now();
        world.down(0, 1);
        assert!(words(&task).await.ends_with(error));
        assert!(lost.elapsed() <= after + 10 * MS && lost.elapsed() >= after - SEC, "{:?}", lost.elapsed());
        assert_eq!(world.dispatch.queue_depth(&support::pool()), 0);
    }
}

/// ORCHD-RESUME-008
#[tokio::test(start_paused = true)]
async fn an_answer_waits_longer_for_an_engine_that_loads_slowly() {
    let load = Limits::default().resume_within;
    for (pause, expected) in [
        (3 * load - SEC, "started:r0 0=t0 1=t1 resumed:r0 2=t2 3=t3 end:stop"),
        (3 * load + SEC, "started:r0 0=t0 1=t1 error:ENGINE_LOST:2"),
    ] {
        let world = World::new();
        world.up(0, 1, 1, &Engine::new(Script::HangAfter(2)));
        world.registry.apply(Event::Up(Up { load: Some(load), ..Up::new(key(0), 1, 1) }));
        let task = world.submit(resuming("x", |_| {}));
        until_entries(&task, 3).await;
        world.down(0, 1);
        tokio::time::sleep(pause).await;
        world.up(0, 2, 1, &Engine::new(Script::Speak(4, MS)));
        assert_eq!(words(&task).await, expected, "{pause:?}");
    }
}

/// ORCHD-RESUME-011
#[tokio::test(start_paused = true)]
async fn another_model_does_not_go_on_with_an_answer_and_may_begin_one() {
    let world = World::new();
    world.up(0, 1, 1, &Engine::new(Script::BreakAfter(2)));
    let task = world.submit(resuming("x", |_| {}));
    until_entries(&task, 3).await;
    let other = Engine::new(Script::Speak(4, MS));
    world.up_with("other", 1, 1, 1, &other);
    assert_eq!(words(&task).await, "started:r0 0=t0 1=t1 error:ENGINE_LOST:2");
    assert!(task.view().error.unwrap().hint.unwrap().contains("model has changed"));
    assert!(other.asked().is_empty());

    let world = World::new();
    let engine = Engine::new(Script::Speak(1, MS));
    engine.then(Script::BreakAfter(0));
    world.up(0, 1, 1, &engine);
    let task = world.submit(resuming("x", |_| {}));
    until_entries(&task, 1).await;
    world.up_with("other", 1, 1, 1, &other);
    assert!(words(&task).await.ends_with("end:stop"), "nothing was said yet");
}

/// ORCHD-RESUME-009
#[tokio::test(start_paused = true)]
async fn an_engine_that_falls_silent_in_the_middle_is_left_for_another() {
    let world = World::new();
    world.up(0, 1, 1, &Engine::new(Script::HangAfter(2)));
    let task = world.submit(resuming("x", |_| {}));
    until_entries(&task, 3).await;
    world.up(1, 1, 1, &Engine::new(Script::Speak(3, MS)));
    assert_eq!(words(&task).await, "started:r0 0=t0 1=t1 resumed:r1 2=t2 end:stop");

    let world = World::new();
    world.up(0, 1, 1, &Engine::new(Script::HangAfter(2)));
    let task = world.submit(spec("x"));
    let begun = Instant::now();
    assert!(words(&task).await.ends_with("error:ENGINE_STALLED:2"));
    assert!(begun.elapsed() <= Limits::default().stalled_after + MS);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_slow_is_not_silent() {
    let world = World::new();
    let slow = Limits::default().stalled_after - SEC;
    world.up(0, 1, 1, &Engine::new(Script::Speak(4, slow)));
    assert!(words(&world.submit(spec("x"))).await.ends_with("3=t3 end:stop"));
}

/// ORCHD-GATE-003
#[tokio::test(start_paused = true)]
async fn an_error_of_one_request_takes_its_engine_away_from_nobody_and_three_in_a_row_do() {
    let world = World::new();
    let engine = Engine::new(Script::Speak(1, MS));
    let fault = || engine.then(Script::ReportAfter(1, "decode: failed".to_owned()));
    world.up(0, 1, 1, &engine);
    let begun = Instant::now();
    for _ in 0..2 {
        fault();
        fault();
        for prompt in ["bad", "worse"] {
            assert_eq!(
                words(&world.submit(resuming(prompt, |_| {}))).await,
                "started:r0 0=t0 error:INTERNAL:1"
            );
        }
        assert_eq!(words(&world.submit(spec("good"))).await, "started:r0 0=t0 end:stop");
    }
    assert!(begun.elapsed() < 10 * MS, "nobody waited: {:?}", begun.elapsed());
    (0..3).for_each(|_| fault());
    for _ in 0..3 {
        words(&world.submit(spec("bad"))).await;
    }
    assert_eq!(words(&world.submit(spec("good"))).await, "started:r0 0=t0 end:stop");
    assert!(begun.elapsed() >= Limits::default().suspect_for, "it was left alone for a moment");
}

/// ORCHD-RESUME-012
#[tokio::test(start_paused = true)]
async fn the_time_on_all_engines_is_noted_about_once_a_second_and_waiting_for_one_is_none() {
    let world = World::new();
    world.up(0, 1, 1, &Engine::new(Script::Speak(100, 300 * MS)));
    let task = world.submit(resuming("x", |_| {}));
    until_entries(&task, 5).await;
    world.down(0, 1);
    tokio::time::sleep(5 * SEC).await;
    world.up(1, 1, 1, &Engine::new(Script::Speak(9, 300 * MS)));
    let entries = all(&task).await;
    let noted: Vec<_> = entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Chunk { index, decode_ms: Some(ms), .. } => Some((index.unwrap(), *ms)),
            _ => None,
        })
        .collect();
    assert_eq!(noted, [(3, 1_200), (7, 2_400)]);
    assert_eq!(end(&entries).decode_time_ms, 2_700);
}

/// ORCHD-REG-001
#[tokio::test(start_paused = true)]
async fn an_engine_that_was_lost_before_its_first_token_makes_the_next_one_no_slower() {
    let world = World::new();
    world.up(0, 1, 1, &Engine::new(Script::HangAfter(0)));
    let task = world.submit(spec("x"));
    until_entries(&task, 1).await;
    tokio::time::sleep(60 * SEC).await;
    world.down(0, 1);
    world.up(1, 1, 1, &Engine::new(Script::Speak(5, 10 * MS)));
    let end = end(&all(&task).await);
    assert_eq!(end.decode_time_ms, 60_050);
    let pace = world.registry.snapshot().replicas[&key(1)].hints.per_token;
    assert_eq!(pace, Some(8 * MS), "five tokens behind the first in 40 ms");
}
