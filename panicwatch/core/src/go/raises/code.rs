//! One function's instructions and the paths through them: where jumps lead, and which jump decided that a
//! given instruction is reached.
//!
//! Knows x86-64, and of Go only the stack check. Must not know what raises.

use std::cell::Cell;

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

use super::Unknown;

/// Maximum size of a decoded function in bytes; its instructions take some 20 MB.
pub(super) const MAX_CODE: u64 = 2 << 20;
/// Maximum number of instructions between a check and the instruction that it guards.
const MAX_PATH: usize = 256;
/// Maximum number of paths to one instruction that are distinguished.
const MAX_ARRIVALS: usize = 16;
/// Maximum number of blocks walked backwards to find these paths.
const MAX_BLOCKS: usize = 64;
/// Base limit of backward steps in one function, plus `STEPS_EACH` per instruction: real code needs a
/// fraction.
const MAX_STEPS: usize = 1 << 20;
const STEPS_EACH: usize = 64;
/// Maximum number of instructions examined after a jump.
const MAX_AHEAD: usize = 64;

/// The instructions of a function, decoded once from its entry.
#[derive(Debug)]
pub(super) struct Body {
    code: Vec<Instruction>,
    /// Jumps inside the function as (index of the target, index of the jump), sorted.
    jumps: Vec<(usize, usize)>,
    end: u64,
    /// Remaining backward steps; bounds the time spent on hostile code.
    steps: Cell<usize>,
}

/// One path to an instruction, with the conditional jump that decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrival {
    /// Index of the jump.
    pub(super) jump: usize,
    /// Whether the path follows the jump when it is taken; otherwise when it is not.
    pub(super) taken: bool,
    /// Indices of the instructions that run between the jump and the instruction, in order.
    pub(super) path: Vec<usize>,
    /// Whether further instructions run on the path: branches that merged again.
    pub(super) gap: bool,
}

/// The paths to one instruction.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Arrivals {
    /// Paths decided by a conditional jump.
    pub(super) decided: Vec<Arrival>,
    /// Paths from the function's start without a condition other than the stack check: the instructions that
    /// run before, in order.
    pub(super) plain: Vec<Vec<usize>>,
    /// Whether some paths were not followed: a jump table, or too many paths.
    pub(super) incomplete: bool,
}

impl Body {
    /// Decodes `bytes`, which are located at `entry`.
    pub(super) fn decode(entry: u64, bytes: &[u8]) -> Result<Self, Unknown> {
        if bytes.len() as u64 > MAX_CODE || entry.checked_add(bytes.len() as u64).is_none() {
            return Err(Unknown(format!("the function at {entry:#x} is longer than {MAX_CODE} bytes")));
        }
        let code: Vec<_> = Decoder::with_ip(64, bytes, entry, DecoderOptions::NONE).into_iter().collect();
        let end = entry + bytes.len() as u64;
        let steps = Cell::new(MAX_STEPS + STEPS_EACH * code.len());
        let mut body = Self { code, jumps: Vec::new(), end, steps };
        let mut jumps: Vec<_> = body
            .code
            .iter()
            .enumerate()
            .filter(|(_, i)| is_branch(i))
            .filter_map(|(at, i)| Some((body.index_of(i.near_branch_target())?, at)))
            .collect();
        jumps.sort_unstable();
        body.jumps = jumps;
        Ok(body)
    }

