//! Tests with examples worked out by hand. They need neither the network nor a store.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{common::v1::KeyValue, trace::v1::Span};
use prost::Message as _;

use super::*;

fn incident(name: &str) -> Incident {
    let text = match name {
        "chain" => include_str!("../../../../tests/incidents/repanicked_chain.json"),
        "hostile" => include_str!("../../../../tests/incidents/hostile.json"),
        "slow_read" => include_str!("../../../../tests/incidents/slow_read.json"),
        "deadlock" => include_str!("../../../../tests/incidents/deadlock.json"),
        _ => include_str!("../../../../tests/incidents/recovered.json"),
    };
    serde_json::from_str(text).expect("a document")
}

fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let mut found = attributes.iter().filter(|attribute| attribute.key == key);
    let value = found.next()?.value.clone()?.value?;
    assert!(found.next().is_none(), "{key} is there twice");
    Some(match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

fn of_record(incident: &Incident, key: &str) -> Option<String> {
    attribute(&record(incident).attributes, key)
}

fn of_resource(incident: &Incident, key: &str) -> Option<String> {
    let host = Host { name: Some("node-1".to_owned()), boot_id: None };
    attribute(&resource::of(incident, &host).attributes, key)
}

fn spans_of(incident: &Incident) -> Vec<Span> {
    trace::spans(incident)
}

#[test]
fn a_value_without_text_is_named_by_type_and_fields() {
    let body = |incident: &Incident| match record(incident).body.and_then(|body| body.value) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{other:?}"),
    };
    let mut custom = incident("recovered");
    custom.message = None;
    custom.panics[0].value = crate::incident::Value {
        type_name: Some("*main.QuotaError".to_owned()),
        detail: Some("&{Limit:5}".to_owned()),
        ..crate::incident::Value::default()
    };
    assert_eq!(body(&custom), "panic: *main.QuotaError{Limit:5}");
    assert_eq!(of_record(&custom, "exception.message"), None, "a message is never made up");
    custom.panics[0].value = crate::incident::Value::default();
    let text = body(&custom);
    assert!(text.starts_with("panic of unknown value in "), "{text}");
    let names: Vec<String> = spans_of(&custom).into_iter().map(|span| span.name).collect();
    assert!(names.iter().all(|name| !name.contains('?')), "{names:?}");
}

#[test]
fn the_documents_host_wins_over_the_senders() {
    let mut incident = incident("chain");
    assert_eq!(of_resource(&incident, "host.name").as_deref(), Some("node-1"));
    assert_eq!(of_record(&incident, "panicwatch.boot_id"), None);
    let host = |name: Option<&str>| Host { name: name.map(str::to_owned), boot_id: Some("b-1".to_owned()) };
    incident.host = Some(host(Some("web-3")));
    assert_eq!(of_resource(&incident, "host.name").as_deref(), Some("web-3"));
    assert_eq!(of_record(&incident, "panicwatch.boot_id").as_deref(), Some("b-1"));
    incident.host = Some(host(None));
    assert_eq!(of_resource(&incident, "host.name"), None, "not known is not the sender's");
}

#[test]
fn a_log_record_has_what_the_conventions_name() {
    let chain = incident("chain");
    let record = record(&chain);
    assert_eq!(record.time_unix_nano, 1_752_030_764_108_211_907);
    assert_eq!((record.severity_number, record.severity_text.as_str()), (21, "FATAL"));
    assert_eq!(record.event_name, "exception");
    assert_eq!(of_record(&chain, "exception.type").as_deref(), Some("*fmt.wrapError"));
    assert_eq!(
        of_record(&chain, "exception.message").as_deref(),
        Some("commit order 4711: connection reset")
    );
    let stack = of_record(&chain, "exception.stacktrace").expect("a stack");
    assert!(stack.starts_with("goroutine 20 [running, locked to thread]:\n"), "{stack}");
    assert!(stack.contains("main.commit(...)\n\t/src/shop/main.go:47 +0xa5\n"), "{stack}");
    assert!(
        stack.ends_with("created by main.main in goroutine 1\n\t/src/shop/main.go:88 +0x2a8\n"),
        "{stack}"
    );
    assert_eq!(of_record(&chain, "code.function.name").as_deref(), Some("main.commit"));
    assert_eq!(of_record(&chain, "panicwatch.id").as_deref(), Some(chain.id.as_str()));
    assert_eq!(of_record(&chain, "panicwatch.exit.code").as_deref(), Some("2"));
    assert_eq!(of_record(&chain, "panicwatch.goroutine.label.worker").as_deref(), Some("3"));
    assert_eq!(severity(Outcome::Recovered).1, "WARN");
    let deadlock = incident("deadlock");
    assert_eq!(of_record(&deadlock, "exception.type").as_deref(), Some("fatal_error"));
    assert_eq!(headline(&deadlock), "fatal error: all goroutines are asleep - deadlock!");
}

#[test]
fn the_resource_is_the_watched_process() {
    let mut incident = incident("chain");
    let of = |incident: &Incident, key: &str| of_resource(incident, key).unwrap_or_default();
    assert_eq!(of(&incident, "service.name"), "shop");
    assert_eq!(of(&incident, "service.version"), "v1.4.2");
    assert_eq!(of(&incident, "host.name"), "node-1");
    assert_eq!(of(&incident, "process.pid"), "4711");
    assert_eq!(of(&incident, "process.runtime.version"), "go1.24.11");
    incident.process.module = Some("example.com/cart/v2".to_owned());
    assert_eq!(of(&incident, "service.name"), "cart");
    incident.process.module = None;
    assert_eq!(of(&incident, "service.name"), "shop", "the executable's");
    incident.process.container =
        Some(serde_json::json!({"id": "abc", "name": "web", "runtime": "docker", "labels": null}));
    incident.process.kubernetes =
        Some(serde_json::json!({"namespace": "n", "pod": "p", "pod_uid": "u", "labels": {"app": "shop"}}));
    assert_eq!(of(&incident, "container.id"), "abc");
    assert_eq!(of(&incident, "k8s.pod.name"), "p");
    assert_eq!(of(&incident, "k8s.pod.label.app"), "shop");
}

