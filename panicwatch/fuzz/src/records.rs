//! Fuzzes the ring's records.

use panicwatch::capture::event::{Assembler, Event, decode::decode};

/// Decodes and assembles the records of a ring, in order. Each record is its length (two bytes,
/// little-endian) and that many bytes.
pub fn event_decode(input: &[u8]) {
    let mut assembler = Assembler::new();
    let mut rest = input;
    while let Some((&[low, high], tail)) = rest.split_first_chunk::<2>() {
        let len = usize::from(u16::from_le_bytes([low, high])).min(tail.len());
        let (record, tail) = tail.split_at(len);
        let _ = decode(record);
        let events: Vec<Event> = assembler.push(record).unwrap_or_default();
        drop(events);
        rest = tail;
    }
    drop(assembler.finish());
}
