//! Plans the probe sites of `trace`: the entry of each function, and its exits if requested.
//!
//! Pure, from the binary's bytes alone; sites that cannot be placed are left out with the reason. Knows
//! neither arguments nor the use of the hits.

use iced_x86::{Code, FlowControl, Instruction, InstructionInfoFactory, OpAccess};

use super::{BehindCheck, Body, Price, price};
use crate::go::{
    disasm::INTEGER_REGISTERS,
    gobin::{Func, FuncId, GoBinary},
    pattern::Pattern,
};

/// Most bytes of a function that are decoded to find its exits.
const MAX_CODE: u64 = 4 << 20;
/// Number of instructions, in a function without a stack check, that are searched for one cheaper than the
/// first.
const MAX_STRAIGHT: usize = 16;

/// Event that a hit of the site means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tells {
    /// A call begins.
    Entry,
    /// A call returns.
    Return,
    /// The function tail-calls another, which returns in its place.
    TailCall,
}

/// One probe site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceSite {
    /// Index into [`TracePlan::functions`].
    pub function: u32,
    /// Event that a hit means.
    pub tells: Tells,
    /// Link-time address of the instruction.
    pub address: u64,
    /// File offset of the instruction.
    pub file_offset: u64,
    /// The instruction's bytes, compared with the file's before attaching.
    pub bytes: Vec<u8>,
    /// Cost class of a hit.
    pub price: Price,
    /// Whether the instruction is the jump of the stack check.
    pub on_check: bool,
    /// Distance from the stack pointer up to the return address, in bytes.
    pub below: u32,
}

/// A function with an entry site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceFunction {
    /// Name in the function table.
    pub symbol: String,
    /// Name as Go prints it.
    pub name: String,
    /// Link-time address of the entry.
    pub entry: u64,
    /// Source file, if the line table has it.
    pub file: Option<String>,
    /// Source line at which the function starts.
    pub line: Option<u32>,
    /// Why some exits are not seen, if exits are requested.
    pub exits_missing: Option<&'static str>,
    /// Bits of the argument registers, by their number in Go's ABI, that are overwritten before the entry
    /// site; usually none.
    pub overwritten: u16,
    /// Link-time address of the entry site.
    pub site: u64,
}

/// All probe sites of a tracing session in one binary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TracePlan {
    /// Functions by the index that cookies and counters use.
    pub functions: Vec<TraceFunction>,
    /// Sites in the order of the functions, the entry first.
    pub sites: Vec<TraceSite>,
    /// Selected functions that cannot be traced: name and reason.
    pub refused: Vec<(String, &'static str)>,
}

impl TracePlan {
    /// Returns how many sites the kernel emulates, and how many it single-steps.
    pub fn prices(&self, tells: impl Fn(Tells) -> bool) -> (usize, usize) {
        let sites = self.sites.iter().filter(|site| tells(site.tells));
        let emulated = sites.clone().filter(|site| site.price == Price::Emulated).count();
        (emulated, sites.count() - emulated)
    }
}

/// Requirements on the sites.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Whether to probe exits, too.
    pub exits: bool,
    /// Whether the argument registers must be intact at the entry site.
    pub arguments: bool,
}

/// Reports whether one of `patterns` matches the function, by its name in the table or as Go prints it.
pub fn is_named(func: &Func<'_>, patterns: &[Pattern]) -> bool {
    let (name, shown) = (func.name(), func.display_name());
    patterns.iter().any(|pattern| pattern.matches(&name) || name != shown && pattern.matches(&shown))
}

