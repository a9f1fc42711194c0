//! Spans at a collector, read as its own project reads them.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SENDER: &str = "00f067aa0ba902b7";

async fn answering(collector: &MockServer, status: u16, times: Option<u64>) {
    let posted = Mock::given(method("POST")).and(path("/v1/traces"));
    let mock =
        posted.and(header("content-type", "application/json")).respond_with(ResponseTemplate::new(status));
    match times {
        Some(times) => mock.up_to_n_times(times).mount(collector).await,
        None => mock.mount(collector).await,
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the collector was sent first, as its own types; a batch that comes twice counts once.
async fn collected(collector: &MockServer) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for request in collector.received_requests().await.unwrap() {
        assert!(!String::from_utf8_lossy(&request.body).contains("SECRET"));
        let export: ExportTraceServiceRequest = serde_json::from_slice(&request.body).unwrap();
        for resource in export.resource_spans {
            let service = &resource.resource.as_ref().unwrap().attributes[0];
            let name = service.value.as_ref().unwrap().value.clone();
            assert_eq!(
                (service.key.as_str(), name),
                ("service.name", Some(Any::StringValue("orchestratord".into())))
            );
            let new = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(
                new.filter(|span| !spans.iter().any(|known| known.span_id == span.span_id))
                    .collect::<Vec<_>>(),
            );
        }
    }
    spans
}

async fn metric(orchestrator: &Orchestrator, name: &str) -> u64 {
    let text =
        orchestrator.http.get(orchestrator.url("/metrics")).send().await.unwrap().text().await.unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("{name} is not in {text}"))
}