    /// Takes one of the remaining steps; returns false when none is left.
    fn step(&self) -> bool {
        match self.steps.get().checked_sub(1) {
            Some(left) => {
                self.steps.set(left);
                true
            }
            None => false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.code.len()
    }

    /// Returns instruction `i`.
    pub(super) fn get(&self, i: usize) -> Option<&Instruction> {
        self.code.get(i)
    }

    /// Returns the index of the instruction that begins at `address`.
    pub(super) fn index_of(&self, address: u64) -> Option<usize> {
        self.code.binary_search_by_key(&address, Instruction::ip).ok()
    }

    /// Returns the index of the instruction whose bytes contain `address`.
    pub(super) fn holding(&self, address: u64) -> Option<usize> {
        let i = self.code.partition_point(|c| c.ip() <= address).checked_sub(1)?;
        (address < self.code[i].next_ip()).then_some(i)
    }

    /// Returns the target of a call, or of a jump out of this function, at instruction `i`.
    pub(super) fn leaves_for(&self, i: usize) -> Option<u64> {
        let code = self.code.get(i)?;
        let direct = code.is_call_near() || code.is_jmp_short_or_near();
        let target = direct.then(|| code.near_branch_target())?;
        // A recursive call targets this function's entry.
        let inside = (self.code.first()?.ip()..self.end).contains(&target);
        (!inside || code.is_call_near()).then_some(target)
    }

    /// Returns the indices of the jumps to instruction `i`.
    pub(super) fn jumps_to(&self, i: usize) -> impl Iterator<Item = usize> + '_ {
        let from = self.jumps.partition_point(|j| j.0 < i);
        self.jumps[from..].iter().take_while(move |j| j.0 == i).map(|j| j.1)
    }

    /// Reports whether control can reach `i` other than from the preceding instruction.
    pub(super) fn is_leader(&self, i: usize) -> bool {
        self.jumps_to(i).next().is_some()
    }

    /// Returns the paths to instruction `i`. `stops(j)` reports whether instruction `j` never continues at
    /// the next one.
    pub(super) fn arrivals(&self, i: usize, stops: &dyn Fn(usize) -> bool) -> Arrivals {
        let mut out = Arrivals::default();
        let mut open = vec![(i, Vec::new())];
        let mut seen = vec![i];
        let mut blocks = 0;
        while let Some((at, path)) = open.pop() {
            blocks += 1;
            if blocks > MAX_BLOCKS || out.decided.len() >= MAX_ARRIVALS {
                out.incomplete = true;
                break;
            }
            self.back(at, path, stops, &mut out, &mut open, &mut seen);
        }
        for path in out.decided.iter_mut().map(|a| &mut a.path).chain(&mut out.plain) {
            path.reverse();
        }
        out.decided.sort_by_key(|a| a.jump);
        out
    }

    /// Removes branches whose two arms both lead to the instruction: they decide nothing.
    pub(super) fn deciding(&self, mut ways: Arrivals, stops: &dyn Fn(usize) -> bool) -> Arrivals {
        for _ in 0..MAX_ARRIVALS {
            let both = |a: &&Arrival| ways.decided.iter().any(|b| b.jump == a.jump && b.taken != a.taken);
            let Some(jump) = ways.decided.iter().find(both).map(|a| a.jump) else { return ways };
            ways.decided.retain(|a| a.jump != jump);
            let before = self.arrivals(jump, stops);
            ways.incomplete |= before.incomplete;
            ways.plain.extend(before.plain);
            for mut arrival in before.decided {
                arrival.gap = true;
                let known = |a: &Arrival| (a.jump, a.taken) == (arrival.jump, arrival.taken);
                match ways.decided.iter().position(known) {
                    Some(at) => ways.decided[at].gap = true,
                    None => ways.decided.push(arrival),
                }
            }
        }
        ways.incomplete = true;
        ways
    }

