//! Determines the load bias of each process from the records. Does no I/O.

use std::collections::HashMap;

use panicwatch_common::trace::kind;

use super::record::Record;
use crate::{go::gobin::GoBinary, plan::trace::TraceFunction};

/// Maximum number of processes to remember.
const MAX: usize = 1 << 16;

/// Load biases determined so far.
#[derive(Debug)]
pub struct Biases<'a> {
    /// `None` for a program that always runs at its link-time addresses.
    functions: Option<&'a [TraceFunction]>,
    known: HashMap<u32, u64>,
}

impl<'a> Biases<'a> {
    /// Returns an empty table for the functions of one binary.
    pub fn new(bin: &GoBinary, functions: &'a [TraceFunction]) -> Biases<'a> {
        Biases { functions: bin.is_pie().then_some(functions), known: HashMap::new() }
    }

    /// Returns the load bias in the process of `record`. A function has a single probe site for entries, so
    /// each entry determines the bias anew; an exit is assumed to belong to the same image.
    pub fn of(&mut self, record: &Record<'_>) -> Option<u64> {
        let Some(functions) = self.functions else { return Some(0) };
        let hit = &record.hit;
        if hit.kind != kind::ENTRY {
            return self.known.get(&hit.tgid).copied();
        }
        let bias = record.ip?.wrapping_sub(functions.get(hit.function as usize)?.site);
        if self.known.len() < MAX {
            self.known.insert(hit.tgid, bias);
        }
        Some(bias)
    }
}
