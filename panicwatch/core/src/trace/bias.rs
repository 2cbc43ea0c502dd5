//! How far each process has the binary above its link addresses, from the records themselves. Pure.

use std::collections::HashMap;

use panicwatch_common::trace::kind;

use super::record::Record;
use crate::{go::gobin::GoBinary, plan::trace::TraceFunction};

/// Most processes that are remembered.
const MAX: usize = 1 << 16;

/// The answers so far.
#[derive(Debug)]
pub struct Biases<'a> {
    /// `None` for a program that is always where it was linked for.
    functions: Option<&'a [TraceFunction]>,
    known: HashMap<u32, u64>,
}

impl<'a> Biases<'a> {
    /// For the functions of one binary.
    pub fn new(bin: &GoBinary, functions: &'a [TraceFunction]) -> Biases<'a> {
        Biases { functions: bin.is_pie().then_some(functions), known: HashMap::new() }
    }

    /// For the process of `record`. A function has one place for entries, so each entry tells anew; an exit is believed
    /// to be of the same image.
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
