//! Taking probes off. For each one the kernel waits for grace periods, some tens of milliseconds, one after the other when a process
//! just ends; those that are closed at the same time wait together.
//! <https://github.com/torvalds/linux/blob/v6.18/kernel/events/uprobes.c> (uprobe_unregister_sync)

use std::{os::fd::OwnedFd, thread};

use aya::programs::{
    Link as _, perf_event::PerfEventLink, raw_trace_point::RawTracePointLink, uprobe::UProbeLink,
};

/// What keeps a probe where it is.
pub(super) enum Link {
    /// A uprobe_multi link.
    Multi(OwnedFd),
    /// A link of a BTF tracepoint.
    Tracing(OwnedFd),
    /// A uprobe's perf event.
    Perf(UProbeLink),
    /// At one of the kernel's tracepoints.
    Tracepoint(RawTracePointLink),
    /// A sampling clock.
    Clock(PerfEventLink),
}

impl Link {
    fn close(self) {
        match self {
            Link::Multi(fd) | Link::Tracing(fd) => drop(fd),
            // Whether it came off or was off already.
            Link::Perf(link) => drop(link.detach()),
            Link::Tracepoint(link) => drop(link.detach()),
            Link::Clock(link) => drop(link.detach()),
        }
    }
}

/// Threads that close, at most.
const THREADS: usize = 64;

/// Returns when all of these probes are off.
pub(super) fn close(links: Vec<Link>) {
    if links.len() < 2 {
        return links.into_iter().for_each(Link::close);
    }
    let each = links.len().div_ceil(THREADS);
    let mut links = links.into_iter();
    thread::scope(|scope| {
        loop {
            let some: Vec<Link> = links.by_ref().take(each).collect();
            if some.is_empty() {
                break;
            }
            scope.spawn(move || some.into_iter().for_each(Link::close));
        }
    });
}
