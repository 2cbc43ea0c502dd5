//! Which calls were inlined into a function, all at once: for looking at every call of a program.
//!
//! [`super::Func::frames_at`] answers for one program counter; this walks the same tables once. Damage gives fewer
//! calls, never a panic or an endless walk.

use std::{borrow::Cow, collections::HashMap};

use super::Func;

/// More inlined calls in one function than a compiler makes: damage.
const MAX_CALLS: usize = 1 << 16;

/// The inlined calls of one function.
#[derive(Debug, Default)]
pub struct Inlining<'a> {
    /// Ends of ranges as offsets from the entry, in order, and the inlined call that each belongs to; negative: none.
    ranges: Vec<(u64, i32)>,
    calls: HashMap<i32, Call<'a>>,
}

/// One inlined call.
#[derive(Debug)]
struct Call<'a> {
    name: Cow<'a, str>,
    /// Of an instruction at the call, as an offset from the entry.
    parent: u64,
}

impl<'a> Inlining<'a> {
    /// Reads the tables of `func`.
    pub fn of(func: &Func<'a>) -> Self {
        let mut found = Self::default();
        let [_, _, table] = func.place_tables();
        for (end, index) in func.values(table) {
            found.ranges.push((end, index));
            if !found.calls.contains_key(&index)
                && found.calls.len() < MAX_CALLS
                && let Some(call) = func.inlined(index)
            {
                let name = func.name_of(&call);
                found.calls.insert(index, Call { name, parent: call.parent_pc.into() });
            }
            if func.entry().saturating_add(end) >= func.end() {
                break; // A damaged table may go on far behind the function.
            }
        }
        found
    }

    /// The function whose source holds the instruction at offset `at` from the entry; `None` for the function itself.
    pub fn innermost(&self, at: u64) -> Option<&str> {
        let range = self.ranges.partition_point(|&(end, _)| end <= at);
        let (_, index) = self.ranges.get(range)?;
        self.calls.get(index).map(|call| call.name.as_ref())
    }

    /// Each inlined function, and the offset of an instruction at its call.
    pub fn calls(&self) -> impl Iterator<Item = (&str, u64)> {
        self.calls.values().map(|call| (call.name.as_ref(), call.parent))
    }
}
