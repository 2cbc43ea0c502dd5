//! Socket between the main process and a helper: transfers whole messages with descriptors.
//!
//! SOCK_SEQPACKET preserves message boundaries and reports the end of the other process as the end of the
//! stream. A message that is too large for a packet is sent as the descriptor of a file in memory.
//! <https://man7.org/linux/man-pages/man7/unix.7.html>

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    mem,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    time::Duration,
};

/// Largest message that is sent in a packet, bytes; below any limit of a socket's buffer.
const INLINE: usize = 32 << 10;
/// Largest message, bytes.
const MAX_BYTES: u64 = 64 << 20;
/// Most descriptors in a message, including that of a large message's file.
const MAX_FDS: usize = 60;
/// First byte of a packet that contains the message.
const IS_INLINE: u8 = 0;
/// First byte of a packet whose first descriptor is the file with the message.
const IN_FILE: u8 = 1;

/// One end of the connection.
#[derive(Debug)]
pub struct Socket(OwnedFd);

/// A received message, as sent by one [`Socket::send`].
#[derive(Debug, Default)]
pub struct Message {
    /// The payload, at most 64 MiB.
    pub bytes: Vec<u8>,
    /// Descriptors in the sender's order, with close-on-exec set.
    pub fds: Vec<OwnedFd>,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Socket {
        Socket(fd)
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> OwnedFd {
        socket.0
    }
}

/// Buffer for the header and the [`MAX_FDS`] descriptors of a message, aligned as cmsghdr requires.
#[repr(C, align(8))]
struct Control([u8; 256]);

impl Socket {
    /// Returns two connected ends, both with close-on-exec set.
    ///
    /// # Errors
    /// Fails if the sockets cannot be created.
    pub fn pair() -> io::Result<(Socket, Socket)> {
        let mut fds: [RawFd; 2] = [-1; 2];
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
        // SAFETY: the array has room for two descriptors.
        check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) } as isize)?;
        // SAFETY: the call returned two new descriptors that are ours.
        Ok(unsafe { (Socket(OwnedFd::from_raw_fd(fds[0])), Socket(OwnedFd::from_raw_fd(fds[1]))) })
    }

    /// Makes a send that would wait for room fail with [`io::ErrorKind::WouldBlock`], and likewise a receive
    /// without a pending message.
    ///
    /// # Errors
    /// Fails if the system call fails.
    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        let mut on = libc::c_int::from(on);
        // SAFETY: FIONBIO reads the integer, which outlives the call.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::FIONBIO, &raw mut on) } as isize).map(drop)
    }

    /// Sends a message with descriptors. Blocks while the socket has no room for it.
    ///
    /// # Errors
    /// Fails if the other end is closed or there are too many descriptors.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if bytes.len() <= INLINE {
            let mut packet = Vec::with_capacity(bytes.len() + 1);
            packet.push(IS_INLINE);
            packet.extend_from_slice(bytes);
            return self.send_packet(&mut packet, fds);
        }
        let file = memory_file(bytes)?;
        let mut all = vec![file.as_fd()];
        all.extend_from_slice(fds);
        self.send_packet(&mut [IN_FILE], &all)
    }

    fn send_packet(&self, packet: &mut [u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if fds.len() > MAX_FDS {
            return Err(io::Error::other(format!("more than {MAX_FDS} descriptors in a message")));
        }
        let mut part = libc::iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: packet.len() };
        let mut control = Control([0; 256]);
        let mut header = header(&mut part, &mut control);
        let bytes = (fds.len() * size_of::<RawFd>()) as u32;
        if fds.is_empty() {
            (header.msg_control, header.msg_controllen) = (std::ptr::null_mut(), 0);
        } else {
            // SAFETY: CMSG_SPACE computes a length.
            header.msg_controllen = unsafe { libc::CMSG_SPACE(bytes) } as _;
            // SAFETY: the control buffer has room for a header and MAX_FDS descriptors, and outlives the
            // call.
            unsafe {
                let first = libc::CMSG_FIRSTHDR(&raw const header);
                (*first).cmsg_level = libc::SOL_SOCKET;
                (*first).cmsg_type = libc::SCM_RIGHTS;
                (*first).cmsg_len = libc::CMSG_LEN(bytes) as _;
                let mut at = libc::CMSG_DATA(first).cast::<RawFd>();
                for fd in fds {
                    at.write_unaligned(fd.as_raw_fd());
                    at = at.add(1);
                }
            }
        }
        // SAFETY: the header, the packet and the control buffer outlive the call.
        retry(|| unsafe { libc::sendmsg(self.0.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) })
            .map(drop)
    }

    /// Waits for the next message; returns `None` if the other end is closed.
    ///
    /// # Errors
    /// Fails if the system call fails, or the message is not one that [`Socket::send`] sends.
    pub fn receive(&self) -> io::Result<Option<Message>> {
        let mut packet = vec![0; INLINE + 1];
        let mut part = libc::iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: packet.len() };
        let mut control = Control([0; 256]);
        let mut header = header(&mut part, &mut control);
        let fd = self.0.as_raw_fd();
        // SAFETY: the header and the buffers that it points to outlive the call.
        let received = retry(|| unsafe { libc::recvmsg(fd, &raw mut header, libc::MSG_CMSG_CLOEXEC) });
        let n = match received {
            // The other end was closed before it read all of our messages.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            n => n?,
        };
        let mut fds = descriptors(&header);
        if n == 0 {
            return Ok(None);
        }
        if header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
            return Err(io::Error::other("a message between panicwatch's processes was cut off"));
        }
        packet.truncate(n);
        if packet.remove(0) == IS_INLINE {
            return Ok(Some(Message { bytes: packet, fds }));
        }
        if fds.is_empty() {
            return Err(io::Error::other("a message between panicwatch's processes has no file"));
        }
        let bytes = read_whole(File::from(fds.remove(0)))?;
        Ok(Some(Message { bytes, fds }))
    }

    /// Like [`Socket::receive`], with a time limit.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] if no message arrived in time; otherwise those of [`Socket::receive`].
    pub fn receive_within(&self, limit: Duration) -> io::Result<Option<Message>> {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let limit = libc::c_int::try_from(limit.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the struct outlives the call.
        match retry(|| unsafe { libc::poll(&raw mut poll, 1, limit) } as isize)? {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => self.receive(),
        }
    }
}

