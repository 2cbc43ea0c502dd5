//! Tracks the calls in progress on each goroutine, from entries, exits and signs of unwinding.
//!
//! A call is identified by the distance of its return address from the top of its goroutine's stack: this
//! distance stays the same when the stack moves, is the same at the entry and at the `ret`, and grows from
//! caller to callee. There is no clock and no I/O; functions are known by number only. names. Must not know
//! functions but by number.

use std::collections::HashMap;

use panicwatch_common::trace::{Hit, flag, kind};

/// Maximum number of goroutines with tracked calls; beyond it the least recently active ones are forgotten.
const MAX_STACKS: usize = 1 << 16;
/// Maximum nesting that is tracked. Calls nested deeper are not remembered, so their returns are reported
/// without a duration.
const MAX_OPEN: usize = 1 << 20;

/// Identifies a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    tgid: u32,
    /// The [`flag`]s that determine the meaning of `id`.
    sort: u8,
    /// ID of the goroutine, address of the g of a system stack, or TID.
    id: u64,
}

impl Key {
    fn of(hit: &Hit) -> Key {
        let sort = hit.flags & (flag::NO_GOROUTINE | flag::SYSTEM_STACK);
        let id = if sort & flag::NO_GOROUTINE != 0 { u64::from(hit.tid) } else { hit.goid };
        Key { tgid: hit.tgid, sort, id }
    }
}

/// A call in progress; `T` is the data that the user of this module attaches to it.
#[derive(Debug)]
struct Open<T> {
    function: u32,
    depth: u32,
    time_ns: u64,
    with: T,
}

#[derive(Debug)]
struct Calls<T> {
    open: Vec<Open<T>>,
    heard_ns: u64,
}

/// Effect of a record on the calls.
#[derive(Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// A call started.
    Entered {
        /// Number of traced calls that enclose it.
        depth: usize,
    },
    /// A call returned.
    Returned {
        /// Index of the function.
        function: u32,
        /// Number of traced calls that enclose it.
        depth: usize,
        /// Start time and data of the call; `None` if its entry was not seen.
        began: Option<(u64, T)>,
    },
    /// A call was ended by a panic that an outer function recovered, or by the end of its goroutine.
    Unwound {
        /// Index of the function.
        function: u32,
        /// Number of traced calls that enclose it.
        depth: usize,
        /// Start time and data of the call.
        began: (u64, T),
    },
    /// A call is over, but its end was not seen.
    Over,
}

/// The calls in progress on all goroutines.
#[derive(Debug)]
pub struct Tree<T> {
    calls: HashMap<Key, Calls<T>>,
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Tree { calls: HashMap::new() }
    }
}

impl<T> Tree<T> {
    /// Processes one record, and appends its effects to `changes` in order. `with` is the data of the call if
    /// it is an entry.
    pub fn push(&mut self, hit: &Hit, with: T, changes: &mut Vec<Change<T>>) {
        let key = Key::of(hit);
        if self.calls.len() >= MAX_STACKS && !self.calls.contains_key(&key) {
            self.forget();
        }
        let calls = self.calls.entry(key).or_insert_with(|| Calls { open: Vec::new(), heard_ns: 0 });
        calls.heard_ns = hit.time_ns;
        match hit.kind {
            kind::ENTRY => {
                // Calls at this depth or deeper are over: their part of the stack is being reused.
                calls.over(|open| open.depth >= hit.depth, changes);
                changes.push(Change::Entered { depth: calls.open.len() });
                if calls.open.len() < MAX_OPEN {
                    let (function, depth, time_ns) = (hit.function, hit.depth, hit.time_ns);
                    calls.open.push(Open { function, depth, time_ns, with });
                }
            }
            kind::EXIT => {
                calls.over(|open| open.depth > hit.depth, changes);
                // Two calls at the same depth: the outer one has continued as the inner one (a tail call).
                let own = |open: &Open<T>| open.depth == hit.depth && open.function == hit.function;
                let began = match calls.open.iter().rposition(own) {
                    Some(at) if calls.open[at..].iter().all(|open| open.depth == hit.depth) => {
                        changes.extend(calls.open.drain(at + 1..).map(|_| Change::Over));
                        calls.open.pop().map(|open| (open.time_ns, open.with))
                    }
                    _ => None,
                };
                changes.push(Change::Returned { function: hit.function, depth: calls.open.len(), began });
            }
            // Without the stack pointer, the unwound calls are unknown.
            kind::RECOVERY if hit.depth != 0 => calls.unwound(|open| open.depth > hit.depth, changes),
            kind::GONE => {
                calls.unwound(|_| true, changes);
                self.calls.remove(&key);
            }
            _ => {}
        }
    }

    /// Forgets half of the goroutines, the least recently active ones.
    fn forget(&mut self) {
        let mut heard: Vec<u64> = self.calls.values().map(|calls| calls.heard_ns).collect();
        let middle = heard.len() / 2;
        let (_, limit, _) = heard.select_nth_unstable(middle);
        let limit = *limit;
        self.calls.retain(|_, calls| calls.heard_ns > limit);
    }
}

impl<T> Calls<T> {
    fn over(&mut self, is: impl Fn(&Open<T>) -> bool, changes: &mut Vec<Change<T>>) {
        while self.open.pop_if(|open| is(open)).is_some() {
            changes.push(Change::Over);
        }
    }

    fn unwound(&mut self, is: impl Fn(&Open<T>) -> bool, changes: &mut Vec<Change<T>>) {
        while let Some(open) = self.open.pop_if(|open| is(open)) {
            let began = (open.time_ns, open.with);
            changes.push(Change::Unwound { function: open.function, depth: self.open.len(), began });
        }
    }
}

#[cfg(test)]
mod tests;
