//! The tables of one function, decoded whole: for looking up many program counters in it.
//!
//! A single lookup walks three tables from their start ([`Func::frames_at`]); here they are walked once. Knows what
//! [`Func`] knows.

use super::func::{Func, Place};

/// One function's lines, files and inlining. Reuse one for many functions: it keeps its memory.
#[derive(Debug, Default)]
pub struct Lines {
    entry: u64,
    /// (offset in pctab, its ranges): end of the range in bytes from the entry, and the value.
    tables: [(u32, Vec<(u32, i32)>); 3],
}

impl Lines {
    /// Decodes the tables of `func`.
    pub fn decode(&mut self, func: &Func<'_>) {
        self.entry = func.entry();
        let len = u32::try_from(func.end() - func.entry()).unwrap_or(u32::MAX);
        for ((table, ranges), offset) in self.tables.iter_mut().zip(func.place_tables()) {
            *table = offset;
            ranges.clear();
            for (end, value) in func.values(offset) {
                let end = u32::try_from(end).unwrap_or(u32::MAX);
                ranges.push((end, value));
                if end >= len {
                    break; // A damaged table may go on far behind the function.
                }
            }
        }
    }

    /// The source-level calls under way at `pc` of the decoded function, innermost first.
    pub fn places(&self, func: &Func<'_>, pc: u64, found: &mut dyn FnMut(Place)) {
        debug_assert_eq!(func.entry(), self.entry, "another function was decoded");
        if pc >= func.entry() && pc < func.end() {
            func.walk(pc, &|table, pc| self.value(table, pc), found);
        }
    }

    fn value(&self, table: u32, pc: u64) -> Option<i32> {
        let (_, ranges) = self.tables.iter().find(|(offset, _)| *offset == table)?;
        let rel = u32::try_from(pc.checked_sub(self.entry)?).ok()?;
        let i = ranges.partition_point(|(end, _)| *end <= rel);
        ranges.get(i).map(|(_, value)| *value)
    }
}
