//! Plans the probe sites of one binary: pure, from the binary's bytes alone.
//!
//! Offsets inside functions differ from binary to binary, so every site is found by decoding: the stack check
//! of the prologue, the target of a call, the conditional jump after it. A site whose code does not look as
//! expected is left out with the reason, never guessed: a breakpoint inside an instruction kills the target.

mod init;
mod runtime;
mod tls;
pub mod trace;

use iced_x86::{Code, Decoder, DecoderOptions, Formatter, Instruction, Mnemonic, OpKind, Register};
use panicwatch_common::binary::site;

pub use self::{
    init::init_plan,
    runtime::{begin_plan, recorder_plan},
    tls::tls_g,
};
use crate::go::{
    disasm,
    gobin::{Arch, Func, GoBinary},
};

/// Cost class of a hit; see docs/probes.md for measured numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Price {
    /// The kernel emulates the instruction: one trap.
    Emulated,
    /// The kernel single-steps a copy of the instruction: two traps, some 30 times as expensive in a virtual
    /// machine.
    Stepped,
}

impl Price {
    /// Name of the class, as `inspect` prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Price::Emulated => "emulated",
            Price::Stepped => "stepped",
        }
    }
}

/// One probe site: an instruction and the eBPF program to attach there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// What the probe reports, in the user's terms: "panic raised".
    pub name: &'static str,
    /// Name of the eBPF program.
    pub program: &'static str,
    /// Name of the Go function.
    pub symbol: String,
    /// Link-time address of the instruction.
    pub address: u64,
    /// Distance from the function's entry, in bytes.
    pub offset: u64,
    /// File offset of the instruction, which is what the kernel attaches to.
    pub file_offset: u64,
    /// The instruction's bytes, compared with the file's before attaching.
    pub bytes: Vec<u8>,
    /// Instruction under the probe, in GNU syntax.
    pub instruction: String,
    /// Cost class of a hit.
    pub price: Price,
    /// Flags of the probe's cookie.
    pub flags: u32,
    /// Why this instruction was chosen.
    pub why: &'static str,
}

/// A probe site that this binary does not offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// What the probe would have reported.
    pub name: &'static str,
    /// Name of the Go function.
    pub symbol: String,
    /// Why there is no site.
    pub reason: String,
    /// What is missing from reports without it.
    pub lost: &'static str,
}

/// Probe plan: all probe sites of one binary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProbePlan {
    /// Sites, in the order of the panic path.
    pub sites: Vec<Site>,
    /// Sites that were not found.
    pub left_out: Vec<LeftOut>,
    /// Functions that the user named and whose entries cannot be recorded: name and reason.
    pub refused: Vec<(String, &'static str)>,
}

impl ProbePlan {
    /// Merges two plans of the same binary.
    pub fn and(mut self, other: &ProbePlan) -> ProbePlan {
        self.sites.extend_from_slice(&other.sites);
        self.left_out.extend_from_slice(&other.left_out);
        self.refused.extend_from_slice(&other.refused);
        self
    }

    /// Reports whether panics themselves can be seen; without that there is no point in attaching.
    pub fn is_useful(&self) -> bool {
        self.sites.iter().any(|site| site.program == "gopanic")
    }
}

/// Most bytes of a function that are decoded.
const MAX_CODE: u64 = 64 << 10;
/// Most instructions in a prologue.
const MAX_PROLOGUE: usize = 10;

const AFTER_CHECK: &str = "after the stack check: every hit is one call, arguments still in registers";
const ON_CHECK: &str =
    "on the stack check's jump, whose flags distinguish a call from a restart after stack growth";
const ENTRY: &str = "the function never grows the stack: its first instruction runs once per call";

/// Decoded code of a function.
struct Body<'a> {
    func: Func<'a>,
    code: Vec<Instruction>,
}

impl<'a> Body<'a> {
    fn decode(bin: &'a GoBinary, name: &str) -> Result<Body<'a>, String> {
        let func = bin.function(name).ok_or("the linker removed this function: nothing calls it")?;
        Body::of(bin, func, MAX_CODE)
    }

    /// Decodes at most `max` bytes of `func`.
    fn of(bin: &'a GoBinary, func: Func<'a>, max: u64) -> Result<Body<'a>, String> {
        let end = func.end().min(func.entry().saturating_add(max));
        let bytes = bin.code(func.entry(), end).ok_or("its code is not in the file")?;
        let decoder = Decoder::with_ip(64, bytes, func.entry(), DecoderOptions::NONE);
        Ok(Body { func, code: decoder.into_iter().collect() })
    }

