//! How far each process has a binary above its link addresses; asked when a process is first heard of.

use std::collections::HashMap;

use super::procfs;
use crate::{gobin::GoBinary, mappings};

/// The answers so far.
#[derive(Debug, Default)]
pub struct Biases {
    known: HashMap<u32, Option<u64>>,
}

impl Biases {
    /// For process `pid`, whose executable is `bin`; `None` when it has gone before anybody asked.
    pub fn of(&mut self, bin: &GoBinary, pid: u32) -> Option<u64> {
        // Only position-independent programs are linked to begin at 0.
        if bin.lowest_address() != 0 {
            return Some(0);
        }
        *self.known.entry(pid).or_insert_with(|| {
            let file = procfs::executable(pid).ok()?.file;
            mappings::load_bias(bin, &procfs::maps(pid).ok()?, &file)
        })
    }
}
