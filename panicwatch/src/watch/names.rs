//! Names for the numbers in the recorder's records: functions from the program's tables, threads from the
//! records themselves and /proc, kernel symbols from /proc/kallsyms.

use std::{collections::HashMap, fs, sync::OnceLock};

use panicwatch_common::recorder::{Slot, kind};

use crate::{capture::Program, incident::Frame, symbolize::kernel::Kernel, timeline};

/// The kernel's symbols, read on first use.
#[derive(Default)]
pub(super) struct KernelNames(OnceLock<Option<Kernel>>);

impl KernelNames {
    fn get(&self) -> Option<&Kernel> {
        let read = || {
            let symbols = fs::read_to_string("/proc/kallsyms").ok()?;
            let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
            Kernel::parse(&symbols, &modules).ok()
        };
        self.0.get_or_init(read).as_ref()
    }
}

/// Names for the records of one process.
pub(super) struct Names<'a> {
    program: &'a Program,
    bias: u64,
    pid: u32,
    kernel: &'a KernelNames,
    threads: HashMap<u32, String>,
}

impl<'a> Names<'a> {
    /// Returns names for process `pid`, which executes `program` at load bias `bias`; switch records in
    /// `slots` have thread names.
    pub(super) fn new(
        program: &'a Program,
        bias: u64,
        pid: u32,
        kernel: &'a KernelNames,
        slots: &[(u32, Slot)],
    ) -> Names<'a> {
        let named = slots.iter().filter(|(_, slot)| {
            matches!(slot.kind, kind::SWITCH_IN | kind::SWITCH_OUT) && slot.args[0] as u32 != 0
        });
        let threads =
            named.map(|(_, slot)| (slot.args[0] as u32, comm(slot.args[1], slot.args[2]))).collect();
        Names { program, bias, pid, kernel, threads }
    }
}

/// Decodes a thread's name (comm) from two words of a record.
fn comm(first: u64, second: u64) -> String {
    let bytes = [first.to_ne_bytes(), second.to_ne_bytes()].concat();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

impl timeline::Names for Names<'_> {
    fn frames(&self, pc: u64, exact: bool) -> Vec<Frame> {
        self.program.frames(self.bias, pc, exact)
    }

    fn kernel(&self, pc: u64) -> Option<String> {
        self.kernel.get()?.name(pc)
    }

    fn wait_reason(&self, number: u32) -> Option<&str> {
        self.program.bin.layout().wait_reasons.get(number as usize).copied()
    }

    fn stw_reason(&self, number: u32) -> Option<&str> {
        self.program.bin.layout().stw_reasons.get(number as usize).copied()
    }

    fn thread_name(&self, tid: u32) -> Option<String> {
        let known = self.threads.get(&tid).cloned();
        let read = || fs::read_to_string(format!("/proc/{}/task/{tid}/comm", self.pid)).ok();
        known.or_else(|| read().map(|name| name.trim_end().to_owned()))
    }

    fn syscall(&self, number: u32) -> Option<&str> {
        timeline::syscall_name(self.program.bin.arch(), number)
    }
}
