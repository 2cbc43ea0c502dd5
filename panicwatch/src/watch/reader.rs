//! Ring reader: a thread that drains the event ring into a channel, so that a burst is buffered in our memory
//! instead of the kernel's.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::SyncSender,
    },
    thread::JoinHandle,
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use panicwatch_common::event::kind;

use crate::vital;

/// Most records between the ring and the correlator; some hundred megabytes in the worst case.
pub(super) const QUEUE: usize = 65_536;

/// Callbacks of the ring reader, on its thread.
pub(super) trait Listener: Send {
    /// Called when the ring is empty. Returns whether it should be drained again soon: the recorder's rings
    /// fill fast.
    fn looking(&mut self) -> bool;
    /// Called for each record of that kind, before the record and its batch are passed on.
    fn found(&mut self, kind: u32);
}

/// Most records that are passed on together; the listener is called for all of them first.
const BATCH: usize = 4096;

/// Stop request: makes a reader drain the ring and then end.
#[derive(Debug)]
pub struct Stop(OwnedFd);

impl Stop {
    /// Returns a stop request that is not yet made.
    ///
    /// # Errors
    /// Fails if no file descriptor is available.
    pub fn new() -> io::Result<Stop> {
        // SAFETY: eventfd takes integers; the result is checked.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call returned a new descriptor that is ours.
        Ok(Stop(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Returns a handle to the same request, for another thread.
    ///
    /// # Errors
    /// Fails if no file descriptor is available.
    pub fn try_clone(&self) -> io::Result<Stop> {
        self.0.try_clone().map(Stop)
    }

    /// Waits for `at_most`, or until the stop is requested; returns true if it is.
    pub(super) fn wait(&self, at_most: Duration) -> bool {
        let mut fd = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let nanoseconds = libc::c_long::from(at_most.subsec_nanos());
        let timeout =
            libc::timespec { tv_sec: at_most.as_secs().try_into().unwrap_or(0), tv_nsec: nanoseconds };
        // SAFETY: both structs outlive the call; no signal mask is passed.
        unsafe { libc::ppoll(&raw mut fd, 1, &raw const timeout, std::ptr::null()) };
        fd.revents != 0
    }

    /// Requests the stop.
    pub fn request(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the descriptor is ours and the buffer has eight bytes.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

/// Handle of the reader thread.
pub(super) struct Reader {
    stop: Stop,
    thread: JoinHandle<()>,
    passed: Arc<AtomicU64>,
}

impl Reader {
    /// Starts the thread; each record is sent to `to` as `wrap(bytes)`. With `may_slow_down`, the ring is
    /// drained less often while nothing happens.
    pub(super) fn start<T: Send + 'static>(
        mut ring: RingBuf<MapData>,
        to: SyncSender<T>,
        wrap: fn(Vec<u8>) -> T,
        listener: Option<Box<dyn Listener>>,
        may_slow_down: bool,
    ) -> io::Result<Reader> {
        let stop = Stop::new()?;
        let stop_here = stop.try_clone()?;
        let passed = Arc::new(AtomicU64::new(0));
        let batch = Vec::new();
        let mut passing =
            Passing { to, wrap, listener, batch, passed: passed.clone(), may_slow_down, busy: false };
        let thread = vital::spawn("ring reader", move || {
            vital::in_no_hurry();
            drain(&mut ring, &stop_here, |record| passing.take(record));
        })?;
        Ok(Reader { stop, thread, passed })
    }

    /// Makes the thread drain the ring and then end.
    pub(super) fn request_stop(&self) {
        self.stop.request();
    }

    /// Returns the number of records passed on so far.
    pub(super) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Reports whether the thread has ended: all records that it read are in the channel.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Passes records on in batches.
struct Passing<T> {
    to: SyncSender<T>,
    wrap: fn(Vec<u8>) -> T,
    listener: Option<Box<dyn Listener>>,
    batch: Vec<Vec<u8>>,
    passed: Arc<AtomicU64>,
    may_slow_down: bool,
    /// Whether a record that may begin an incident was found since the ring was last empty.
    busy: bool,
}

impl<T> Passing<T> {
    /// Takes one record, or `None` when the ring is empty.
    fn take(&mut self, record: Option<&[u8]>) -> Next {
        self.busy |= record.and_then(kind_of).is_some_and(begins);
        self.batch.extend(record.map(<[u8]>::to_vec));
        if record.is_some() && self.batch.len() < BATCH {
            return Next::Soon;
        }
        let mut busy = !self.may_slow_down;
        if record.is_none() {
            busy |= std::mem::take(&mut self.busy);
        }
        if let Some(listener) = &mut self.listener {
            if record.is_none() {
                busy |= listener.looking();
            }
            self.batch.iter().filter_map(|record| kind_of(record)).for_each(|kind| listener.found(kind));
        }
        self.passed.fetch_add(self.batch.len() as u64, Ordering::Relaxed);
        let sent = self.batch.drain(..).all(|record| self.to.send((self.wrap)(record)).is_ok());
        match (sent, busy) {
            (false, _) => Next::End,
            (true, true) => Next::Soon,
            (true, false) => Next::Later,
        }
    }
}

/// When the consumer wants the next records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Never: the receiver is gone.
    End,
    /// Within [`PACE_MS`].
    Soon,
    /// Within [`QUIET_PACE_MS`], once that was the answer for a while.
    Later,
}

/// Reads until a stop is requested and the ring is empty, or `each` returns false. `each` is called with
/// every record, and with `None` whenever the ring is empty.
pub fn read(ring: &mut RingBuf<MapData>, stop: &Stop, mut each: impl FnMut(Option<&[u8]>) -> bool) {
    drain(ring, stop, |record| if each(record) { Next::Soon } else { Next::End });
}

/// Like [`read`], at the pace that `each` requests.
fn drain(ring: &mut RingBuf<MapData>, stop: &Stop, mut each: impl FnMut(Option<&[u8]>) -> Next) {
    let mut pace = Pace::default();
    loop {
        let stopping = wait(ring, &stop.0, pace.ms());
        while let Some(record) = ring.next() {
            if each(Some(&record)) == Next::End {
                return;
            }
        }
        let next = each(None);
        if next == Next::End || stopping {
            return;
        }
        pace.after(next);
    }
}

/// Interval at which the ring is drained.
#[derive(Debug, Default)]
struct Pace {
    /// Number of consecutive times that nothing had happened.
    quiet: u32,
}

impl Pace {
    /// Returns the longest wait for records, milliseconds.
    fn ms(&self) -> i32 {
        if self.quiet < QUIET { PACE_MS } else { QUIET_PACE_MS }
    }

    /// Adapts the pace after the ring was drained.
    fn after(&mut self, next: Next) {
        self.quiet = if next == Next::Later { self.quiet.saturating_add(1) } else { 0 };
    }
}

/// Reports whether an incident may begin with an event of that kind.
pub(super) fn begins(kind: u32) -> bool {
    matches!(
        kind,
        kind::PANIC | kind::THROW | kind::DIE | kind::SIGNAL | kind::FATAL_SIGNAL | kind::START_PANIC
    )
}

fn kind_of(record: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*record.first_chunk()?))
}

/// Longest time an event waits in the ring, milliseconds: the eBPF programs wake the reader only for the
/// death of a process and when the ring fills up (see `panicwatch-ebpf/src/maps.rs`).
const PACE_MS: i32 = 20;
/// The same while nothing happens. The recorder's rings, which are drained when an event is found, must not
/// be overwritten in that time: they hold 160 ms of a hundred thousand records per second.
const QUIET_PACE_MS: i32 = 60;
/// Number of consecutive drains without events before the pace slows down: one second.
const QUIET: u32 = 50;

/// Waits until the ring should be drained or a stop is requested; returns true for the latter.
fn wait(ring: &RingBuf<MapData>, stop: &OwnedFd, at_most_ms: i32) -> bool {
    let poll = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut fds = [poll(ring.as_raw_fd()), poll(stop.as_raw_fd())];
    // SAFETY: the array outlives the call.
    unsafe { libc::poll(fds.as_mut_ptr(), 2, at_most_ms) };
    fds[1].revents != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_drained_less_often_only_after_a_quiet_second() {
        let mut pace = Pace::default();
        for _ in 0..QUIET {
            assert_eq!(pace.ms(), PACE_MS);
            pace.after(Next::Later);
        }
        assert_eq!(pace.ms(), QUIET_PACE_MS);
        pace.after(Next::Soon);
        assert_eq!(pace.ms(), PACE_MS);
    }

    /// Returns what the reader does after records of these kinds, then an empty ring.
    fn next(kinds: &[u32], may_slow_down: bool) -> Next {
        let (to, _received) = std::sync::mpsc::sync_channel(QUEUE);
        let passed = Arc::new(AtomicU64::new(0));
        let mut passing = Passing {
            to,
            wrap: |record| record,
            listener: None,
            batch: Vec::new(),
            passed,
            may_slow_down,
            busy: false,
        };
        kinds.iter().for_each(|kind| assert_eq!(passing.take(Some(&kind.to_ne_bytes())), Next::Soon));
        passing.take(None)
    }

    #[test]
    fn only_what_may_begin_an_incident_counts() {
        assert_eq!(next(&[], true), Next::Later);
        // The arguments of an exec follow it as separate records.
        assert_eq!(next(&[kind::EXEC, kind::MEMORY, kind::PROCESS_EXIT], true), Next::Later);
        assert_eq!(next(&[kind::EXEC, kind::PANIC, kind::EXEC], true), Next::Soon);
        assert_eq!(next(&[], false), Next::Soon);
    }
}