    fn index_of(&self, wanted: impl Fn(&Instruction) -> bool) -> Option<usize> {
        self.code.iter().position(wanted)
    }

    fn index_after(
        &self,
        start: usize,
        within: usize,
        wanted: impl Fn(&Instruction) -> bool,
    ) -> Option<usize> {
        let end = (start + 1 + within).min(self.code.len());
        (start + 1..end).find(|&i| wanted(&self.code[i]))
    }

    /// Finds the instruction that is hit once per call, in a function with a stack check; `None` without one.
    fn behind_check(&self) -> Option<BehindCheck> {
        let check = self.stack_check()?;
        match self.code.get(check + 1) {
            // Go 1.21 and later save the frame pointer first.
            Some(next) if next.code() == Code::Push_r64 => Some(BehindCheck::Push(check + 1)),
            _ => Some(BehindCheck::Jump(check)),
        }
    }

    /// Returns the index of the last jump of the stack check, `None` for a function without one.
    ///
    /// Shapes: `cmp 0x10(%r14),%rsp; jbe`, `lea -N(%rsp),%r12; cmp; jbe`, and for huge frames an overflow
    /// test `mov %rsp,%r12; sub $N,%r12; jb` before it.
    /// <https://github.com/golang/go/blob/go1.24.11/src/cmd/internal/obj/x86/obj6.go#L1120>
    fn stack_check(&self) -> Option<usize> {
        let mut compared = false;
        for (i, instruction) in self.code.iter().take(MAX_PROLOGUE).enumerate() {
            match instruction.mnemonic() {
                Mnemonic::Lea | Mnemonic::Mov | Mnemonic::Sub if touches(instruction, Register::R12) => {}
                Mnemonic::Cmp if instruction.memory_base() == Register::R14 => compared = true,
                Mnemonic::Jb => {}
                Mnemonic::Jbe if compared => return Some(i),
                _ => return None,
            }
        }
        None
    }
}

/// Index of the instruction that is hit once per call.
enum BehindCheck {
    /// `push %rbp` after the check.
    Push(usize),
    /// The jump of the check itself, which is hit again after the stack has grown.
    Jump(usize),
}

fn touches(instruction: &Instruction, register: Register) -> bool {
    instruction.op0_kind() == OpKind::Register && instruction.op0_register() == register
}

fn price(instruction: &Instruction) -> Price {
    // https://github.com/torvalds/linux/blob/v6.12/arch/x86/kernel/uprobes.c (branch_setup_xol_ops,
    // push_setup_xol_ops)
    let emulated = instruction.is_jcc_short_or_near()
        || instruction.is_jmp_short_or_near()
        || instruction.is_call_near()
        || matches!(instruction.code(), Code::Push_r64)
        || instruction.mnemonic() == Mnemonic::Nop && instruction.len() == 1;
    if emulated { Price::Emulated } else { Price::Stepped }
}

struct Planner<'a> {
    bin: &'a GoBinary,
    plan: ProbePlan,
}

/// What to look for and report: the fields that all outcomes of planning one site have in common.
struct Purpose {
    name: &'static str,
    program: &'static str,
    symbol: &'static str,
    lost: &'static str,
    flags: u32,
}

