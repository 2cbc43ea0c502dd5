//! Completely decoded tables of one function, for looking up many program counters in it.
//!
//! A single lookup walks three tables from their start ([`Func::frames_at`]); here they are walked once.
//! Knows no more than [`Func`].

use super::func::{Func, Place};

/// Lines, files and inlining of one function. Reuse one instance for many functions: it keeps its
/// allocations.
#[derive(Debug, Default)]
pub struct Lines {
    entry: u64,
    /// Offsets in pctab of the line, file and inline tables.
    tables: [u32; 3],
    lines: Ranges,
    files: Ranges,
    nodes: Ranges,
}

/// Values of the tables for one instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Values {
    /// Line in the source file.
    pub line: Option<u32>,
    /// Value of the pcfile table, see [`Lines::file`].
    pub file: Option<i32>,
    /// Node of the innermost inlined call in the inline tree; `None` when nothing is inlined here.
    pub node: Option<i32>,
}

/// Ends of ranges, in bytes from the entry, and the value of each range.
#[derive(Debug, Default)]
struct Ranges {
    ends: Vec<u32>,
    values: Vec<i32>,
}

impl Lines {
    /// Decodes the tables of `func`.
    pub fn decode(&mut self, func: &Func<'_>) {
        self.entry = func.entry();
        self.tables = func.place_tables();
        let [lines, files, nodes] = self.tables;
        self.lines.decode(func, lines);
        self.files.decode(func, files);
        self.nodes.decode(func, nodes);
    }

    /// Returns the values at `pc` of the decoded function.
    pub fn at(&self, pc: u64) -> Values {
        let rel = u32::try_from(pc.wrapping_sub(self.entry)).unwrap_or(u32::MAX);
        Values {
            line: self.lines.at(rel).and_then(|line| u32::try_from(line).ok()),
            file: self.files.at(rel),
            node: self.nodes.at(rel).filter(|node| *node >= 0),
        }
    }

    /// Converts a pcfile value to an offset in filetab; see [`super::GoBinary::file_name`].
    pub fn file(&self, func: &Func<'_>, value: i32) -> Option<u32> {
        func.file_off(value)
    }

    /// Returns the name offset of the function inlined at node `node` of the inline tree; see
    /// [`super::GoBinary::name_at`]. `None` when the tree is damaged there.
    pub fn inlined_function(&self, func: &Func<'_>, node: i32) -> Option<i32> {
        func.inlined(node).map(|call| call.name_off)
    }

    /// Passes the calls that enclose the inlined call of node `node` to `found`, innermost first; the last is
    /// the function itself.
    pub fn callers(&self, func: &Func<'_>, node: i32, found: &mut dyn FnMut(Place)) {
        debug_assert_eq!(func.entry(), self.entry, "another function was decoded");
        if let Some(call) = func.inlined(node) {
            let at = self.entry.wrapping_add(u64::from(call.parent_pc));
            func.walk(at, &|table, pc| self.value(table, pc), found);
        }
    }

    fn value(&self, table: u32, pc: u64) -> Option<i32> {
        let ranges = [&self.lines, &self.files, &self.nodes];
        let (_, ranges) = self.tables.iter().zip(ranges).find(|(offset, _)| **offset == table)?;
        ranges.at(u32::try_from(pc.checked_sub(self.entry)?).ok()?)
    }
}

impl Ranges {
    fn decode(&mut self, func: &Func<'_>, table: u32) {
        let len = u32::try_from(func.end() - func.entry()).unwrap_or(u32::MAX);
        self.ends.clear();
        self.values.clear();
        for (end, value) in func.values(table) {
            let end = u32::try_from(end).unwrap_or(u32::MAX);
            self.ends.push(end);
            self.values.push(value);
            if end >= len {
                break; // A damaged table may extend far beyond the function.
            }
        }
    }

    fn at(&self, rel: u32) -> Option<i32> {
        self.values.get(self.ends.partition_point(|end| *end <= rel)).copied()
    }
}
