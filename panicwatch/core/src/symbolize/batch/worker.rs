//! One thread of a batch: resolves addresses in ascending order and stores their text.

use std::ops::Range;

use super::{
    ELSEWHERE, Key,
    around::{Around, Strings, push_decimal, push_hex},
};
use crate::{
    go::gobin::{Func, Lines},
    incident::escape,
    symbolize::{Lookup, Symbolizer},
};

/// Maximum size of a worker's text in bytes; real programs need 150 per address.
const MAX_TEXT: usize = 1 << 30;

/// State of one thread.
pub(super) struct Worker<'a, 's> {
    symbolizer: &'s Symbolizer<'a>,
    lookup: Lookup,
    func: Option<Func<'a>>,
    lines: Lines,
    around: Around,
    files: Strings,
    /// File of the previous address: its value in the function's table, and the position of its name.
    file: Option<(i32, Range<usize>)>,
    text: Vec<u8>,
    /// End of the text of each address.
    ends: Vec<usize>,
    /// Indices of the addresses in the request, in the order they were resolved.
    pub(super) order: Vec<u32>,
}

impl<'a, 's> Worker<'a, 's> {
    pub(super) fn new(symbolizer: &'s Symbolizer<'a>, lookup: Lookup) -> Self {
        Self {
            symbolizer,
            lookup,
            func: None,
            lines: Lines::default(),
            around: Around::default(),
            files: Strings::default(),
            file: None,
            text: Vec::new(),
            ends: Vec::new(),
            order: Vec::new(),
        }
    }

    /// Resolves all addresses of a share.
    pub(super) fn all(&mut self, mut keys: Vec<Key>, addresses: &[u64]) {
        keys.sort_unstable();
        self.text.clear();
        self.ends.clear();
        let start = self.symbolizer.bin.text_start().wrapping_add(self.symbolizer.bias);
        for key in &keys {
            self.resolve(match key >> 32 {
                ELSEWHERE => addresses[*key as u32 as usize],
                offset => start.wrapping_add(offset),
            });
        }
        self.order.clear();
        self.order.extend(keys.into_iter().map(|key| key as u32));
    }

    pub(super) fn text(&self, place: usize) -> &[u8] {
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[place]]
    }

    fn resolve(&mut self, address: u64) {
        let pc = address.wrapping_sub(self.symbolizer.bias);
        if !self.func.is_some_and(|f| pc >= f.entry() && pc < f.end()) {
            self.enter(pc);
        }
        let from = self.text.len();
        push_hex(&mut self.text, address);
        match self.func {
            Some(_) if from > MAX_TEXT => {
                self.text.extend_from_slice(b" ?? the names in this file are too long to be shown\n");
            }
            Some(func) => self.frames(&func, pc, self.text.len() - from),
            None => {
                let reason = escape::one_line(&self.symbolizer.reason(pc).to_string());
                self.text.extend_from_slice(b" ?? ");
                self.text.extend_from_slice(reason.as_bytes());
                self.text.push(b'\n');
            }
        }
        self.ends.push(self.text.len());
    }

    /// Switches to the function that contains `pc`.
    fn enter(&mut self, pc: u64) {
        let bin = self.symbolizer.bin;
        // Addresses are in ascending order, so the next function is usually near.
        self.func = self.func.and_then(|func| bin.find_func_behind(&func, pc)).or_else(|| bin.find_func(pc));
        if let Some(func) = self.func {
            self.lines.decode(&func);
            self.around.enter(self.symbolizer, &func);
            self.file = None;
        }
    }

    fn frames(&mut self, func: &Func<'a>, pc: u64, indent: usize) {
        let at = self.lines.at(self.lookup.apply(pc, func.entry()));
        self.around.see_to(self.symbolizer, func, &self.lines, &mut self.files, at.node, indent);
        let Self { symbolizer, lines, around, files, file, text, .. } = self;
        let inner = around.of(at.node);
        text.push(b' ');
        text.extend_from_slice(&around.text[inner.name.clone()]);
        let offset = pc - func.entry();
        if inner.inlined {
            text.extend_from_slice(b" (inlined)");
        } else {
            text.push(b'+');
            push_hex(text, offset);
        }
        if let Some((value, line)) = at.file.zip(at.line) {
            if file.as_ref().is_none_or(|(last, _)| *last != value) {
                *file = lines.file(func, value).map(|off| (value, files.place(symbolizer, off)));
            }
            if let Some((_, name)) = file {
                text.push(b' ');
                text.extend_from_slice(&files.text[name.clone()]);
                text.push(b':');
                push_decimal(text, line);
            }
        }
        if inner.inlined {
            text.extend_from_slice(&around.text[inner.callers.clone()]);
            text.push(b'+');
            push_hex(text, offset);
            text.extend_from_slice(&around.text[inner.outermost.clone()]);
        } else {
            text.extend_from_slice(&around.text[around.module.clone()]);
        }
        text.push(b'\n');
    }
}
