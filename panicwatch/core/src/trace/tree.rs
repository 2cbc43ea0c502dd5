//! Which calls are under way on each goroutine, from entries, exits and what tells of unwinding.
//!
//! A call is known by how far its return address lies from the top of its goroutine's stack: that stays the same when
//! the stack moves, is the same at the entry and at the `ret`, and grows from caller to callee. Pure: no clock, no
//! names. Must not know functions but by number.

use std::collections::HashMap;

use panicwatch_common::trace::{Hit, flag, kind};

/// Goroutines whose calls are remembered; beyond that those are forgotten that were heard of longest ago.
const MAX_STACKS: usize = 1 << 16;
/// Deepest nesting that is remembered: what recurses deeper has its outer calls told without a duration.
const MAX_OPEN: usize = 1 << 20;

/// Whose stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    tgid: u32,
    /// [`flag`]s that say what `id` is.
    sort: u8,
    /// Goroutine, g of a system stack, or thread.
    id: u64,
}

impl Key {
    fn of(hit: &Hit) -> Key {
        let sort = hit.flags & (flag::NO_GOROUTINE | flag::SYSTEM_STACK);
        let id = if sort & flag::NO_GOROUTINE != 0 { u64::from(hit.tid) } else { hit.goid };
        Key { tgid: hit.tgid, sort, id }
    }
}

/// A call under way; `T` is what the caller of this module wants to remember of it.
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

/// What a record means for the calls.
#[derive(Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// A call began.
    Entered {
        /// Traced calls around it.
        depth: usize,
    },
    /// A call returned.
    Returned {
        /// Function.
        function: u32,
        /// Traced calls around it.
        depth: usize,
        /// Since it began; `None` when that was not seen.
        began: Option<(u64, T)>,
    },
    /// A panic that was recovered further out, or the end of its goroutine, ended a call.
    Unwound {
        /// Function.
        function: u32,
        /// Traced calls around it.
        depth: usize,
        /// When it began.
        began: (u64, T),
    },
    /// A call is over, and how it ended was not seen.
    Over,
}

/// The calls of every goroutine.
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
    /// Takes one record; `with` is remembered when it is an entry. Gives what it means, in order.
    pub fn push(&mut self, hit: &Hit, with: T, changes: &mut Vec<Change<T>>) {
        let key = Key::of(hit);
        if self.calls.len() >= MAX_STACKS && !self.calls.contains_key(&key) {
            self.forget();
        }
        let calls = self.calls.entry(key).or_insert_with(|| Calls { open: Vec::new(), heard_ns: 0 });
        calls.heard_ns = hit.time_ns;
        match hit.kind {
            kind::ENTRY => {
                // Whoever was as deep or deeper has left: the stack is used anew from there on.
                calls.over(|open| open.depth >= hit.depth, changes);
                changes.push(Change::Entered { depth: calls.open.len() });
                if calls.open.len() < MAX_OPEN {
                    let (function, depth, time_ns) = (hit.function, hit.depth, hit.time_ns);
                    calls.open.push(Open { function, depth, time_ns, with });
                }
            }
            kind::EXIT => {
                calls.over(|open| open.depth > hit.depth, changes);
                // Of two calls in one place the outer one goes on as the inner one.
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
            // Without a known stack pointer nobody can say which.
            kind::RECOVERY if hit.depth != 0 => calls.unwound(|open| open.depth > hit.depth, changes),
            kind::GONE => {
                calls.unwound(|_| true, changes);
                self.calls.remove(&key);
            }
            _ => {}
        }
    }

    /// Half of the goroutines, those that were heard of longest ago.
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
