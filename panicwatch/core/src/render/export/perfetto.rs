//! Traces for Perfetto (<https://ui.perfetto.dev>): tracks with slices and instants, on CLOCK_MONOTONIC.
//!
//! This module knows the format only. A [`Builder`] accepts tracks and events in any order.
//! <https://perfetto.dev/docs/reference/synthetic-track-event>

mod proto;

use prost::Message as _;

pub use self::proto::Value;
use self::proto::{
    Clock, ClockSnapshot, Data, DebugAnnotation, EventType, ProcessDescriptor, ThreadDescriptor, Trace,
    TracePacket, TrackDescriptor, TrackEvent,
};

/// Numbers of `BuiltinClock`, which equal those of clock_gettime(2) but for one.
/// <https://github.com/google/perfetto/blob/v49.0/protos/perfetto/common/builtin_clock.proto>
const CLOCK_REALTIME: u32 = 1;
const CLOCK_MONOTONIC: u32 = 3;
/// Arbitrary, because there is a single writer and sequence.
const SEQUENCE: u32 = 1;
/// `SEQ_INCREMENTAL_STATE_CLEARED`: this packet depends on no earlier one.
const STATE_CLEARED: u32 = 1;

/// Identifies a track: a row of events in the trace viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Track(u64);

/// Name and value of a fact shown with an event.
pub type Annotation = (&'static str, Value);

/// Builds a trace.
#[derive(Debug)]
pub struct Builder {
    tracks: Vec<TrackDescriptor>,
    /// Time and event, in the order in which they were added.
    events: Vec<(u64, TrackEvent)>,
    realtime_offset_ns: Option<i128>,
}

impl Builder {
    /// Returns a builder of an empty trace. `realtime_offset_ns` is CLOCK_REALTIME minus CLOCK_MONOTONIC, if
    /// known.
    pub fn new(realtime_offset_ns: Option<i128>) -> Builder {
        Builder { tracks: Vec::new(), events: Vec::new(), realtime_offset_ns }
    }

    fn add(&mut self, descriptor: TrackDescriptor) -> Track {
        let uuid = self.tracks.len() as u64 + 1;
        self.tracks.push(TrackDescriptor { uuid: Some(uuid), ..descriptor });
        Track(uuid)
    }

    /// Adds a process, which groups its threads and tracks.
    pub fn process(&mut self, pid: u32, name: &str) -> Track {
        let process = ProcessDescriptor { pid: Some(pid.cast_signed()), process_name: Some(name.to_owned()) };
        self.add(TrackDescriptor { process: Some(process), ..TrackDescriptor::default() })
    }

    /// Adds a thread of process `pid`.
    pub fn thread(&mut self, pid: u32, tid: u32, name: &str) -> Track {
        let (pid, tid) = (pid.cast_signed(), tid.cast_signed());
        let thread = ThreadDescriptor { pid: Some(pid), tid: Some(tid), thread_name: Some(name.to_owned()) };
        self.add(TrackDescriptor { thread: Some(thread), ..TrackDescriptor::default() })
    }

    /// Adds a track below another.
    pub fn track(&mut self, parent: Track, name: &str) -> Track {
        let (name, parent_uuid) = (Some(name.to_owned()), Some(parent.0));
        self.add(TrackDescriptor { name, parent_uuid, ..TrackDescriptor::default() })
    }

    fn event(&mut self, track: Track, time_ns: u64, kind: EventType, event: TrackEvent) {
        let event = TrackEvent { kind: Some(kind as i32), track_uuid: Some(track.0), ..event };
        self.events.push((time_ns, event));
    }

    /// Begins a slice. Slices of a track nest: the matching [`Builder::end`] is the first one that ends no
    /// slice begun later.
    pub fn begin(
        &mut self,
        track: Track,
        time_ns: u64,
        category: &str,
        name: &str,
        annotations: impl IntoIterator<Item = Annotation>,
    ) {
        self.event(track, time_ns, EventType::SliceBegin, named(category, name, annotations));
    }

    /// Ends the slice of the track that was begun last and is still open.
    pub fn end(&mut self, track: Track, time_ns: u64) {
        self.event(track, time_ns, EventType::SliceEnd, TrackEvent::default());
    }

    /// Adds an event without a duration.
    pub fn instant(
        &mut self,
        track: Track,
        time_ns: u64,
        category: &str,
        name: &str,
        annotations: impl IntoIterator<Item = Annotation>,
    ) {
        self.event(track, time_ns, EventType::Instant, named(category, name, annotations));
    }

    /// Draws an arrow from the event added last to the next event with the same number.
    pub fn flow(&mut self, id: u64) {
        if let Some((_, event)) = self.events.last_mut() {
            event.flow_ids.push(id);
        }
    }

    /// Returns the bytes of the file. Events with the same time keep the order in which they were added.
    pub fn finish(mut self) -> Vec<u8> {
        self.events.sort_by_key(|(time_ns, _)| *time_ns);
        let start = self.events.first().map_or(0, |(time_ns, _)| *time_ns);
        let mut packet = vec![packet(Data::ClockSnapshot(self.clocks(start)))];
        packet[0].sequence_flags = Some(STATE_CLEARED);
        packet.extend(self.tracks.into_iter().map(|track| self::packet(Data::TrackDescriptor(track))));
        packet.extend(self.events.into_iter().map(|(time_ns, event)| TracePacket {
            timestamp: Some(time_ns),
            timestamp_clock_id: Some(CLOCK_MONOTONIC),
            ..self::packet(Data::TrackEvent(event))
        }));
        Trace { packet }.encode_to_vec()
    }

    /// Returns the clocks of the trace. Without them the times would be taken as CLOCK_BOOTTIME, which also
    /// counts the time spent suspended.
    fn clocks(&self, start_ns: u64) -> ClockSnapshot {
        let clock = |clock_id, timestamp| Clock { clock_id: Some(clock_id), timestamp: Some(timestamp) };
        let real = self
            .realtime_offset_ns
            .and_then(|offset| u64::try_from(offset.checked_add(i128::from(start_ns))?).ok());
        let mut clocks = vec![clock(CLOCK_MONOTONIC, start_ns)];
        clocks.extend(real.map(|real| clock(CLOCK_REALTIME, real)));
        ClockSnapshot { clocks, primary_trace_clock: Some(CLOCK_MONOTONIC.cast_signed()) }
    }
}

fn packet(data: Data) -> TracePacket {
    TracePacket { trusted_packet_sequence_id: Some(SEQUENCE), data: Some(data), ..TracePacket::default() }
}

fn named(category: &str, name: &str, annotations: impl IntoIterator<Item = Annotation>) -> TrackEvent {
    let annotation =
        |(name, value): Annotation| DebugAnnotation { name: Some(name.to_owned()), value: Some(value) };
    TrackEvent {
        categories: vec![category.to_owned()],
        name: Some(name.to_owned()),
        debug_annotations: annotations.into_iter().map(annotation).collect(),
        ..TrackEvent::default()
    }
}

#[cfg(test)]
pub(crate) mod tests;
