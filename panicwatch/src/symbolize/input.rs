//! Addresses on standard input, a line each: many at a time when they come fast, at once when a person types them.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::AsRawFd,
};

/// Lines given at once, about: some parts, which are resolved one while another is written.
const MANY: usize = 4 * super::batch::PART;
/// Bytes asked for in one read.
const CHUNK: usize = 256 << 10;
/// How long more lines are waited for before those at hand are given, milliseconds.
const PATIENCE_MS: i32 = 3;

/// Reads lines.
pub struct Lines {
    from: File,
    /// Bytes read; those before `taken` were given.
    bytes: Vec<u8>,
    taken: usize,
    ended: bool,
}

impl Lines {
    /// From a pipe, a file, a terminal.
    pub fn new(from: File) -> Self {
        Self { from, bytes: Vec::new(), taken: 0, ended: false }
    }

    /// The next lines as one block of whole lines; `None` at the end. Waits for the first of them only.
    ///
    /// # Errors
    /// When reading fails.
    pub fn next_block(&mut self) -> io::Result<Option<&[u8]>> {
        self.bytes.drain(..self.taken);
        let mut count = count_lines(&self.bytes);
        while !self.ended && count < MANY && (count == 0 || self.more_at_hand()) {
            let len = self.bytes.len();
            self.bytes.resize(len + CHUNK, 0);
            let read = self.from.read(&mut self.bytes[len..]);
            self.bytes.truncate(len + read.as_ref().map_or(0, |n| *n));
            match read {
                Ok(0) => self.ended = true,
                Ok(_) => count += count_lines(&self.bytes[len..]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // The last line may lack its end.
        let whole = self.bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        self.taken = if self.ended { self.bytes.len() } else { whole };
        Ok((self.taken > 0).then_some(&self.bytes[..self.taken]))
    }

    fn more_at_hand(&self) -> bool {
        let mut fd = libc::pollfd { fd: self.from.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: the struct outlives the call.
        unsafe { libc::poll(&mut fd, 1, PATIENCE_MS) > 0 }
    }
}

fn count_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|b| **b == b'\n').count()
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        os::fd::{FromRawFd, OwnedFd},
    };

    use super::*;

    fn pipe() -> (File, File) {
        let mut ends = [0; 2];
        // SAFETY: the array has room for the two descriptors.
        assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
        // SAFETY: new descriptors that are ours.
        let [read, write] = ends.map(|fd| File::from(unsafe { OwnedFd::from_raw_fd(fd) }));
        (read, write)
    }

    #[test]
    fn whole_lines_as_they_come() {
        let (read, mut write) = pipe();
        let mut lines = Lines::new(read);
        write.write_all(b"0x1\n0x2\n0x").expect("room");
        assert_eq!(lines.next_block().expect("readable"), Some(&b"0x1\n0x2\n"[..]));
        write.write_all(b"3\nlast").expect("room");
        assert_eq!(lines.next_block().expect("readable"), Some(&b"0x3\n"[..]));
        drop(write);
        assert_eq!(lines.next_block().expect("readable"), Some(&b"last"[..]));
        assert_eq!(lines.next_block().expect("readable"), None);
    }
}