#[test]
fn what_a_program_says_of_itself_counts_but_not_what_it_is() {
    let mut incident = incident("chain");
    let list = "service.name=by-list,host.name=its%20own,team=a%2Cb,process.pid=1,k8s.pod.name=said,=x,y=,z";
    let env = [("OTEL_RESOURCE_ATTRIBUTES".to_owned(), list.to_owned())];
    incident.process.env = Some(BTreeMap::from(env));
    let of = |incident: &Incident, key: &str| of_resource(incident, key);
    assert_eq!(of(&incident, "service.name").as_deref(), Some("by-list"));
    assert_eq!(of(&incident, "host.name").as_deref(), Some("its own"));
    assert_eq!(of(&incident, "team").as_deref(), Some("a,b"));
    assert_eq!(of(&incident, "process.pid").as_deref(), Some("4711"));
    assert_eq!((of(&incident, "y"), of(&incident, "z"), of(&incident, "")), (None, None, None));
    let env = incident.process.env.as_mut().expect("set");
    env.insert("OTEL_SERVICE_NAME".to_owned(), "by-name".to_owned());
    assert_eq!(of(&incident, "service.name").as_deref(), Some("by-name"));
}

#[test]
fn a_chain_is_a_tree_of_spans() {
    let chain = incident("chain");
    let spans = spans_of(&chain);
    let ids: Vec<&[u8]> = spans.iter().map(|span| span.span_id.as_slice()).collect();
    assert!(
        spans[0].parent_span_id.is_empty() && spans[0].name == "panic *fmt.wrapError",
        "{}",
        spans[0].name
    );
    assert_eq!(spans.len(), 1 + chain.panics.iter().map(|p| 1 + p.defers.len()).sum::<usize>());
    let (start, end) = (spans[0].start_time_unix_nano, spans[0].end_time_unix_nano);
    assert_eq!(end - start, chain.end_ns.expect("it ended") - chain.start_ns);
    for (i, span) in spans.iter().enumerate().skip(1) {
        assert!(ids[..i].contains(&span.parent_span_id.as_slice()), "{}: its parent comes first", span.name);
        assert!(!ids[..i].contains(&ids[i]), "{}: its id is its own", span.name);
        assert!(start <= span.start_time_unix_nano && span.end_time_unix_nano <= end, "{}", span.name);
        assert_eq!(span.trace_id, spans[0].trace_id);
    }
    let second = spans.iter().find(|span| span.name == "panic string").expect("the second panic");
    let first_defer = spans.iter().find(|span| span.name.starts_with("defer main.process")).expect("a defer");
    assert_eq!(first_defer.end_time_unix_nano, second.start_time_unix_nano, "over when it panicked");
    let record = record(&chain);
    assert_eq!((&record.trace_id, &record.span_id), (&spans[0].trace_id, &spans[0].span_id));
}

#[test]
fn the_window_is_a_span_with_the_goroutines_states() {
    let incident = incident("slow_read");
    let spans = spans_of(&incident);
    let window = spans.iter().find(|span| span.name == "before the panic").expect("it was recorded");
    assert_eq!(window.end_time_unix_nano, spans[0].start_time_unix_nano);
    assert!(!window.events.is_empty());
    let sum: i64 = window
        .events
        .iter()
        .map(|event| attribute(&event.attributes, "panicwatch.state.duration_ns").expect("a duration"))
        .map(|text| text.parse::<i64>().expect("a number"))
        .sum();
    assert_eq!(sum, 10_000_000, "the states of the whole window");
}

#[test]
fn the_same_incident_gives_the_same_bytes_within_bounds() {
    let host = Host::default();
    for name in ["chain", "hostile", "slow_read", "deadlock", "recovered"] {
        let mut incident = incident(name);
        let bytes = |incident: &Incident| logs(incident, &host).encode_to_vec();
        assert_eq!(bytes(&incident), bytes(&incident), "{name}");
        assert_eq!(json(&incident, &host).ok(), json(&incident, &host).ok(), "{name}");
        incident.message = Some("é".repeat(10 << 20));
        incident.process.args = Some(vec!["x".repeat(1 << 20); 1000]);
        let frame = Frame { function: "f".repeat(1 << 20), ..Frame::default() };
        incident.stack = vec![frame; 300];
        assert!(bytes(&incident).len() < 1 << 20, "{name}: {}", bytes(&incident).len());
    }
}

#[test]
fn json_is_that_of_the_protocol() {
    let text = json(&incident("recovered"), &Host::default()).expect("JSON");
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let record = &value["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
    assert_eq!(record["timeUnixNano"], "1752030764108211907", "numbers of 64 bits are strings");
    assert_eq!(record["severityNumber"], 13);
    let trace_id = record["traceId"].as_str().expect("a string");
    assert!(trace_id.len() == 32 && trace_id.bytes().all(|b| b.is_ascii_hexdigit()), "{trace_id}");
    let spans = &value["resourceSpans"][0]["scopeSpans"][0]["spans"];
    assert_eq!(spans[0]["traceId"], record["traceId"]);
    assert_eq!(spans[0]["spanId"], record["spanId"]);
}
