//! Decodes the builder's bytes, and compares them with Perfetto's own descriptors if those are installed.

use std::{collections::BTreeMap, path::PathBuf};

use prost::Message;

use super::{
    Builder, Value,
    proto::{Data, EventType, Trace, TrackEvent},
};

/// Returns a trace with every kind of track and event.
fn sample() -> Vec<u8> {
    let mut builder = Builder::new(Some(1_000));
    let process = builder.process(7, "server");
    let thread = builder.thread(7, 8, "main");
    let track = builder.track(process, "init");
    builder.begin(thread, 20, "init", "outer", [("depth", Value::Uint(3)), ("late", Value::Bool(true))]);
    builder.begin(thread, 20, "init", "inner", [("why", Value::Text("so".into())), ("n", Value::Int(-1))]);
    builder.end(thread, 30);
    builder.end(thread, 30);
    builder.instant(track, 10, "start", "rt0_go", []);
    builder.flow(77);
    builder.finish()
}

fn events(bytes: &[u8]) -> Vec<(u64, TrackEvent)> {
    let trace = Trace::decode(bytes).expect("a trace");
    let event = |packet: super::proto::TracePacket| match packet.data {
        Some(Data::TrackEvent(event)) => Some((packet.timestamp.expect("a time"), event)),
        _ => None,
    };
    trace.packet.into_iter().filter_map(event).collect()
}

#[test]
fn events_come_in_order_of_time_and_nest() {
    let events = events(&sample());
    let shown: Vec<_> =
        events.iter().map(|(time, e)| (*time, e.kind(), e.name.as_deref().unwrap_or(""))).collect();
    assert_eq!(
        shown,
        [
            (10, EventType::Instant, "rt0_go"),
            (20, EventType::SliceBegin, "outer"),
            (20, EventType::SliceBegin, "inner"),
            (30, EventType::SliceEnd, ""),
            (30, EventType::SliceEnd, ""),
        ]
    );
}

#[test]
fn times_are_said_to_be_monotonic() {
    let trace = Trace::decode(sample().as_slice()).expect("a trace");
    let Some(Data::ClockSnapshot(clocks)) = &trace.packet[0].data else { panic!("no clocks first") };
    assert_eq!(clocks.primary_trace_clock, Some(3));
    let pairs: Vec<_> = clocks.clocks.iter().map(|c| (c.clock_id, c.timestamp)).collect();
    assert_eq!(pairs, [(Some(3), Some(10)), (Some(1), Some(1_010))]);
    assert!(trace.packet.iter().all(|p| p.timestamp.is_none() || p.timestamp_clock_id == Some(3)));
}

/// The fields of google.protobuf.FileDescriptorProto that the tests need.
/// <https://github.com/protocolbuffers/protobuf/blob/v28.0/src/google/protobuf/descriptor.proto>
#[derive(Clone, PartialEq, Message)]
struct FileDescriptor {
    #[prost(message, repeated, tag = "4")]
    messages: Vec<MessageDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
struct MessageDescriptor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    fields: Vec<FieldDescriptor>,
    #[prost(message, repeated, tag = "3")]
    nested: Vec<MessageDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
struct FieldDescriptor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "3")]
    number: i32,
    /// 9: string, 11: message; the numeric types in use are all varints.
    #[prost(int32, tag = "5")]
    kind: i32,
    #[prost(string, tag = "6")]
    type_name: String,
}

const FIXED64: i32 = 6;
const STRING: i32 = 9;
const MESSAGE: i32 = 11;
/// int64, uint64, int32, bool, uint32, enum
const VARINTS: [i32; 6] = [3, 4, 5, 8, 13, 14];

/// Reads the descriptors from the Python package `perfetto`, whose wheel is unpacked among the other tools.
#[expect(clippy::disallowed_methods, reason = "a test reads what it compares with")]
fn descriptors() -> Result<Vec<u8>, String> {
    let home = std::env::var_os("PANICWATCH_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/panicwatch")));
    let path = home.ok_or("no HOME")?.join("tools/perfetto/protos/perfetto/trace/perfetto_trace_pb2.py");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let start = text.find("AddSerializedFile(b'").ok_or("no serialized file")? + "AddSerializedFile(b'".len();
    python_bytes(&text[start..]).ok_or_else(|| "the bytes literal has no end".to_owned())
}

