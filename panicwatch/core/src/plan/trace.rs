//! Where to put the probes of `trace`: the entry of each function, and its exits where these are wanted.
//!
//! Pure, from the binary's bytes alone; what cannot be placed is left out with the reason. Must not know arguments, or what
//! the hits are used for.

use iced_x86::{Code, FlowControl, Instruction, InstructionInfoFactory, OpAccess};

use super::{BehindCheck, Body, Price, price};
use crate::go::{
    disasm::INTEGER_REGISTERS,
    gobin::{Func, FuncId, GoBinary},
    pattern::Pattern,
};

/// Longest function that is decoded for its exits.
const MAX_CODE: u64 = 4 << 20;
/// How far into a function without a stack check a cheaper instruction than the first is looked for.
const MAX_STRAIGHT: usize = 16;

/// What a site tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tells {
    /// A call begins.
    Entry,
    /// A call returns.
    Return,
    /// The function goes on as another one, which returns for it.
    TailCall,
}

/// One place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceSite {
    /// Index into [`TracePlan::functions`].
    pub function: u32,
    /// What for.
    pub tells: Tells,
    /// Link-time address of the instruction.
    pub address: u64,
    /// Where in the file.
    pub file_offset: u64,
    /// The instruction's bytes, compared with the file's before attaching.
    pub bytes: Vec<u8>,
    /// Cost class.
    pub price: Price,
    /// The instruction is the stack check's jump.
    pub on_check: bool,
    /// Bytes that the stack pointer is below the return address.
    pub below: u32,
}

/// A function with an entry site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceFunction {
    /// As in the function table.
    pub symbol: String,
    /// As Go prints it.
    pub name: String,
    /// Link-time address.
    pub entry: u64,
    /// Source file.
    pub file: Option<String>,
    /// Line of the function.
    pub line: Option<u32>,
    /// Why its exits are not all seen, where they are looked at.
    pub exits_missing: Option<&'static str>,
    /// Registers with arguments that are overwritten before the entry site, by their number in Go's ABI: none as a rule.
    pub overwritten: u16,
    /// Link-time address of the entry site.
    pub site: u64,
}

/// All sites.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TracePlan {
    /// By number: what cookies and counters refer to.
    pub functions: Vec<TraceFunction>,
    /// In the order of the functions, entry first.
    pub sites: Vec<TraceSite>,
    /// Functions that were asked for and cannot be traced: name and reason.
    pub refused: Vec<(String, &'static str)>,
}

impl TracePlan {
    /// Number of sites that the kernel emulates, and of those it steps over.
    pub fn prices(&self, tells: impl Fn(Tells) -> bool) -> (usize, usize) {
        let sites = self.sites.iter().filter(|site| tells(site.tells));
        let emulated = sites.clone().filter(|site| site.price == Price::Emulated).count();
        (emulated, sites.count() - emulated)
    }
}

/// What is wanted of the functions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Their exits too.
    pub exits: bool,
    /// Registers must still hold the arguments at the entry site.
    pub arguments: bool,
}

/// Whether one of `patterns` means the function, by the name in the table or as Go prints it.
pub fn is_named(func: &Func<'_>, patterns: &[Pattern]) -> bool {
    let (name, shown) = (func.name(), func.display_name());
    patterns.iter().any(|pattern| pattern.matches(&name) || name != shown && pattern.matches(&shown))
}

/// Plans the functions whose name in the table is selected.
pub fn trace_plan(bin: &GoBinary, select: &dyn Fn(&Func<'_>) -> bool, wanted: Wanted) -> TracePlan {
    let mut plan = TracePlan::default();
    for func in bin.functions() {
        if !select(&func) {
            continue;
        }
        let name = func.display_name().into_owned();
        // Of an ABI adapter and its function, which bear one name, the function is the one that is meant.
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

/// Packages whose assembly switches stacks, handles signals, or runs where there is no goroutine yet.
const RUNTIME: [&str; 5] = ["runtime.", "runtime/", "internal/runtime/", "internal/cpu.", "_rt0_"];

/// Why a function is not touched at all.
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
    let below = spdelta(instruction.ip()).ok_or("where its return address lies is not known")?;
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
                    sites.push(site(at, tells, below.ok_or("where its return address lies is not known")?)?);
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
        return Err("the kernel takes no probe on its first instruction");
    }
    // The cookie has 24 bits for it.
    if below >= 1 << 24 {
        return Err("its frame is too large");
    }
    let price = price(instruction);
    Ok(TraceSite { function, tells, address, file_offset, bytes, price, on_check: false, below })
}

/// The first instruction that the kernel emulates and that is executed once a call: in the straight line from the
/// entry, where no jump goes to. Else the first instruction.
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

/// Which registers of arguments these instructions write to.
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

/// Every instruction that ends a call.
fn exits<'b>(body: &'b Body<'_>) -> Result<Vec<(&'b Instruction, Tells)>, &'static str> {
    let (entry, end) = (body.func.entry(), body.func.end());
    if body.code.last().is_none_or(|last| last.next_ip() < end) {
        return Err("it is too long to look for every return");
    }
    let mut exits = Vec::new();
    for instruction in &body.code {
        if instruction.is_invalid() {
            return Err("its code cannot be decoded as a whole");
        }
        let leaves = || !(entry..end).contains(&instruction.near_branch_target());
        if matches!(instruction.code(), Code::Retnq | Code::Retnq_imm16) {
            exits.push((instruction, Tells::Return));
        } else if instruction.is_jmp_short_or_near() && leaves() {
            exits.push((instruction, Tells::TailCall));
        } else if instruction.is_jcc_short_or_near() && leaves() {
            return Err("it goes on as another function under a condition");
        }
    }
    Ok(exits)
}