/// Plans the sites of the functions that `select` accepts.
pub fn trace_plan(bin: &GoBinary, select: &dyn Fn(&Func<'_>) -> bool, wanted: Wanted) -> TracePlan {
    let mut plan = TracePlan::default();
    for func in bin.functions() {
        if !select(&func) {
            continue;
        }
        let name = func.display_name().into_owned();
        // An ABI wrapper has the same name as its function; only the function is traced.
        if func.func_id() == FuncId::Wrapper && bin.function(&func.name()).is_some_and(|body| body != func) {
            continue;
        }
        match refusal(&func).map_or_else(|| place(bin, func, wanted, plan.functions.len() as u32), Err) {
            Ok((function, sites)) => {
                plan.functions.push(function);
                plan.sites.extend(sites);
            }
            Err(reason) => plan.refused.push((name, reason)),
        }
    }
    plan
}

/// Name prefixes of packages whose assembly switches stacks, handles signals, or runs before there is a
/// goroutine.
const RUNTIME: [&str; 5] = ["runtime.", "runtime/", "internal/runtime/", "internal/cpu.", "_rt0_"];

/// Returns why a function must not be probed at all.
fn refusal(func: &Func<'_>) -> Option<&'static str> {
    let name = func.name();
    if !func.has_spdelta() {
        return Some("it is not Go code");
    }
    if func.writes_sp() {
        return Some("it switches stacks");
    }
    if func.is_asm() && RUNTIME.iter().any(|package| name.starts_with(package)) {
        return Some(
            "it is the runtime's assembly, which runs while stacks are switched and in signal handlers",
        );
    }
    None
}

type Placed = (TraceFunction, Vec<TraceSite>);

fn place(bin: &GoBinary, func: Func<'_>, wanted: Wanted, number: u32) -> Result<Placed, &'static str> {
    let max = if wanted.exits { MAX_CODE } else { super::MAX_CODE };
    let body = Body::of(bin, func, max).map_err(|_| "its code is not in the file")?;
    let (at, on_check) = match body.behind_check() {
        Some(BehindCheck::Push(at)) => (at, false),
        Some(BehindCheck::Jump(at)) => (at, true),
        None => (without_check(&body, wanted.arguments), false),
    };
    let instruction = body.code.get(at).ok_or("it has no code")?;
    let spdelta = |pc| func.spdelta(pc).and_then(|delta| u32::try_from(delta).ok());
    let below = spdelta(instruction.ip()).ok_or("the location of its return address is unknown")?;
    let site = |instruction: &Instruction, tells, below| site(bin, number, instruction, tells, below);
    let mut entry = site(instruction, Tells::Entry, below)?;
    entry.on_check = on_check;
    let mut sites = vec![entry];
    let mut exits_missing = None;
    if wanted.exits {
        match exits(&body) {
            Ok(exits) => {
                for (at, tells) in exits {
                    let below = if tells == Tells::Return { Some(0) } else { spdelta(at.ip()) };
                    sites.push(site(
                        at,
                        tells,
                        below.ok_or("the location of its return address is unknown")?,
                    )?);
                }
            }
            Err(reason) => exits_missing = Some(reason),
        }
    }
    let place = func.file_line(func.entry());
    let line = func.start_line().or(place.as_ref().map(|(_, line)| *line));
    let function = TraceFunction {
        symbol: func.name().into_owned(),
        name: func.display_name().into_owned(),
        entry: func.entry(),
        file: place.map(|(file, _)| file.into_owned()),
        line,
        exits_missing,
        overwritten: overwritten(&body.code[..at]),
        site: body.code[at].ip(),
    };
    Ok((function, sites))
}

fn site(
    bin: &GoBinary,
    function: u32,
    instruction: &Instruction,
    tells: Tells,
    below: u32,
) -> Result<TraceSite, &'static str> {
    let address = instruction.ip();
    let bytes = bin.code(address, address + instruction.len() as u64).map(<[u8]>::to_vec);
    let (Some(bytes), Some(file_offset)) = (bytes, bin.file_offset(address)) else {
        return Err("its code is not in the file");
    };
    // <https://github.com/torvalds/linux/blob/v6.12/arch/x86/kernel/uprobes.c> (is_prefix_bad)
    if instruction.has_lock_prefix() {
        return Err("the kernel accepts no probe on its first instruction");
    }
    // The cookie has 24 bits for `below`.
    if below >= 1 << 24 {
        return Err("its frame is too large");
    }
    let price = price(instruction);
    Ok(TraceSite { function, tells, address, file_offset, bytes, price, on_check: false, below })
}

/// Returns the index of the first instruction that the kernel emulates and that is executed once per call: in
/// straight-line code from the entry, not the target of a jump. If there is none, that of the first
/// instruction.
fn without_check(body: &Body<'_>, arguments: bool) -> usize {
    for (i, instruction) in body.code.iter().take(MAX_STRAIGHT).enumerate() {
        if price(instruction) == Price::Emulated {
            let entry = body.func.entry();
            let jumped_to = body.code.iter().any(|jump| {
                let near = jump.is_jcc_short_or_near() || jump.is_jmp_short_or_near();
                near && (entry..=instruction.ip()).contains(&jump.near_branch_target())
            });
            let spoilt = arguments && overwritten(&body.code[..i]) != 0;
            return if jumped_to || spoilt { 0 } else { i };
        }
        if instruction.flow_control() != FlowControl::Next {
            break;
        }
    }
    0
}

/// Returns the bits of the argument registers that these instructions write.
fn overwritten(code: &[Instruction]) -> u16 {
    let mut factory = InstructionInfoFactory::new();
    let mut bits = 0;
    for instruction in code {
        for used in factory.info(instruction).used_registers() {
            let writes = matches!(
                used.access(),
                OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
            );
            let number =
                INTEGER_REGISTERS.iter().position(|register| *register == used.register().full_register());
            bits |= number.filter(|_| writes).map_or(0, |number| 1 << number);
        }
    }
    bits
}

/// Returns every instruction that ends a call.
fn exits<'b>(body: &'b Body<'_>) -> Result<Vec<(&'b Instruction, Tells)>, &'static str> {
    let (entry, end) = (body.func.entry(), body.func.end());
    if body.code.last().is_none_or(|last| last.next_ip() < end) {
        return Err("it is too long to search for every return");
    }
    let mut exits = Vec::new();
    for instruction in &body.code {
        if instruction.is_invalid() {
            return Err("its code cannot be decoded completely");
        }
        let leaves = || !(entry..end).contains(&instruction.near_branch_target());
        if matches!(instruction.code(), Code::Retnq | Code::Retnq_imm16) {
            exits.push((instruction, Tells::Return));
        } else if instruction.is_jmp_short_or_near() && leaves() {
            exits.push((instruction, Tells::TailCall));
        } else if instruction.is_jcc_short_or_near() && leaves() {
            return Err("it has a conditional tail call");
        }
    }
    Ok(exits)
}
