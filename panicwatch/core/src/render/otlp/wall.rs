//! Wall time, identifiers and attribute values for log records and spans. Does no I/O.

use jiff::Timestamp;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value};
use sha2::{Digest as _, Sha256};

use crate::incident::Incident;

/// Maximum length of an attribute's text in bytes: a request must fit the limit of collectors (4 MiB by
/// default).
pub(super) const MAX_TEXT: usize = 64 << 10;
/// Maximum length of a name in bytes.
pub(super) const MAX_NAME: usize = 1 << 10;

/// Converts CLOCK_MONOTONIC to nanoseconds since 1970, using the two times in the incident.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wall {
    offset_ns: i128,
}

impl Wall {
    /// Returns the conversion for an incident. If its time cannot be parsed it starts at 1970, OTLP's value
    /// for an unknown time.
    pub(super) fn of(incident: &Incident) -> Wall {
        let time: Option<Timestamp> = incident.time.parse().ok();
        let offset = time.map(|time| time.as_nanosecond() - i128::from(incident.start_ns));
        Wall { offset_ns: offset.unwrap_or(-i128::from(incident.start_ns)) }
    }

    pub(super) fn at(self, monotonic_ns: u64) -> u64 {
        let ns = i128::from(monotonic_ns) + self.offset_ns;
        u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
    }
}

/// Returns the trace ID. It depends on the incident's ID alone, so that an incident sent twice can be
/// recognized.
pub(super) fn trace_id(incident: &Incident) -> Vec<u8> {
    digest(&incident.id, "trace")[..16].to_vec()
}

/// Returns the ID of the span at `path` in the trace.
pub(super) fn span_id(incident: &Incident, path: &str) -> Vec<u8> {
    digest(&incident.id, path)[..8].to_vec()
}

fn digest(id: &str, path: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update((id.len() as u64).to_le_bytes());
    hash.update(id);
    hash.update(path);
    hash.finalize().into()
}

/// Returns the longest prefix of `text` of at most `max` bytes.
pub(super) fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// Attributes in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Attributes(pub(super) Vec<KeyValue>);

impl Attributes {
    pub(super) fn text(&mut self, key: &str, text: Option<&str>) {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.value(key, Value::StringValue(cut(text, MAX_TEXT).to_owned()));
        }
    }

    pub(super) fn number(&mut self, key: &str, number: Option<impl TryInto<i64>>) {
        // OTLP's integers are signed; a larger number exceeds every real ID or duration.
        if let Some(number) = number {
            self.value(key, Value::IntValue(number.try_into().unwrap_or(i64::MAX)));
        }
    }

    pub(super) fn texts<'a>(&mut self, key: &str, texts: impl Iterator<Item = &'a str>) {
        let value = |text: &str| AnyValue { value: Some(Value::StringValue(text.to_owned())) };
        self.value(key, Value::ArrayValue(ArrayValue { values: texts.map(value).collect() }));
    }

    fn value(&mut self, key: &str, value: Value) {
        let value = Some(AnyValue { value: Some(value) });
        self.0.push(KeyValue { key: key.to_owned(), value, ..KeyValue::default() });
    }
}