fn header(part: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: msghdr is a plain C struct, for which all zeroes is valid.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    (header.msg_iov, header.msg_iovlen) = (part, 1);
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len() as _;
    header
}

/// Returns the descriptors that were received with a message.
fn descriptors(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the kernel filled the control buffer, whose length is in the header; each descriptor in it is
    // new and ours.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while !control.is_null() {
            if ((*control).cmsg_level, (*control).cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let data = libc::CMSG_DATA(control).cast::<RawFd>();
                let bytes = (*control).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                for i in 0..bytes / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(i).read_unaligned()));
                }
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
    fds
}

fn memory_file(bytes: &[u8]) -> io::Result<File> {
    // SAFETY: the name is a NUL-terminated string.
    let fd = unsafe { libc::memfd_create(c"message".as_ptr(), libc::MFD_CLOEXEC) };
    check(fd as isize)?;
    // SAFETY: the call returned a new descriptor that is ours.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.write_all(bytes)?;
    Ok(file)
}

fn read_whole(mut file: File) -> io::Result<Vec<u8>> {
    if file.metadata()?.len() > MAX_BYTES {
        return Err(io::Error::other("a message between panicwatch's processes is too large"));
    }
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reports whether the descriptor is a socket of the type that [`Socket::pair`] creates.
pub(super) fn is_packet_socket(fd: BorrowedFd<'_>) -> bool {
    let (mut kind, mut length): (libc::c_int, libc::socklen_t) = (0, size_of::<libc::c_int>() as u32);
    // SAFETY: the integers outlive the call, and the length is the size of the first.
    let asked = unsafe {
        let (option, to) = (libc::SO_TYPE, (&raw mut kind).cast());
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, option, to, &raw mut length)
    };
    asked == 0 && kind == libc::SOCK_SEQPACKET
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Repeats a system call that was interrupted by a signal.
fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match check(call()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchanged(bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Message {
        let (a, b) = Socket::pair().expect("a pair");
        a.send(bytes, fds).expect("it is sent");
        b.receive().expect("it is received").expect("a message")
    }

    #[test]
    fn messages_of_every_size_arrive_whole() {
        for length in [0, 1, INLINE, INLINE + 1, 5 << 20] {
            let bytes: Vec<u8> = (0..length).map(|i| i as u8).collect();
            assert!(exchanged(&bytes, &[]).bytes == bytes, "{length} bytes");
        }
    }

    #[test]
    fn descriptors_arrive_in_order_beside_small_and_large_messages() {
        let names: Vec<_> = ["/dev/null", "/dev/zero"].into_iter().cycle().take(MAX_FDS - 1).collect();
        let files: Vec<_> = names.iter().map(|name| File::open(name).expect("a file")).collect();
        let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        for length in [3, INLINE + 1] {
            let message = exchanged(&vec![7; length], &fds);
            let link = |fd: &OwnedFd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
            let found: Vec<_> = message.fds.iter().map(|fd| link(fd).expect("a link")).collect();
            let wanted: Vec<_> = names.iter().map(std::path::PathBuf::from).collect();
            assert_eq!(found, wanted, "{length} bytes");
            assert_eq!(message.bytes.len(), length);
        }
    }

    #[test]
    fn a_closed_end_is_the_end_and_silence_is_a_timeout() {
        let (a, b) = Socket::pair().expect("a pair");
        let silence = b.receive_within(Duration::from_millis(1)).expect_err("nothing was sent");
        assert_eq!(silence.kind(), io::ErrorKind::TimedOut);
        b.send(b"never read", &[]).expect("it is sent");
        drop(a);
        assert!(b.receive().expect("the end").is_none());
        assert_eq!(b.send(b"x", &[]).expect_err("nobody is there").kind(), io::ErrorKind::BrokenPipe);
        let (a, b) = Socket::pair().expect("a pair");
        drop(a);
        assert!(b.receive_within(Duration::from_secs(10)).expect("the end").is_none());
    }

    #[test]
    fn too_many_descriptors_and_other_sockets_are_refused() {
        let (a, _b) = Socket::pair().expect("a pair");
        let null = File::open("/dev/null").expect("a file");
        assert!(a.send(b"", &[null.as_fd(); MAX_FDS + 1]).is_err());
        assert!(is_packet_socket(a.as_fd()));
        assert!(!is_packet_socket(null.as_fd()));
    }
}