/// ORCHD-TRACE-002, ORCHD-TRACE-003
#[tokio::test(flavor = "multi_thread")]
async fn a_request_and_its_task_are_one_trace_at_the_collector() {
    let collector = MockServer::start().await;
    answering(&collector, 503, Some(1)).await;
    answering(&collector, 200, None).await;
    let orchestrator = Orchestrator::start_with(|config| config.otlp.endpoint = Some(collector.uri())).await;
    let stub = stub();
    orchestrator.publish(&stub, "p", 1);
    orchestrator.until_ready("p", true).await;
    let chat = json!({"model": "p", "max_tokens": 3, "messages": [{"role": "user", "content": "SECRET"}]});
    let request = orchestrator.http.post(orchestrator.url("/v1/chat/completions")).json(&chat);
    let answer = request.header("traceparent", format!("00-{TRACE}-{SENDER}-01")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.bytes().await.unwrap();
    let own = orchestrator.submit(json!({"prompt": "SECRET"})).await;
    assert_eq!(orchestrator.events(&own, None).await.last().unwrap().1, "end");
    until(async || collected(&collector).await.iter().filter(|span| span.name == "task").count() == 2).await;
    until(async || metric(&orchestrator, "orchd_spans_exported_total").await > 0).await;

    let spans = collected(&collector).await;
    let named = |name: &str, trace: &str| {
        let found = spans.iter().find(|span| span.name == name && (hex(&span.trace_id) == trace));
        found.unwrap_or_else(|| panic!("no {name} of {trace} in {spans:?}"))
    };
    let request = named("POST /v1/chat/completions", TRACE);
    assert_eq!((hex(&request.parent_span_id), request.kind), (SENDER.to_owned(), SpanKind::Server as i32));
    let task = named("task", TRACE);
    assert_eq!(task.parent_span_id, request.span_id);
    for stay in [named("queued", TRACE), named("running", TRACE)] {
        assert_eq!(stay.parent_span_id, task.span_id);
        assert!(task.start_time_unix_nano <= stay.start_time_unix_nano && stay.start_time_unix_nano > 0);
        assert!(stay.end_time_unix_nano >= stay.start_time_unix_nano);
    }
    // Whether it has its place is known before it waits for long; who asked is the request.
    assert_eq!(named("admission", TRACE).parent_span_id, request.span_id);
    let running = named("running", TRACE);
    assert_eq!((running.kind, running.events[0].name.as_str()), (SpanKind::Client as i32, "first_token"));
    let tokens = task.attributes.iter().find(|known| known.key == "gen_ai.usage.output_tokens").unwrap();
    assert_eq!(tokens.value.as_ref().unwrap().value, Some(Any::IntValue(3)));
    // The other one was part of no trace and began its own.
    let first = spans.iter().find(|span| span.name == "POST /v2/tasks").unwrap();
    assert!(first.parent_span_id.is_empty() && hex(&first.trace_id) != TRACE);
    assert_eq!(named("task", &hex(&first.trace_id)).parent_span_id, first.span_id);
    orchestrator.stop().await;
}

/// ORCHD-TRACE-003
#[tokio::test(flavor = "multi_thread")]
async fn what_the_collector_refuses_is_dropped_and_counted_and_requests_go_on() {
    let collector = MockServer::start().await;
    answering(&collector, 400, None).await;
    let orchestrator = Orchestrator::start_with(|config| config.otlp.endpoint = Some(collector.uri())).await;
    let stub = stub();
    orchestrator.publish(&stub, "p", 1);
    let task = orchestrator.submit(json!({})).await;
    assert_eq!(orchestrator.events(&task, None).await.last().unwrap().1, "end");
    until(async || metric(&orchestrator, "orchd_spans_dropped_total").await >= 3).await;
    assert_eq!(metric(&orchestrator, "orchd_spans_exported_total").await, 0);
    orchestrator.stop().await;
}

/// ORCHD-TRACE-003
#[tokio::test(flavor = "multi_thread")]
async fn a_sample_of_nothing_begins_no_trace() {
    let collector = MockServer::start().await;
    answering(&collector, 200, None).await;
    let orchestrator = Orchestrator::start_with(|config| {
        config.otlp.endpoint = Some(collector.uri());
        config.otlp.sample = 0.0;
    })
    .await;
    let stub = stub();
    orchestrator.publish(&stub, "p", 1);
    let task = orchestrator.submit(json!({})).await;
    assert_eq!(orchestrator.events(&task, None).await.last().unwrap().1, "end");
    let request = orchestrator.http.get(orchestrator.url("/v2/pools"));
    request.header("traceparent", format!("00-{TRACE}-{SENDER}-01")).send().await.unwrap();
    until(async || !collected(&collector).await.is_empty()).await;
    let names: Vec<_> = collected(&collector).await.into_iter().map(|span| span.name).collect();
    assert_eq!(names, ["GET /v2/pools"]);
    orchestrator.stop().await;
}

/// ORCHD-TRACE-004
#[tokio::test(flavor = "multi_thread")]
async fn pool_managerd_is_told_the_trace_of_the_request_that_it_is_asked_for() {
    let (collector, manager) = (MockServer::start().await, MockServer::start().await);
    answering(&collector, 200, None).await;
    let (url, at) = (manager.uri(), collector.uri());
    let pools = ResponseTemplate::new(200).set_body_json(json!({"pools": []}));
    Mock::given(method("GET")).and(path("/v2/pools")).respond_with(pools).mount(&manager).await;
    let begun = ResponseTemplate::new(202).set_body_json(json!({"operation_id": "op1"}));
    Mock::given(method("POST")).and(path("/v2/pools/p/drain")).respond_with(begun).mount(&manager).await;
    let orchestrator = Orchestrator::start_with(|config| {
        config.pool_managerd.url = Some(url);
        config.otlp.endpoint = Some(at);
    })
    .await;
    let request = orchestrator.http.post(orchestrator.url("/v2/pools/p/drain")).json(&json!({}));
    let traced = request.header("traceparent", format!("00-{TRACE}-{SENDER}-01")).header("tracestate", "a=1");
    let answer = traced.send().await.unwrap();
    assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap());
    until(async || collected(&collector).await.iter().any(|span| span.name == "pool-managerd")).await;
    let spans = collected(&collector).await;
    let call = spans.iter().find(|span| span.name == "pool-managerd").unwrap();
    let order = spans.iter().find(|span| span.name == "POST /v2/pools/{id}/drain").unwrap();
    assert_eq!((call.parent_span_id.clone(), call.kind), (order.span_id.clone(), SpanKind::Client as i32));
    let asked = manager.received_requests().await.unwrap();
    let told = |path: &str, name: &str| {
        let asked = asked.iter().find(|asked| asked.url.path() == path).unwrap();
        asked.headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    };
    let parent = format!("00-{TRACE}-{}-01", hex(&call.span_id));
    assert_eq!(told("/v2/pools/p/drain", "traceparent"), Some(parent));
    assert_eq!(told("/v2/pools/p/drain", "tracestate").as_deref(), Some("a=1"));
    // What it is asked for by itself is on nobody's account.
    assert_eq!(told("/v2/pools", "traceparent"), None);
    orchestrator.stop().await;
}