impl Planner<'_> {
    fn leave_out(&mut self, purpose: &Purpose, reason: impl Into<String>) {
        let (name, symbol, lost) = (purpose.name, purpose.symbol.to_owned(), purpose.lost);
        self.plan.left_out.push(LeftOut { name, symbol, reason: reason.into(), lost });
    }

    fn place(&mut self, purpose: &Purpose, func: Func<'_>, at: &Instruction, flags: u32, why: &'static str) {
        let address = at.ip();
        let bytes = self.bin.code(address, address + at.len() as u64).map(<[u8]>::to_vec);
        let (Some(bytes), Some(file_offset)) = (bytes, self.bin.file_offset(address)) else {
            return self.leave_out(purpose, "its code is not in the file");
        };
        let mut instruction = String::new();
        disasm::formatter().format(at, &mut instruction);
        self.plan.sites.push(Site {
            name: purpose.name,
            program: purpose.program,
            symbol: func.name().into_owned(),
            address,
            offset: address - func.entry(),
            file_offset,
            bytes,
            instruction,
            price: price(at),
            flags: purpose.flags | flags,
            why,
        });
    }

    /// Places a probe at the start of a function, hit once per call.
    fn start(&mut self, purpose: &Purpose) {
        let body = match Body::decode(self.bin, purpose.symbol) {
            Ok(body) => body,
            Err(reason) => return self.leave_out(purpose, reason),
        };
        let Some(first) = body.code.first() else { return self.leave_out(purpose, "it has no code") };
        match body.behind_check() {
            None => self.place(purpose, body.func, first, 0, ENTRY),
            Some(BehindCheck::Push(at)) => self.place(purpose, body.func, &body.code[at], 0, AFTER_CHECK),
            Some(BehindCheck::Jump(at)) => {
                self.place(purpose, body.func, &body.code[at], site::ON_STACK_CHECK, ON_CHECK);
            }
        }
    }

    /// Places probes in the loop `for { fn, ok := p.nextDefer(); if !ok { break }; fn() }` of Go 1.22 and
    /// later, in `symbol`.
    fn next_defer_loop(&mut self, symbol: &'static str, flags: u32) {
        let lost = "deferred calls";
        let begin = Purpose { name: "deferred call begins", program: "defer_begin", symbol, lost, flags };
        let end = Purpose { name: "deferred call ends", program: "defer_end", symbol, lost, flags };
        let body = match Body::decode(self.bin, symbol) {
            Ok(body) => body,
            Err(reason) => return self.leave_out(&begin, reason),
        };
        let Some(target) = self.bin.function("runtime.(*_panic).nextDefer") else {
            return self.leave_out(&begin, "runtime.(*_panic).nextDefer is not in the binary");
        };
        let calls = |i: &Instruction| i.is_call_near() && i.near_branch_target() == target.entry();
        let Some(call) = body.index_of(calls) else {
            return self.leave_out(&begin, "it does not call nextDefer as expected");
        };
        let tests_bl = |i: &Instruction| {
            i.mnemonic() == Mnemonic::Test
                && i.op0_register() == Register::BL
                && i.op1_register() == Register::BL
        };
        let jump = body
            .index_after(call, 3, tests_bl)
            .and_then(|test| body.index_after(test, 2, Instruction::is_jcc_short_or_near));
        let Some(jump) = jump else {
            return self.leave_out(&begin, "the code after nextDefer is not as expected");
        };
        let why = "the jump on nextDefer's result: RAX is the closure when BL is set";
        self.place(&begin, body.func, &body.code[jump], site::CLOSURE_RAX_IF_BL, why);
        let why = "a call of nextDefer means that the previous deferred call returned";
        let argp_tells = if self.bin.layout().panic.argp == Some(0) { site::ARGP_TELLS } else { 0 };
        self.place(&end, body.func, &body.code[call], argp_tells, why);
    }

    /// Places probes at deferred calls before Go 1.22: `deferCallSave` (open-coded ones, and all of Goexit's)
    /// and gopanic's own call.
    fn old_defers(&mut self) {
        let lost = "deferred calls";
        let name = "deferred call begins";
        let (program, symbol) = ("defer_begin", "runtime.deferCallSave");
        self.start(&Purpose { name, program, symbol, lost, flags: site::CLOSURE_RBX });
        let end =
            |symbol| Purpose { name: "deferred call ends", program: "defer_end", symbol, lost, flags: 0 };
        let indirect = |i: &Instruction| i.mnemonic() == Mnemonic::Call && i.op0_kind() == OpKind::Register;

        let purpose = end(symbol);
        match Body::decode(self.bin, symbol) {
            Err(reason) => self.leave_out(&purpose, reason),
            Ok(body) => {
                let jump = body
                    .index_of(indirect)
                    .and_then(|call| body.index_after(call, 4, Instruction::is_jcc_short_or_near));
                match jump {
                    Some(at) => {
                        self.place(&purpose, body.func, &body.code[at], 0, "the first jump after the call")
                    }
                    None => self.leave_out(&purpose, "the code after the call is not as expected"),
                }
            }
        }

        let symbol = "runtime.gopanic";
        let begin = Purpose { name, program, symbol, lost, flags: site::CLOSURE_G_DEFER };
        let purpose = end(symbol);
        let body = match Body::decode(self.bin, symbol) {
            Ok(body) => body,
            Err(reason) => return self.leave_out(&begin, reason),
        };
        let getargp = self.bin.function("runtime.getargp").map(|f| f.entry());
        let prepares = |i: &Instruction| i.is_call_near() && Some(i.near_branch_target()) == getargp;
        match body.index_of(prepares) {
            Some(at) => self.place(
                &begin,
                body.func,
                &body.code[at],
                0,
                "right before the call: g._defer is the record",
            ),
            None => self.leave_out(&begin, "it does not call getargp as expected"),
        }
        // `if gp._defer != d { throw("bad defer entry in panic") }` follows every deferred call.
        let defer_offset = u64::from(self.bin.layout().g.defer);
        let compares =
            |i: &Instruction| i.mnemonic() == Mnemonic::Cmp && i.memory_displacement64() == defer_offset;
        let jump = body
            .index_of(indirect)
            .and_then(|call| body.index_after(call, 10, compares))
            .and_then(|compare| body.index_after(compare, 1, Instruction::is_jcc_short_or_near));
        match jump {
            Some(at) => self.place(&purpose, body.func, &body.code[at], 0, "the check that follows the call"),
            None => self.leave_out(&purpose, "the code after the call is not as expected"),
        }
    }

    /// Places a probe at gorecover's last conditional jump before `p.recovered = true`.
    fn recover(&mut self) {
        let purpose = Purpose {
            name: "recover succeeded",
            program: "recover",
            symbol: "runtime.gorecover",
            lost: "which function recovered, and when",
            flags: 0,
        };
        let body = match Body::decode(self.bin, purpose.symbol) {
            Ok(body) => body,
            Err(reason) => return self.leave_out(&purpose, reason),
        };
        let recovered = u64::from(self.bin.layout().panic.recovered);
        let sets = |i: &Instruction| {
            i.mnemonic() == Mnemonic::Mov
                && i.op0_kind() == OpKind::Memory
                && i.memory_displacement64() == recovered
                && i.op1_kind() == OpKind::Immediate8
                && i.immediate8() == 1
        };
        let jump = body
            .index_of(sets)
            .and_then(|store| (0..store).rev().find(|&i| body.code[i].is_jcc_short_or_near()));
        let flags = jump.and_then(|at| match body.code[at].mnemonic() {
            // A jump that is not taken means success.
            Mnemonic::Jne => Some(site::SUCCESS_IF_ZF),
            Mnemonic::Je => Some(0),
            _ => None,
        });
        match jump.zip(flags) {
            Some((at, flags)) => {
                let why = "the last jump before the panic is marked recovered; its flags show whether recover succeeds";
                self.place(&purpose, body.func, &body.code[at], flags, why);
            }
            None => self.leave_out(&purpose, "its code is not as expected"),
        }
    }
}

