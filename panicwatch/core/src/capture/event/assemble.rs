//! Joins memory records to the event that they follow.
//!
//! A thread is in one capture at a time and its records are in order, so events are keyed by thread. The main
//! record has the number of memory records that follow; if one is missing, the thread's next event completes
//! the previous one.

use std::collections::HashMap;

use panicwatch_common::event::{CaptureHead, Exec, MemHead, Point as RawPoint, unread};

use super::{
    Body, Capture, Event, Point, ProcessEvent,
    decode::{DecodeError, Record, decode},
};
use crate::go::memory::{Memory, Snapshot};

/// An event whose memory records have not all been received.
#[derive(Debug)]
struct Open {
    event: Event,
    exec: Option<Box<Exec>>,
    left: u32,
}

/// Incomplete events, by thread.
#[derive(Debug, Default)]
pub struct Assembler {
    open: HashMap<u32, Open>,
}

impl Assembler {
    /// Returns an assembler without pending events.
    pub fn new() -> Assembler {
        Assembler::default()
    }

    /// Adds one ring record and returns the events that it completes, in order.
    ///
    /// # Errors
    /// Returns an error when the record cannot be decoded; it is skipped.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, DecodeError> {
        let open = match decode(bytes)? {
            Record::Memory(head, data) => return Ok(self.memory(&head, data).into_iter().collect()),
            Record::Capture(capture) => Open { event: capture_event(&capture), exec: None, left: 0 },
            Record::Point(point) => Open { event: point_event(&point), exec: None, left: 0 },
            Record::Exec(exec) => Open { event: process_event(&exec), exec: Some(exec), left: 0 },
        };
        let head = open.event.head;
        let mut done: Vec<Event> = self.open.remove(&head.tid).map(Open::cut_short).into_iter().collect();
        if head.mem_records == 0 {
            done.push(open.complete());
        } else {
            self.open.insert(head.tid, Open { left: head.mem_records, ..open });
        }
        Ok(done)
    }

    fn memory(&mut self, head: &MemHead, data: Vec<u8>) -> Option<Event> {
        let open = self.open.get_mut(&head.tid).filter(|open| open.event.head.time_ns == head.time_ns)?;
        open.event.memory.add(head.addr, data);
        open.left -= 1;
        if open.left > 0 {
            return None;
        }
        self.open.remove(&head.tid).map(Open::complete)
    }

    /// Returns the pending events, with the missing memory counted as lost. Call it when no more records will
    /// follow.
    pub fn finish(&mut self) -> Vec<Event> {
        self.open.drain().map(|(_, open)| open.cut_short()).collect()
    }
}

impl Open {
    fn complete(mut self) -> Event {
        if let (Some(exec), Body::Process(process)) = (&self.exec, &mut self.event.body) {
            process.args = block(&self.event.memory, exec.arg_start, exec.arg_end);
            process.env = block(&self.event.memory, exec.env_start, exec.env_end);
        }
        self.event
    }

    fn cut_short(mut self) -> Event {
        self.event.lost_memory = self.event.lost_memory.saturating_add(self.left);
        self.complete()
    }
}

fn block(memory: &Snapshot, start: u64, end: u64) -> Option<Vec<u8>> {
    let len = end.checked_sub(start).filter(|len| *len > 0 && *len <= 1 << 21)? as usize;
    memory.bytes(start, len)
}

fn capture_event(raw: &CaptureHead) -> Event {
    let mut memory = Snapshot::new();
    let mut add = |addr: u64, bytes: &[u8], len: u32| {
        if addr != 0 {
            memory.add(addr, &bytes[..bytes.len().min(len as usize)]);
        }
    };
    add(raw.head.g, &raw.g, raw.g_len);
    add(raw.m_addr, &raw.m, raw.m_len);
    add(raw.p_addr, &raw.p, raw.p_len);
    let capture = Capture {
        regs: raw.regs,
        m_addr: raw.m_addr,
        p_addr: raw.p_addr,
        stack_addr: raw.stack_addr,
        stack_end: raw.stack_end,
    };
    Event { head: raw.head, body: Body::Capture(Box::new(capture)), memory, lost_memory: raw.head.mem_lost }
}

fn point_event(raw: &RawPoint) -> Event {
    let mut memory = Snapshot::new();
    for (addr, bytes, bit) in [
        (raw.panic_addr, raw.panic.as_slice(), unread::PANIC),
        (raw.defer_addr, raw.defer.as_slice(), unread::DEFER),
    ] {
        if addr != 0 && raw.unread & bit == 0 {
            memory.add(addr, bytes);
        }
    }
    let point = Point { args: raw.args, panic_addr: raw.panic_addr, defer_addr: raw.defer_addr };
    Event { head: raw.head, body: Body::Point(Box::new(point)), memory, lost_memory: raw.head.mem_lost }
}

fn process_event(raw: &Exec) -> Event {
    let wait_status = (raw.code != u32::MAX).then_some(raw.code);
    let body = Body::Process(ProcessEvent { wait_status, args: None, env: None });
    Event { head: raw.head, body, memory: Snapshot::new(), lost_memory: raw.head.mem_lost }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_lost_memory_do_not_overflow() {
        let mut bytes = vec![0; size_of::<RawPoint>()];
        bytes[0] = panicwatch_common::event::kind::RECOVER as u8;
        // mem_records and mem_lost
        bytes[72..80].fill(0xff);
        let mut assembler = Assembler::new();
        assert_eq!(assembler.push(&bytes).map(|done| done.len()), Ok(0));
        let lost: Vec<_> = assembler.finish().iter().map(|event| event.lost_memory).collect();
        assert_eq!(lost, [u32::MAX]);
    }
}
