//! Addresses on standard input, one per line: large blocks when they arrive fast, immediately when typed by
//! hand.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::AsRawFd,
};

/// Approximate number of lines per block: several parts, one of which is resolved while another is written.
const MANY: usize = 4 * super::batch::PART;
/// Size of one read, in bytes.
const CHUNK: usize = 256 << 10;
/// Maximum time to wait for more lines before the available ones are returned, in milliseconds.
const PATIENCE_MS: i32 = 3;

/// Reader of blocks of lines.
pub struct Lines {
    from: File,
    /// Bytes read so far; those before `taken` have been returned.
    bytes: Vec<u8>,
    taken: usize,
    ended: bool,
}

impl Lines {
    /// Returns a reader of a pipe, a file or a terminal.
    pub fn new(from: File) -> Self {
        Self { from, bytes: Vec::new(), taken: 0, ended: false }
    }

    /// Returns the next lines as one block of whole lines; `None` at the end. Blocks only until the first
    /// line is available.
    ///
    /// # Errors
    /// Returns an error when reading fails.
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
        // The last line may lack its newline.
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
        // SAFETY: new descriptors that this test owns.
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