/// Decodes a Python bytes literal up to its closing quote.
fn python_bytes(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes().peekable();
    let mut out = Vec::new();
    loop {
        match bytes.next()? {
            b'\'' => return Some(out),
            b'\\' => match bytes.next()? {
                b'n' => out.push(b'\n'),
                b'r' => out.push(b'\r'),
                b't' => out.push(b'\t'),
                b'x' => {
                    let digits = [bytes.next()?, bytes.next()?];
                    out.push(u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?);
                }
                first @ b'0'..=b'7' => {
                    let mut value = u32::from(first - b'0');
                    for _ in 0..2 {
                        let Some(digit) = bytes.next_if(|b| (b'0'..=b'7').contains(b)) else { break };
                        value = value * 8 + u32::from(digit - b'0');
                    }
                    out.push(u8::try_from(value).ok()?);
                }
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
}

type Messages<'a> = BTreeMap<String, &'a MessageDescriptor>;

fn collect<'a>(prefix: &str, all: &'a [MessageDescriptor], messages: &mut Messages<'a>) {
    for message in all {
        let name = format!("{prefix}.{}", message.name);
        collect(&name, &message.nested, messages);
        messages.insert(name, message);
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Decodes `bytes` as `message` by the descriptors alone: `path = value` for every leaf.
fn read(messages: &Messages<'_>, message: &str, mut bytes: &[u8], path: &str, leaves: &mut Vec<String>) {
    let fields = &messages.get(message).unwrap_or_else(|| panic!("no {message}")).fields;
    while !bytes.is_empty() {
        let key = varint(&mut bytes).expect("a key");
        let field = fields.iter().find(|f| f.number as u64 == key >> 3);
        let field = field.unwrap_or_else(|| panic!("{message} has no field {}", key >> 3));
        let path = format!("{path}.{}", field.name);
        if key & 7 == 0 {
            assert!(VARINTS.contains(&field.kind), "{path} is no varint");
            leaves.push(format!("{path} = {}", varint(&mut bytes).expect("a value")));
            continue;
        }
        if key & 7 == 1 {
            assert_eq!(field.kind, FIXED64, "{path}");
            let (value, rest) = bytes.split_first_chunk().expect("eight bytes");
            leaves.push(format!("{path} = {}", u64::from_le_bytes(*value)));
            bytes = rest;
            continue;
        }
        assert_eq!(key & 7, 2, "{path}");
        let len = varint(&mut bytes).expect("a length") as usize;
        let (value, rest) = bytes.split_at(len);
        bytes = rest;
        match field.kind {
            MESSAGE => read(messages, &field.type_name, value, &path, leaves),
            STRING => leaves.push(format!("{path} = {}", str::from_utf8(value).expect("text"))),
            other => panic!("{path} has type {other}"),
        }
    }
}

/// Decodes a trace with Perfetto's own descriptors: `path = value` for every leaf. Prints a message and
/// returns `None` when they are not installed.
pub(crate) fn leaves(trace: &[u8]) -> Option<Vec<String>> {
    let bytes = match descriptors() {
        Ok(bytes) => bytes,
        Err(reason) => {
            println!("SKIPPED Perfetto's own descriptors: {reason}");
            return None;
        }
    };
    let file = FileDescriptor::decode(bytes.as_slice()).expect("a file descriptor");
    let mut messages = Messages::new();
    collect(".perfetto.protos", &file.messages, &mut messages);
    let mut leaves = Vec::new();
    read(&messages, ".perfetto.protos.Trace", trace, "", &mut leaves);
    Some(leaves)
}

/// Returns the slices of each track as "start-end name", after checking that they nest.
pub(crate) fn slices(trace: &[u8]) -> BTreeMap<u64, Vec<String>> {
    let (mut open, mut done) =
        (BTreeMap::<u64, Vec<(u64, String)>>::new(), BTreeMap::<u64, Vec<String>>::new());
    for (time, event) in events(trace) {
        let track = event.track_uuid.expect("a track");
        match event.kind() {
            EventType::SliceBegin => {
                open.entry(track).or_default().push((time, event.name.expect("a name")));
            }
            EventType::SliceEnd => {
                let (begin, name) = open.get_mut(&track).and_then(Vec::pop).expect("a slice that began");
                done.entry(track).or_default().push(format!("{begin}-{time} {name}"));
            }
            EventType::Instant | EventType::Unspecified => {}
        }
    }
    assert!(open.values().all(Vec::is_empty), "every slice ends: {open:?}");
    done
}

#[test]
fn perfetto_reads_what_was_meant() {
    let Some(leaves) = leaves(&sample()) else { return };
    for wanted in [
        ".packet.sequence_flags = 1",
        ".packet.trusted_packet_sequence_id = 1",
        ".packet.timestamp = 20",
        ".packet.timestamp_clock_id = 3",
        ".packet.clock_snapshot.primary_trace_clock = 3",
        ".packet.clock_snapshot.clocks.clock_id = 1",
        ".packet.clock_snapshot.clocks.timestamp = 1010",
        ".packet.track_descriptor.uuid = 3",
        ".packet.track_descriptor.parent_uuid = 1",
        ".packet.track_descriptor.name = init",
        ".packet.track_descriptor.process.pid = 7",
        ".packet.track_descriptor.process.process_name = server",
        ".packet.track_descriptor.thread.pid = 7",
        ".packet.track_descriptor.thread.tid = 8",
        ".packet.track_descriptor.thread.thread_name = main",
        ".packet.track_event.type = 1",
        ".packet.track_event.track_uuid = 2",
        ".packet.track_event.name = outer",
        ".packet.track_event.categories = init",
        ".packet.track_event.flow_ids = 77",
        ".packet.track_event.debug_annotations.name = depth",
        ".packet.track_event.debug_annotations.uint_value = 3",
        ".packet.track_event.debug_annotations.bool_value = 1",
        ".packet.track_event.debug_annotations.string_value = so",
        ".packet.track_event.debug_annotations.int_value = 18446744073709551615",
    ] {
        assert!(leaves.iter().any(|leaf| leaf == wanted), "{wanted} is not in {leaves:#?}");
    }
}
