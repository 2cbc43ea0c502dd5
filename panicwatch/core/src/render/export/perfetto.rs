//! Traces for Perfetto (<https://ui.perfetto.dev>): tracks with slices and instants, on CLOCK_MONOTONIC.
//!
//! Knows the format and nothing of what is shown. A [`Builder`] takes tracks and events in any order.
//! <https://perfetto.dev/docs/reference/synthetic-track-event>

mod proto;

use prost::Message as _;

pub use self::proto::Value;
use self::proto::{
    Clock, ClockSnapshot, Data, DebugAnnotation, EventType, ProcessDescriptor, ThreadDescriptor, Trace,
    TracePacket, TrackDescriptor, TrackEvent,
};

/// `BuiltinClock` numbers, which are those of clock_gettime(2) but one.
/// <https://github.com/google/perfetto/blob/v49.0/protos/perfetto/common/builtin_clock.proto>
const CLOCK_REALTIME: u32 = 1;
const CLOCK_MONOTONIC: u32 = 3;
/// Any number will do: one writer, one sequence.
const SEQUENCE: u32 = 1;
/// `SEQ_INCREMENTAL_STATE_CLEARED`: nothing before this packet matters.
const STATE_CLEARED: u32 = 1;

/// A track: events on one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Track(u64);

/// A fact shown with an event: name and value.
pub type Annotation = (&'static str, Value);

/// A trace that grows.
#[derive(Debug)]
pub struct Builder {
    tracks: Vec<TrackDescriptor>,
    /// Time and what happened, in the order added.
    events: Vec<(u64, TrackEvent)>,
    realtime_offset_ns: Option<i128>,
}

impl Builder {
    /// An empty trace. `realtime_offset_ns`: CLOCK_REALTIME minus CLOCK_MONOTONIC, where it is known.
    pub fn new(realtime_offset_ns: Option<i128>) -> Builder {
        Builder { tracks: Vec::new(), events: Vec::new(), realtime_offset_ns }
    }

    fn add(&mut self, descriptor: TrackDescriptor) -> Track {
        let uuid = self.tracks.len() as u64 + 1;
        self.tracks.push(TrackDescriptor { uuid: Some(uuid), ..descriptor });
        Track(uuid)
    }

    /// A process, under which its threads and tracks are shown.
    pub fn process(&mut self, pid: u32, name: &str) -> Track {
        let process = ProcessDescriptor { pid: Some(pid.cast_signed()), process_name: Some(name.to_owned()) };
        self.add(TrackDescriptor { process: Some(process), ..TrackDescriptor::default() })
    }

    /// A thread of process `pid`.
    pub fn thread(&mut self, pid: u32, tid: u32, name: &str) -> Track {
        let (pid, tid) = (pid.cast_signed(), tid.cast_signed());
        let thread = ThreadDescriptor { pid: Some(pid), tid: Some(tid), thread_name: Some(name.to_owned()) };
        self.add(TrackDescriptor { thread: Some(thread), ..TrackDescriptor::default() })
    }

    /// A track of its own below another.
    pub fn track(&mut self, parent: Track, name: &str) -> Track {
        let (name, parent_uuid) = (Some(name.to_owned()), Some(parent.0));
        self.add(TrackDescriptor { name, parent_uuid, ..TrackDescriptor::default() })
    }

    fn event(&mut self, track: Track, time_ns: u64, kind: EventType, event: TrackEvent) {
        let event = TrackEvent { kind: Some(kind as i32), track_uuid: Some(track.0), ..event };
        self.events.push((time_ns, event));
    }

    /// Begins a slice; it ends with the next [`Builder::end`] of this track that no later slice takes.
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

    /// Ends the slice begun last.
    pub fn end(&mut self, track: Track, time_ns: u64) {
        self.event(track, time_ns, EventType::SliceEnd, TrackEvent::default());
    }

    /// A moment.
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

    /// Draws an arrow from the event added last to the next one of the same number.
    pub fn flow(&mut self, id: u64) {
        if let Some((_, event)) = self.events.last_mut() {
            event.flow_ids.push(id);
        }
    }

    /// The file's bytes. Events of the same time stay in the order they were added in.
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

    /// Without this the times would be taken for CLOCK_BOOTTIME, which differs by the time spent suspended.
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
