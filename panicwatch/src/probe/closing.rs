//! Detaching. For each probe the kernel waits for grace periods, some tens of milliseconds, one after the other when a process
//! just ends; those that are closed at the same time wait together.
//! <https://github.com/torvalds/linux/blob/v6.18/kernel/events/uprobes.c> (uprobe_unregister_sync)

use std::{os::fd::OwnedFd, thread};

use aya::programs::{Link as _, perf_event::PerfEventLink, raw_trace_point::RawTracePointLink};

use super::links;

/// What keeps a probe where it is.
pub(super) enum Link {
    /// A breakpoint in programs; the helper process has it.
    Held(links::Link),
    /// A link of a BTF tracepoint.
    Tracing(OwnedFd),
    /// At one of the kernel's tracepoints.
    Tracepoint(RawTracePointLink),
    /// A sampling clock.
    Clock(PerfEventLink),
}

impl Link {
    fn close(self) {
        match self {
            Link::Held(link) => links::detach(vec![link]),
            Link::Tracing(fd) => drop(fd),
            // Whether it came off or was off already.
            Link::Tracepoint(link) => drop(link.detach()),
            Link::Clock(link) => drop(link.detach()),
        }
    }
}

/// Threads that close, at most.
const THREADS: usize = 64;

/// Returns when all of these probes are detached.
pub(super) fn close(all: Vec<Link>) {
    let (mut held, mut local) = (Vec::new(), Vec::new());
    for link in all {
        match link {
            Link::Held(link) => held.push(link),
            link => local.push(link),
        }
    }
    thread::scope(|scope| {
        if !held.is_empty() && !local.is_empty() {
            scope.spawn(|| links::detach(held));
        } else {
            links::detach(held);
        }
        side_by_side(local, Link::close);
    });
}

/// Closes all of these with up to [`THREADS`] threads.
pub(super) fn side_by_side<T: Send>(all: Vec<T>, close: fn(T)) {
    if all.len() < 2 {
        return all.into_iter().for_each(close);
    }
    let each = all.len().div_ceil(THREADS);
    let mut all = all.into_iter();
    thread::scope(|scope| {
        loop {
            let some: Vec<T> = all.by_ref().take(each).collect();
            if some.is_empty() {
                break;
            }
            scope.spawn(move || some.into_iter().for_each(close));
        }
    });
}
