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

/// Sites of one program: file offsets and cookies.
pub(super) type Group = Vec<(u64, u64)>;

/// Request of the main process, sent together with the descriptor of a socket for the reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// Attaches programs to the file of the second descriptor: all of them, or none. Each group has its
    /// program's descriptor after that, in order.
    Attach { method: Method, file: RecordedFile, groups: Vec<Group> },
    /// Closes these links; the reply follows when the kernel has removed their breakpoints.
    Detach(Vec<u64>),
}

/// Reply of the helper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// Numbers of the new links, in the order of the groups: one per group, or with [`Method::Perf`] one per
    /// site.
    Attached(Vec<u64>),
    /// Nothing was attached.
    Failed {
        /// Index of the group that could not be attached.
        group: u32,
        errno: i32,
    },
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
            Request::Attach { method, file, groups } => {
                let kind = if *method == Method::Multi { ATTACH_MULTI } else { ATTACH_PERF };
                let path = file.path.as_os_str().as_bytes();
                let mtime = file.mtime_ns as u64;
                put(&mut bytes, [kind, file.dev, file.ino, file.size, mtime, path.len() as u64]);
                bytes.extend_from_slice(path);
                bytes.resize(bytes.len().next_multiple_of(8), 0);
                for group in groups {
                    put(&mut bytes, [group.len() as u64]);
                    put(&mut bytes, group.iter().flat_map(|(offset, cookie)| [*offset, *cookie]));
                }
            }
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> io::Result<Request> {
        let head = |n: usize| bytes.get(..n * 8).ok_or_else(damaged).and_then(words);
        let method = match head(1)?.first() {
            Some(&DETACH) => return Ok(Request::Detach(words(&bytes[8..])?)),
            Some(&ATTACH_MULTI) => Method::Multi,
            Some(&ATTACH_PERF) => Method::Perf,
            _ => return Err(damaged()),
        };
        let head: [u64; 6] = head(6)?.try_into().map_err(|_| damaged())?;
        let [_, dev, ino, size, mtime, length] = head;
        let rest = &bytes[48..];
        let length = usize::try_from(length).map_err(|_| damaged())?;
        let path = rest.get(..length).ok_or_else(damaged)?;
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(path));
        let file = RecordedFile { path, dev, ino, size, mtime_ns: mtime as i64 };
        let rest = words(rest.get(length.next_multiple_of(8)..).ok_or_else(damaged)?)?;
        let (mut rest, mut groups) = (rest.as_slice(), Vec::new());
        while !rest.is_empty() {
            groups.push(group(&mut rest)?);
        }
        Ok(Request::Attach { method, file, groups })
    }
}

/// Decodes one group from the start of `words`, and removes it from them.
fn group(words: &mut &[u64]) -> io::Result<Group> {
    let [count, rest @ ..] = *words else { return Err(damaged()) };
    let count = usize::try_from(*count).ok().and_then(|count| count.checked_mul(2));
    let (sites, rest) = count.and_then(|count| rest.split_at_checked(count)).ok_or_else(damaged)?;
    *words = rest;
    Ok(sites.as_chunks::<2>().0.iter().map(|[offset, cookie]| (*offset, *cookie)).collect())
}

impl Reply {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Reply::Attached(links) => {
                put(&mut bytes, [ATTACHED]);
                put(&mut bytes, links.iter().copied());
            }
            Reply::Failed { group, errno } => put(&mut bytes, [FAILED, u64::from(*group), *errno as u64]),
            Reply::Detached => put(&mut bytes, [DETACHED]),
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> io::Result<Reply> {
        match words(bytes)?.as_slice() {
            [ATTACHED, links @ ..] => Ok(Reply::Attached(links.to_vec())),
            [FAILED, group, errno] => Ok(Reply::Failed { group: *group as u32, errno: *errno as i32 }),
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
        let (multi, perf) = (Method::Multi, Method::Perf);
        let groups = vec![vec![(5, 6), (u64::MAX, 0)], vec![(7, 8)]];
        vec![
            Request::Attach { method: multi, file: file("/a/b c"), groups },
            Request::Attach { method: perf, file: file("/a"), groups: vec![Vec::new()] },
            Request::Attach { method: perf, file: file(""), groups: Vec::new() },
            Request::Detach(vec![7, 8]),
            Request::Detach(Vec::new()),
        ]
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for request in requests() {
            assert_eq!(Request::decode(&request.encode()).expect("a request"), request);
        }
        let failed = |group, errno| Reply::Failed { group, errno };
        for reply in [Reply::Attached(vec![1, 2]), failed(0, -1), failed(3, 524), Reply::Detached] {
            assert_eq!(Reply::decode(&reply.encode()).expect("a reply"), reply);
        }
    }

    #[test]
    fn what_is_cut_off_is_an_error_or_has_fewer_groups() {
        for request in requests() {
            let bytes = request.encode();
            for length in 0..bytes.len() {
                let Ok(shorter) = Request::decode(&bytes[..length]) else { continue };
                assert!(length % 8 == 0 && shorter != request, "{length} of {request:?}");
            }
        }
        assert!(Request::decode(&99_u64.to_le_bytes()).is_err());
        for count in [1, u64::MAX / 2 + 1, u64::MAX] {
            assert!(group(&mut [count].as_slice()).is_err(), "{count} sites that are not there");
        }
        assert!(Reply::decode(&[]).is_err());
    }
}