/// Plans the probes of `bin`.
pub fn plan(bin: &GoBinary) -> ProbePlan {
    let mut planner = Planner { bin, plan: ProbePlan::default() };
    if bin.arch() != Arch::Amd64 {
        let purpose = Purpose {
            name: "panic raised",
            program: "gopanic",
            symbol: "runtime.gopanic",
            lost: "everything",
            flags: 0,
        };
        planner.leave_out(&purpose, format!("{} programs cannot be probed yet", bin.arch().name()));
        return planner.plan;
    }
    let start = |name, program, symbol, lost, flags| Purpose { name, program, symbol, lost, flags };
    planner.start(&start("panic raised", "gopanic", "runtime.gopanic", "everything", 0));
    if bin.version().release.has_next_defer() {
        planner.next_defer_loop("runtime.gopanic", 0);
        planner.next_defer_loop("runtime.Goexit", site::IN_GOEXIT);
    } else {
        planner.old_defers();
    }
    planner.recover();
    planner.start(&start("panic recovered", "recovery", "runtime.recovery", "recoveries", 0));
    planner.start(&start("throw", "throw", "runtime.throw", "throws", 0));
    planner.start(&start("fatal error", "throw", "runtime.fatal", "fatal errors", site::IS_FATAL));
    planner.start(&start("dying", "dopanic", "runtime.dopanic_m", "the stack as Go prints it", 0));
    let has_fatalsignal = bin.function("runtime.fatalsignal").is_some();
    let flags = if has_fatalsignal { 0 } else { site::NO_FATALSIGNAL };
    planner.start(&start("signal", "sighandler", "runtime.sighandler", "registers at a fault", flags));
    if has_fatalsignal {
        planner.start(&start("fatal signal", "fatalsignal", "runtime.fatalsignal", "deaths by a signal", 0));
    } else {
        let lost = "deaths by a signal";
        planner.start(&start("dying begins", "startpanic", "runtime.startpanic_m", lost, 0));
    }
    planner.start(&start("goroutine exit", "goexit", "runtime.Goexit", "Goexit during a panic", 0));
    planner.start(&start("process exit", "exit", "runtime.exit", "the caller of os.Exit", 0));
    planner.plan
}
