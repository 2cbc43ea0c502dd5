//! Drains the event ring into a channel, on a thread of its own, so that a burst waits in our memory and not in the
//! kernel's.

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

use crate::vital;

/// Records that may wait between the ring and the correlator; some hundred megabytes at the very most.
pub(super) const QUEUE: usize = 65_536;

/// Told what the reader does, on its thread.
pub(super) trait Listener: Send {
    /// It looks at the ring, now and then.
    fn looking(&mut self);
    /// It found a record of that kind; records before this one have not been passed on yet.
    fn found(&mut self, kind: u32);
}

/// Records that are passed on at once; the listener hears of all of them before.
const BATCH: usize = 4096;

/// Asks a reader to read what is still there and then to end.
#[derive(Debug)]
pub struct Stop(OwnedFd);

impl Stop {
    /// Not yet.
    ///
    /// # Errors
    /// Without descriptors.
    pub fn new() -> io::Result<Stop> {
        // SAFETY: plain system call; the result is checked.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that is ours.
        Ok(Stop(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The same, for another thread.
    ///
    /// # Errors
    /// Without descriptors.
    pub fn try_clone(&self) -> io::Result<Stop> {
        self.0.try_clone().map(Stop)
    }

    /// Waits so long, or until it is requested; true for the latter.
    pub(super) fn wait(&self, at_most: Duration) -> bool {
        let mut fd = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let nanoseconds = libc::c_long::from(at_most.subsec_nanos());
        let timeout =
            libc::timespec { tv_sec: at_most.as_secs().try_into().unwrap_or(0), tv_nsec: nanoseconds };
        // SAFETY: both live through the call; no signal mask is given.
        unsafe { libc::ppoll(&raw mut fd, 1, &raw const timeout, std::ptr::null()) };
        fd.revents != 0
    }

    /// Now.
    pub fn request(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the descriptor is ours and the buffer has eight bytes.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

/// The reading thread.
pub(super) struct Reader {
    stop: Stop,
    thread: JoinHandle<()>,
    passed: Arc<AtomicU64>,
}

impl Reader {
    /// Starts reading; each record becomes `wrap(bytes)` on `to`.
    pub(super) fn start<T: Send + 'static>(
        mut ring: RingBuf<MapData>,
        to: SyncSender<T>,
        wrap: fn(Vec<u8>) -> T,
        listener: Option<Box<dyn Listener>>,
    ) -> io::Result<Reader> {
        let stop = Stop::new()?;
        let stop_here = stop.try_clone()?;
        let passed = Arc::new(AtomicU64::new(0));
        let mut passing = Passing { to, wrap, listener, batch: Vec::new(), passed: passed.clone() };
        let thread = vital::spawn("ring reader", move || {
            vital::in_no_hurry();
            read(&mut ring, &stop_here, |record| passing.take(record));
        })?;
        Ok(Reader { stop, thread, passed })
    }

    /// Asks it to read what is still there and then to end.
    pub(super) fn request_stop(&self) {
        self.stop.request();
    }

    /// Records passed on so far.
    pub(super) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// It has ended: everything it read is in the channel.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Passes records on, a batch at a time.
struct Passing<T> {
    to: SyncSender<T>,
    wrap: fn(Vec<u8>) -> T,
    listener: Option<Box<dyn Listener>>,
    batch: Vec<Vec<u8>>,
    passed: Arc<AtomicU64>,
}

impl<T> Passing<T> {
    /// A record, or that there are no more for now; false when nobody will ever ask for them.
    fn take(&mut self, record: Option<&[u8]>) -> bool {
        self.batch.extend(record.map(<[u8]>::to_vec));
        if record.is_some() && self.batch.len() < BATCH {
            return true;
        }
        if let Some(listener) = &mut self.listener {
            if record.is_none() {
                listener.looking();
            }
            self.batch.iter().filter_map(|record| kind_of(record)).for_each(|kind| listener.found(kind));
        }
        self.passed.fetch_add(self.batch.len() as u64, Ordering::Relaxed);
        self.batch.drain(..).all(|record| self.to.send((self.wrap)(record)).is_ok())
    }
}

/// Reads until somebody asks to stop and the ring is empty then, or `each` gives false. `each` gets every record, and
/// `None` whenever there are no more for now.
pub fn read(ring: &mut RingBuf<MapData>, stop: &Stop, mut each: impl FnMut(Option<&[u8]>) -> bool) {
    loop {
        let stopping = wait(ring, &stop.0);
        while let Some(record) = ring.next() {
            if !each(Some(&record)) {
                return;
            }
        }
        if !each(None) || stopping {
            return;
        }
    }
}

fn kind_of(record: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*record.first_chunk()?))
}

/// How long an event may wait for us, milliseconds: the programs wake us only for deaths and for a ring that fills up
/// (see `panicwatch-ebpf/src/maps.rs`).
const PACE_MS: i32 = 20;

/// Waits until it is time to look at the ring, or reading shall stop; true for the latter.
fn wait(ring: &RingBuf<MapData>, stop: &OwnedFd) -> bool {
    let poll = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut fds = [poll(ring.as_raw_fd()), poll(stop.as_raw_fd())];
    // SAFETY: the array lives through the call.
    unsafe { libc::poll(fds.as_mut_ptr(), 2, PACE_MS) };
    fds[1].revents != 0
}
