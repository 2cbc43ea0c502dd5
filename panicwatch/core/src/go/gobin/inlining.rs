//! All calls inlined into a function, for scans over every call of a program.
//!
//! [`super::Func::frames_at`] resolves one program counter; this module walks the same tables once. Damaged
//! tables yield fewer calls, never a panic or an endless loop.

use std::{borrow::Cow, collections::HashMap};

use super::Func;

/// Maximum number of inlined calls in one function; no compiler produces more, so a larger table is damaged.
const MAX_CALLS: usize = 1 << 16;

/// The inlined calls of one function.
#[derive(Debug, Default)]
pub struct Inlining<'a> {
    /// Ends of ranges as offsets from the entry, ascending, each with the index of its inlined call; negative
    /// for none.
    ranges: Vec<(u64, i32)>,
    calls: HashMap<i32, Call<'a>>,
}

/// One inlined call.
#[derive(Debug)]
struct Call<'a> {
    name: Cow<'a, str>,
    /// Offset from the entry of an instruction at the call site.
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
                break; // A damaged table may extend far beyond the function.
            }
        }
        found
    }

    /// Returns the function whose source contains the instruction at offset `at` from the entry; `None` for
    /// the function itself.
    pub fn innermost(&self, at: u64) -> Option<&str> {
        let range = self.ranges.partition_point(|&(end, _)| end <= at);
        let (_, index) = self.ranges.get(range)?;
        self.calls.get(index).map(|call| call.name.as_ref())
    }

    /// Returns each inlined function with the offset of an instruction at its call site.
    pub fn calls(&self) -> impl Iterator<Item = (&str, u64)> {
        self.calls.values().map(|call| (call.name.as_ref(), call.parent))
    }
}
