//! Drains the event ring into a channel, on a thread of its own, so that a burst waits in our memory and not in the
//! kernel's.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::mpsc::SyncSender,
    thread::{self, JoinHandle},
};

use aya::maps::{MapData, RingBuf};

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

/// The reading thread.
pub(super) struct Reader {
    stop: OwnedFd,
    thread: JoinHandle<()>,
}

impl Reader {
    /// Starts reading; each record becomes `wrap(bytes)` on `to`.
    pub(super) fn start<T: Send + 'static>(
        ring: RingBuf<MapData>,
        to: SyncSender<T>,
        wrap: fn(Vec<u8>) -> T,
        listener: Option<Box<dyn Listener>>,
    ) -> io::Result<Reader> {
        // SAFETY: plain system call; the result is checked.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that is ours.
        let stop = unsafe { OwnedFd::from_raw_fd(fd) };
        let stop_here = stop.try_clone()?;
        let thread = thread::Builder::new()
            .name("ring reader".into())
            .spawn(move || read(ring, &stop_here, &to, wrap, listener))?;
        Ok(Reader { stop, thread })
    }

    /// Asks it to read what is still there and then to end.
    pub(super) fn request_stop(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the descriptor is ours and the buffer has eight bytes.
        unsafe { libc::write(self.stop.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// It has ended: everything it read is in the channel.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

fn read<T>(
    mut ring: RingBuf<MapData>,
    stop: &OwnedFd,
    to: &SyncSender<T>,
    wrap: fn(Vec<u8>) -> T,
    mut listener: Option<Box<dyn Listener>>,
) {
    loop {
        let stopping = wait(&ring, stop);
        if let Some(listener) = &mut listener {
            listener.looking();
        }
        loop {
            let batch: Vec<Vec<u8>> =
                std::iter::from_fn(|| ring.next().map(|record| record.to_vec())).take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            if let Some(listener) = &mut listener {
                batch.iter().filter_map(|record| kind_of(record)).for_each(|kind| listener.found(kind));
            }
            for record in batch {
                if to.send(wrap(record)).is_err() {
                    return; // The receiver is gone: nobody will ever ask.
                }
            }
        }
        if stopping {
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
