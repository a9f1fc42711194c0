//! What a task tells of itself to whoever collects traces, and what its engine is told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test helper fails by panicking"
)]

mod support;

use std::time::Duration;

use dispatch::{Attribute, Side, Span, SpanBuffer, Spans, TaskSpec};
use prometheus_client::metrics::counter::Counter;
use support::{Engine, Script, World, spec, words};
use wire::TraceContext;

const MS: Duration = Duration::from_millis(1);

fn request(sampled: bool) -> TraceContext {
    let flags = u8::from(sampled);
    let parent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags:02x}");
    TraceContext::parse(&parent, Some("a=1")).unwrap()
}

fn traced(sampled: bool) -> TaskSpec {
    TaskSpec { trace: Some(request(sampled)), ..spec("SECRET") }
}

fn collecting(world: &World, room: usize) -> (SpanBuffer, Counter) {
    let dropped = Counter::default();
    let (spans, buffer) = Spans::new(room, dropped.clone());
    world.dispatch.tell_spans(spans);
    (buffer, dropped)
}

fn attribute<'a>(span: &'a Span, key: &str) -> &'a Attribute {
    &span.attributes.iter().find(|(known, _)| *known == key).expect("the span has it").1
}

/// ORCHD-TRACE-002
#[tokio::test(start_paused = true)]
async fn every_stay_on_an_engine_is_a_span_of_its_own_and_the_engine_is_told_which() {
    let world = World::new();
    let (mut buffer, dropped) = collecting(&world, 100);
    let engine = Engine::new(Script::Speak(3, 10 * MS));
    // The first engine is lost before it speaks.
    engine.then(Script::BreakAfter(0));
    world.up(0, 1, 1, &engine);
    let task = world.submit(traced(true));
    assert!(words(&task).await.ends_with("end:stop"));

    let spans = buffer.take_now(100);
    let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["queued", "running", "queued", "running", "task"]);
    let [_, lost, _, ran, whole] = &spans[..] else { unreachable!() };
    assert_eq!(whole.parent, Some(request(true).span_id()));
    for span in &spans {
        assert_eq!(span.trace, request(true).trace_id());
        assert!(span.start <= span.end && (span.name == "task" || span.parent == Some(whole.id)), "{span:?}");
        assert!(!format!("{span:?}").contains("SECRET"));
    }
    let told = engine.traces().into_iter().map(|trace| trace.unwrap());
    let told: Vec<_> =
        told.map(|trace| (trace.trace_id(), trace.span_id(), trace.tracestate().is_some())).collect();
    let trace = request(true).trace_id();
    assert_eq!(told, [(trace, lost.id, true), (trace, ran.id, true)]);

    assert_eq!((lost.side, lost.events.len()), (Side::Client, 0));
    assert!(lost.error.is_some() && ran.error.is_none() && whole.error.is_none());
    let [("first_token", first)] = ran.events[..] else { panic!("{ran:?}") };
    assert!(ran.start <= first && first <= ran.end);
    assert_eq!(attribute(ran, "llama_orch.replica"), &Attribute::Text("p/r0".to_owned()));
    assert_eq!(attribute(whole, "llama_orch.outcome"), &Attribute::Text("done".to_owned()));
    assert_eq!(attribute(whole, "gen_ai.usage.output_tokens"), &Attribute::Count(4));
    assert_eq!(dropped.get(), 0);
}

/// ORCHD-TRACE-002
#[tokio::test(start_paused = true)]
async fn a_trace_that_nobody_keeps_is_told_to_the_engine_and_to_nobody_else() {
    let world = World::new();
    let (mut buffer, dropped) = collecting(&world, 100);
    let engine = Engine::new(Script::Speak(1, MS));
    world.up(0, 1, 1, &engine);
    words(&world.submit(traced(false))).await;
    words(&world.submit(spec("x"))).await;
    let [Some(told), None] = &engine.traces()[..] else { panic!("{:?}", engine.traces()) };
    assert_eq!(told.trace_id(), request(false).trace_id());
    assert_ne!(told.span_id(), request(false).span_id());
    assert!(!told.is_sampled());
    assert_eq!((buffer.take_now(100).len(), dropped.get()), (0, 0));
}

/// ORCHD-TRACE-003
#[tokio::test(start_paused = true)]
async fn a_span_for_which_there_is_no_room_is_dropped_and_counted_and_nobody_waits() {
    let world = World::new();
    let (mut buffer, dropped) = collecting(&world, 2);
    let engine = Engine::new(Script::Speak(1, MS));
    world.up(0, 1, 1, &engine);
    for _ in 0..3 {
        assert!(words(&world.submit(traced(true))).await.ends_with("end:stop"));
    }
    assert_eq!((buffer.take_now(100).len(), dropped.get()), (2, 7));
}

/// ORCHD-TRACE-002
#[tokio::test(start_paused = true)]
async fn a_task_that_ends_while_it_waits_tells_that_it_waited_and_why_it_failed() {
    let world = World::new();
    let (mut buffer, _) = collecting(&world, 100);
    let late = TaskSpec { deadline: Some(50 * MS), ..traced(true) };
    assert_eq!(words(&world.submit(late)).await, "error:DEADLINE_EXCEEDED:0");
    let spans = buffer.take_now(100);
    let told: Vec<_> = spans.iter().map(|span| (span.name.as_str(), span.error.as_deref())).collect();
    assert_eq!(told, [("queued", Some("DEADLINE_EXCEEDED")), ("task", Some("DEADLINE_EXCEEDED"))]);
}
