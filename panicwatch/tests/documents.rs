//! The example incident documents in the manuals and in the tests match the types.

use panicwatch::{
    fingerprint,
    incident::{Host, Incident},
};
use serde_json::Value;

/// Parses a document and serializes it again: the result must be equal, so no field is unknown to the types,
/// misspelt or of another type.
fn check(name: &str, text: &str) {
    let document: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{name}: {e}"));
    let incident: Incident = serde_json::from_str(text).unwrap_or_else(|e| panic!("{name}: {e}"));
    let again = serde_json::to_value(&incident).expect("incidents serialise");
    assert_eq!(document, again, "{name}");
    assert_eq!(incident.schema, panicwatch::incident::SCHEMA, "{name}");
    assert_eq!(incident.fingerprint, fingerprint::fingerprint(&incident), "{name}");
}

#[test]
fn samples() {
    let dir =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/incidents")).expect("the samples");
    let mut count = 0;
    for path in dir.map(|e| e.expect("an entry").path()) {
        check(&path.display().to_string(), &std::fs::read_to_string(&path).expect("a sample"));
        count += 1;
    }
    assert!(count >= 7, "{count} samples");
}

#[test]
fn the_example_in_the_manual() {
    let manual = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/incident.md"))
        .expect("docs/incident.md");
    let examples: Vec<_> =
        manual.split("```json\n").skip(1).filter_map(|s| s.split("\n```").next()).collect();
    assert_eq!(examples.len(), 1);
    check("docs/incident.md", examples[0]);
}

/// Documents of versions that did not record the host are read and written unchanged; documents with a host
/// keep it.
#[test]
fn the_host_is_optional() {
    let old = include_str!("incidents/recovered.json");
    let mut incident: Incident = serde_json::from_str(old).expect("a document");
    assert_eq!(incident.host, None);
    assert!(!serde_json::to_string(&incident).expect("JSON").contains("\"host\""));
    incident.host = Some(Host { name: None, boot_id: Some("b".to_owned()) });
    let value = serde_json::to_value(&incident).expect("JSON");
    assert_eq!(value["host"], serde_json::json!({"name": null, "boot_id": "b"}));
    assert_eq!(serde_json::from_value::<Incident>(value).expect("read again"), incident);
}

/// The manuals describe every field of the types.
#[test]
fn the_manuals_name_every_field() {
    named("incident.md", include_str!("../core/src/incident.rs"), 50);
    named("timeline.md", include_str!("../core/src/incident/timeline.rs"), 50);
    named("timeline.md", include_str!("../core/src/incident/timeline/event.rs"), 10);
}

fn named(manual: &str, source: &str, at_least: usize) {
    let path = format!("{}/../docs/{manual}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect(manual);
    let mut names = std::collections::BTreeSet::new();
    for line in source.lines() {
        if let Some((name, _)) = line.trim().strip_prefix("pub ").and_then(|l| l.split_once(": ")) {
            if name.contains(' ') {
                continue; // a constant
            }
            names.insert(if name == "type_name" { "type" } else { name });
        }
    }
    assert!(names.len() > at_least, "{names:?}");
    let missing: Vec<_> = names.iter().filter(|n| !text.contains(&format!("`{n}`"))).collect();
    assert!(missing.is_empty(), "docs/{manual} does not explain {missing:?}");
}
