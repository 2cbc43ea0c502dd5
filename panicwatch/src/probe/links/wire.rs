//! Messages between the main process and the helper that holds the probes. Pure.
//!
//! Both ends are the same executable, so the format has no version. Integers are little-endian; a message
//! whose length does not fit its fields is rejected.

use std::{io, os::unix::ffi::OsStrExt as _, path::PathBuf};

use super::record::RecordedFile;

/// How probes are attached to sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// One uprobe_multi link.
    Multi,
    /// One perf event and link per site.
    Perf,
}

/// Request of the main process, sent together with the descriptor of a socket for the reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// Attaches the program of the second descriptor to the file of the third.
    Attach {
        method: Method,
        file: RecordedFile,
        /// File offsets and cookies.
        sites: Vec<(u64, u64)>,
    },
    /// Closes these links; the reply follows when the kernel has removed their breakpoints.
    Detach(Vec<u64>),
}

/// Reply of the helper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// Numbers of the new links: one, or with [`Method::Perf`] one per site.
    Attached(Vec<u64>),
    /// Nothing was attached: errno.
    Failed(i32),
    /// The links are closed.
    Detached,
}

const ATTACH_MULTI: u64 = 1;
const ATTACH_PERF: u64 = 2;
const DETACH: u64 = 3;
const ATTACHED: u64 = 4;
const FAILED: u64 = 5;
const DETACHED: u64 = 6;

fn put(bytes: &mut Vec<u8>, words: impl IntoIterator<Item = u64>) {
    words.into_iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a message between panicwatch's processes is damaged")
}

fn words(bytes: &[u8]) -> io::Result<Vec<u64>> {
    let (words, rest) = bytes.as_chunks::<8>();
    if rest.is_empty() {
        Ok(words.iter().map(|word| u64::from_le_bytes(*word)).collect())
    } else {
        Err(damaged())
    }
}

impl Request {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Request::Detach(links) => {
                put(&mut bytes, [DETACH]);
                put(&mut bytes, links.iter().copied());
            }
            Request::Attach { method, file, sites } => {
                let kind = if *method == Method::Multi { ATTACH_MULTI } else { ATTACH_PERF };
                let path = file.path.as_os_str().as_bytes();
                let mtime = file.mtime_ns as u64;
                put(&mut bytes, [kind, file.dev, file.ino, file.size, mtime, path.len() as u64]);
                bytes.extend_from_slice(path);
                bytes.resize(bytes.len().next_multiple_of(8), 0);
                put(&mut bytes, sites.iter().flat_map(|(offset, cookie)| [*offset, *cookie]));
            }
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> io::Result<Request> {
        let head = |n: usize| bytes.get(..n * 8).ok_or_else(damaged).and_then(words);
        let kind = head(1)?.first().copied().unwrap_or_default();
        if kind == DETACH {
            return Ok(Request::Detach(words(&bytes[8..])?));
        }
        let method = match kind {
            ATTACH_MULTI => Method::Multi,
            ATTACH_PERF => Method::Perf,
            _ => return Err(damaged()),
        };
        let head: [u64; 6] = head(6)?.try_into().map_err(|_| damaged())?;
        let [_, dev, ino, size, mtime, length] = head;
        let rest = &bytes[48..];
        let length = usize::try_from(length).map_err(|_| damaged())?;
        let path = rest.get(..length).ok_or_else(damaged)?;
        let sites = words(rest.get(length.next_multiple_of(8)..).ok_or_else(damaged)?)?;
        let (sites, odd) = sites.as_chunks::<2>();
        if !odd.is_empty() {
            return Err(damaged());
        }
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(path));
        let file = RecordedFile { path, dev, ino, size, mtime_ns: mtime as i64 };
        Ok(Request::Attach {
            method,
            file,
            sites: sites.iter().map(|[offset, cookie]| (*offset, *cookie)).collect(),
        })
    }
}

impl Reply {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Reply::Attached(links) => {
                put(&mut bytes, [ATTACHED]);
                put(&mut bytes, links.iter().copied());
            }
            Reply::Failed(errno) => put(&mut bytes, [FAILED, *errno as u64]),
            Reply::Detached => put(&mut bytes, [DETACHED]),
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> io::Result<Reply> {
        match words(bytes)?.as_slice() {
            [ATTACHED, links @ ..] => Ok(Reply::Attached(links.to_vec())),
            [FAILED, errno] => Ok(Reply::Failed(*errno as i32)),
            [DETACHED] => Ok(Reply::Detached),
            _ => Err(damaged()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> Vec<Request> {
        let file = |path: &str| RecordedFile { path: path.into(), dev: 1, ino: 2, size: 3, mtime_ns: -4 };
        vec![
            Request::Attach {
                method: Method::Multi,
                file: file("/a/b c"),
                sites: vec![(5, 6), (u64::MAX, 0)],
            },
            Request::Attach { method: Method::Perf, file: file(""), sites: Vec::new() },
            Request::Detach(vec![7, 8]),
            Request::Detach(Vec::new()),
        ]
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for request in requests() {
            assert_eq!(Request::decode(&request.encode()).expect("a request"), request);
        }
        for reply in [Reply::Attached(vec![1, 2]), Reply::Failed(-1), Reply::Failed(524), Reply::Detached] {
            assert_eq!(Reply::decode(&reply.encode()).expect("a reply"), reply);
        }
    }

    #[test]
    fn what_is_cut_off_is_an_error_or_has_fewer_sites() {
        for request in requests() {
            let bytes = request.encode();
            for length in 0..bytes.len() {
                let Ok(shorter) = Request::decode(&bytes[..length]) else { continue };
                assert!(length % 8 == 0 && shorter != request, "{length} of {request:?}");
            }
        }
        assert!(Request::decode(&99_u64.to_le_bytes()).is_err());
        assert!(Reply::decode(&[]).is_err());
    }
}
