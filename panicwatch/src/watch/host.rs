//! Host name and boot ID, which every incident contains.
//!
//! The name is that of the UTS namespace of process 1: a daemon in a container has a different name than its
//! host.
//! <https://man7.org/linux/man-pages/man7/uts_namespaces.7.html>

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use crate::incident::{Host, Incident, Missing};

/// How long the facts are cached. A host can be renamed (cloud-init does so after boot).
const FRESH: Duration = Duration::from_secs(60);
/// Files of the UTS namespaces of process 1 and of the calling thread.
const FIRST: &str = "/proc/1/ns/uts";
const OWN: &str = "/proc/thread-self/ns/uts";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Host name and boot ID, and why either is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Name and boot ID.
    pub host: Host,
    /// One entry for each of the two that could not be read.
    pub missing: Vec<Missing>,
}

impl Facts {
    /// Reads the current facts.
    pub fn read() -> Facts {
        let boot_id = fs::read_to_string(BOOT_ID).map_err(|error| format!("cannot read {BOOT_ID}: {error}"));
        Facts::of(name_in(FIRST).map_err(|error| format!("cannot read the host name: {error}")), boot_id)
    }

    fn of(name: Result<String, String>, boot_id: Result<String, String>) -> Facts {
        let mut missing = Vec::new();
        let mut known = |what: &str, read: Result<String, String>| {
            let read = read.map(|text| text.trim().to_owned());
            match read.and_then(|text| if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(text) })
            {
                Ok(text) => Some(text),
                Err(reason) => {
                    missing.push(Missing { what: what.to_owned(), reason });
                    None
                }
            }
        };
        let host = Host { name: known("host.name", name), boot_id: known("host.boot_id", boot_id) };
        Facts { host, missing }
    }

    /// Adds the facts to an incident of this host.
    pub fn add_to(&self, incident: &mut Incident) {
        incident.host = Some(self.host.clone());
        incident.missing.extend(self.missing.iter().cloned());
    }
}

/// Cached [`Facts`], which are read again when they are a minute old.
#[derive(Debug, Default)]
pub struct Current(Option<(Instant, Facts)>);

impl Current {
    /// Returns the facts, at most a minute old.
    pub fn get(&mut self) -> &Facts {
        if self.0.as_ref().is_none_or(|(read, _)| read.elapsed() >= FRESH) {
            self.0 = None;
        }
        &self.0.get_or_insert_with(|| (Instant::now(), Facts::read())).1
    }
}

/// Returns the host name in a UTS namespace; if that cannot be entered, the name in our own.
fn name_in(namespace: &'static str) -> io::Result<String> {
    let is_own = || Some(fs::read_link(namespace).ok()? == fs::read_link(OWN).ok()?);
    if is_own() != Some(false) {
        return own_name();
    }
    // Only the thread that calls setns enters the namespace.
    let entered = thread::spawn(move || enter(&File::open(namespace)?).and_then(|()| own_name())).join();
    match entered {
        Ok(Ok(name)) => Ok(name),
        _ => own_name(),
    }
}

fn enter(namespace: &File) -> io::Result<()> {
    // SAFETY: setns takes integers only, and the descriptor is open.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWUTS) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn own_name() -> io::Result<String> {
    // The file has the name in the namespace of the reading thread.
    fs::read_to_string("/proc/sys/kernel/hostname")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host() {
        let Facts { host, missing } = Facts::read();
        assert_eq!(missing, []);
        let boot_id = fs::read_to_string(BOOT_ID).expect("a boot id");
        assert_eq!(host.boot_id.as_deref(), Some(boot_id.trim()));
        assert!(host.name.is_some_and(|name| !name.is_empty() && name.trim() == name));
    }

    #[test]
    fn what_cannot_be_read_has_a_reason() {
        let Facts { host, missing } = Facts::of(Ok("node-1\n".to_owned()), Err("no /proc".to_owned()));
        assert_eq!(host, Host { name: Some("node-1".to_owned()), boot_id: None });
        assert_eq!(missing, [Missing { what: "host.boot_id".to_owned(), reason: "no /proc".to_owned() }]);
        let nameless = Facts::of(Ok("\n".to_owned()), Ok("b".to_owned()));
        assert_eq!((nameless.host.name, nameless.missing[0].what.as_str()), (None, "host.name"));
    }

    #[test]
    fn the_name_is_that_of_the_namespace_asked_for() {
        // The namespace of the process's first thread, which the thread below leaves.
        let first = "/proc/self/ns/uts";
        let expected = name_in(first).expect("a name");
        let renamed = thread::spawn(move || {
            // SAFETY: unshare takes integers only; only this thread uses the new namespace, which ends with
            // it.
            if unsafe { libc::unshare(libc::CLONE_NEWUTS) } != 0 {
                return println!("SKIPPED: no right to a namespace of its own");
            }
            let other = b"elsewhere";
            // SAFETY: the bytes outlive the call, and their length is passed.
            assert_eq!(unsafe { libc::sethostname(other.as_ptr().cast(), other.len()) }, 0);
            assert_eq!(own_name().expect("a name").trim(), "elsewhere");
            assert_eq!(name_in(first).expect("a name"), expected);
        });
        renamed.join().expect("it holds");
    }
}