    /// Walks back from `at` to where control came from; `path` is the part already walked, last instruction
    /// first.
    fn back(
        &self,
        mut at: usize,
        mut path: Vec<usize>,
        stops: &dyn Fn(usize) -> bool,
        out: &mut Arrivals,
        open: &mut Vec<(usize, Vec<usize>)>,
        seen: &mut Vec<usize>,
    ) {
        // Only padding separates this position from the label after it.
        let mut padding = false;
        loop {
            if at == 0 {
                out.plain.push(path);
                return;
            }
            if path.len() > MAX_PATH || !self.step() {
                out.incomplete = true;
                return;
            }
            let mut reached = false;
            for jump in self.jumps_to(at) {
                reached = true;
                if self.code[jump].is_jcc_short_or_near() {
                    out.decided.push(Arrival { jump, taken: true, path: path.clone(), gap: false });
                } else if !seen.contains(&jump) {
                    seen.push(jump);
                    open.push((jump, path.clone()));
                }
                if out.decided.len() > MAX_ARRIVALS || open.len() > MAX_BLOCKS {
                    out.incomplete = true;
                    return;
                }
            }
            padding |= reached;
            let before = at - 1;
            let instruction = &self.code[before];
            if instruction.is_jcc_short_or_near() {
                if self.is_stack_check(before) {
                    out.plain.push(path);
                } else {
                    out.decided.push(Arrival { jump: before, taken: false, path, gap: false });
                }
                return;
            }
            if ends_flow(instruction) || stops(before) {
                // Control does not fall through to it: without a jump to it, it is a case of a jump table or
                // unreachable.
                out.incomplete |= !padding;
                return;
            }
            padding &= instruction.mnemonic() == Mnemonic::Nop;
            path.push(before);
            at = before;
        }
    }

    /// Reports whether it is the conditional jump of the prologue that leads to morestack.
    /// <https://github.com/golang/go/blob/go1.24.11/src/cmd/internal/obj/x86/obj6.go> stacksplit
    pub(super) fn is_stack_check(&self, jump: usize) -> bool {
        let compares = |i: usize| {
            self.code.get(i).is_some_and(|c| {
                (0..c.op_count()).any(|n| c.op_kind(n) == OpKind::Memory) && c.memory_base() == Register::R14
            })
        };
        jump < 12 && (jump.saturating_sub(2)..jump).any(compares)
    }

    /// Returns the straight run of instructions that ends before `i`, in order: only the first may be a jump
    /// target.
    pub(super) fn run_before(&self, i: usize) -> Vec<usize> {
        let mut out = Vec::new();
        let mut at = i;
        while at > 0 && out.len() < MAX_PATH && !self.is_leader(at) && self.step() {
            let before = &self.code[at - 1];
            if before.is_jcc_short_or_near() || ends_flow(before) {
                break;
            }
            at -= 1;
            out.push(at);
        }
        out.reverse();
        out
    }

    /// Returns the first instruction from `from` on, along straight-line code, for which `wanted` holds.
    /// Follows unconditional jumps and stops at conditional ones; the error contains the conditional jump, if
    /// one was reached.
    pub(super) fn ahead(&self, from: usize, wanted: &dyn Fn(usize) -> bool) -> Result<usize, Option<usize>> {
        let mut at = from;
        for _ in 0..MAX_AHEAD {
            let Some(instruction) = self.code.get(at) else { return Err(None) };
            if wanted(at) {
                return Ok(at);
            }
            if instruction.is_jcc_short_or_near() {
                return Err(Some(at));
            }
            at = if instruction.is_jmp_short_or_near() {
                match self.index_of(instruction.near_branch_target()) {
                    Some(target) => target,
                    None => return Err(None),
                }
            } else if ends_flow(instruction) {
                return Err(None);
            } else {
                at + 1
            };
        }
        Err(None)
    }

    /// Returns the targets of a conditional jump: taken, and not taken.
    pub(super) fn arms(&self, jump: usize) -> Option<[Option<usize>; 2]> {
        let instruction = self.code.get(jump).filter(|i| i.is_jcc_short_or_near())?;
        Some([self.index_of(instruction.near_branch_target()), Some(jump + 1)])
    }
}

fn is_branch(instruction: &Instruction) -> bool {
    instruction.is_jcc_short_or_near() || instruction.is_jmp_short_or_near()
}

/// Reports whether control never continues at the next instruction.
fn ends_flow(instruction: &Instruction) -> bool {
    let ends = matches!(
        instruction.flow_control(),
        FlowControl::UnconditionalBranch
            | FlowControl::IndirectBranch
            | FlowControl::Return
            | FlowControl::Exception
    );
    ends || instruction.code() == Code::Int3 || instruction.is_invalid()
}
