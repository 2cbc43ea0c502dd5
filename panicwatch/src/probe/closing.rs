//! Detaches probes in parallel. For each detached probe the kernel waits for RCU grace periods, some tens of
//! milliseconds, and detaches them one after the other when a process just exits; probes that are closed at
//! the same time wait together.
//! <https://github.com/torvalds/linux/blob/v6.18/kernel/events/uprobes.c> (uprobe_unregister_sync)

use std::{os::fd::OwnedFd, thread};

use aya::programs::{Link as _, perf_event::PerfEventLink, raw_trace_point::RawTracePointLink};

use super::links;

/// Owner of an attached probe: dropping or closing it detaches the probe.
pub(super) enum Link {
    /// Uprobes, held by the helper process.
    Held(links::Link),
    /// Link of a BTF tracepoint.
    Tracing(OwnedFd),
    /// Link of a raw tracepoint.
    Tracepoint(RawTracePointLink),
    /// Perf event of a sampling clock.
    Clock(PerfEventLink),
}

impl Link {
    fn close(self) {
        match self {
            Link::Held(link) => links::detach(vec![link]),
            Link::Tracing(fd) => drop(fd),
            // An error means that it was detached already.
            Link::Tracepoint(link) => drop(link.detach()),
            Link::Clock(link) => drop(link.detach()),
        }
    }
}

/// Most threads that close links in parallel.
const THREADS: usize = 64;

/// Detaches all of these probes, then returns.
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

/// Closes all of these with up to [`THREADS`] threads in parallel.
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
