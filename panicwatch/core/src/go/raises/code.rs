//! One function's instructions and the ways through them: which jumps lead where, and which one decided that a given
//! instruction is reached.
//!
//! Knows x86-64 and nothing of Go but its stack check. Must not know what raises.

use std::cell::Cell;

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

use super::Unknown;

/// Longer functions are not decoded: some 20 MB of instructions.
pub(super) const MAX_CODE: u64 = 2 << 20;
/// Instructions between a check and what it guards.
const MAX_PATH: usize = 256;
/// Ways that lead to one instruction; more are not told apart.
const MAX_ARRIVALS: usize = 16;
/// Blocks walked backwards in search of them.
const MAX_BLOCKS: usize = 64;
/// Steps backwards in one function altogether, besides so many for each instruction: real code needs a fraction.
const MAX_STEPS: usize = 1 << 20;
const STEPS_EACH: usize = 64;
/// Instructions looked at behind a jump.
const MAX_AHEAD: usize = 64;

/// A function's instructions, decoded once from its entry.
#[derive(Debug)]
pub(super) struct Body {
    code: Vec<Instruction>,
    /// Jumps inside the function: index of the target, index of the jump; sorted.
    jumps: Vec<(usize, usize)>,
    end: u64,
    /// What is left of the steps backwards: hostile code shall not take for ever.
    steps: Cell<usize>,
}

/// One way to an instruction: the conditional jump that decided for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrival {
    /// Index of the jump.
    pub(super) jump: usize,
    /// It leads there when it is taken, else when it is not.
    pub(super) taken: bool,
    /// What runs between the jump and the instruction, in order.
    pub(super) path: Vec<usize>,
    /// Other instructions run on the way too: a branch that came together again.
    pub(super) gap: bool,
}

/// The ways to one instruction.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Arrivals {
    /// Those that a conditional jump decided.
    pub(super) decided: Vec<Arrival>,
    /// It is (also) reached from the function's start without a condition, but for the stack check: what runs
    /// before, in order.
    pub(super) plain: Vec<Vec<usize>>,
    /// There are ways that were not followed: a jump table, or too many.
    pub(super) incomplete: bool,
}

impl Body {
    /// Decodes `bytes`, which lie at `entry`.
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

    /// Takes one step of those left.
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

    /// Instruction `i`.
    pub(super) fn get(&self, i: usize) -> Option<&Instruction> {
        self.code.get(i)
    }

    /// The instruction that begins at `address`.
    pub(super) fn index_of(&self, address: u64) -> Option<usize> {
        self.code.binary_search_by_key(&address, Instruction::ip).ok()
    }

    /// The instruction whose bytes hold `address`.
    pub(super) fn holding(&self, address: u64) -> Option<usize> {
        let i = self.code.partition_point(|c| c.ip() <= address).checked_sub(1)?;
        (address < self.code[i].next_ip()).then_some(i)
    }

    /// Where a call or jump of instruction `i` leads, when that is outside this function.
    pub(super) fn leaves_for(&self, i: usize) -> Option<u64> {
        let code = self.code.get(i)?;
        let direct = code.is_call_near() || code.is_jmp_short_or_near();
        let target = direct.then(|| code.near_branch_target())?;
        // A recursive call is one of this function's entry.
        let inside = (self.code.first()?.ip()..self.end).contains(&target);
        (!inside || code.is_call_near()).then_some(target)
    }

    /// Jumps to instruction `i`.
    pub(super) fn jumps_to(&self, i: usize) -> impl Iterator<Item = usize> + '_ {
        let from = self.jumps.partition_point(|j| j.0 < i);
        self.jumps[from..].iter().take_while(move |j| j.0 == i).map(|j| j.1)
    }

    /// Control can come to `i` otherwise than from the instruction in front of it.
    pub(super) fn is_leader(&self, i: usize) -> bool {
        self.jumps_to(i).next().is_some()
    }

    /// The ways to instruction `i`. `stops(j)`: instruction `j` does not return to the one behind it.
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

    /// The same with branches left out whose both arms lead to the instruction: they decide nothing.
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

    /// Walks back from `at` to where control came from; `path` is what has been walked, last first.
    fn back(
        &self,
        mut at: usize,
        mut path: Vec<usize>,
        stops: &dyn Fn(usize) -> bool,
        out: &mut Arrivals,
        open: &mut Vec<(usize, Vec<usize>)>,
        seen: &mut Vec<usize>,
    ) {
        // Nothing but padding lies between here and the label behind it.
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
                // Nothing falls into it: without a jump to it, it is a case of a jump table or never reached.
                out.incomplete |= !padding;
                return;
            }
            padding &= instruction.mnemonic() == Mnemonic::Nop;
            path.push(before);
            at = before;
        }
    }

    /// The conditional jump of the prologue that leads to morestack.
    /// <https://github.com/golang/go/blob/go1.24.11/src/cmd/internal/obj/x86/obj6.go> stacksplit
    pub(super) fn is_stack_check(&self, jump: usize) -> bool {
        let compares = |i: usize| {
            self.code.get(i).is_some_and(|c| {
                (0..c.op_count()).any(|n| c.op_kind(n) == OpKind::Memory) && c.memory_base() == Register::R14
            })
        };
        jump < 12 && (jump.saturating_sub(2)..jump).any(compares)
    }

    /// The straight run of instructions that ends in front of `i`, in order: none but the first of them is jumped to.
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

    /// The first instruction from `from` on, along the straight way, for which `wanted` holds; the way follows jumps
    /// and ends at what may lead elsewhere.
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

    /// Where a conditional jump leads: taken, and not taken.
    pub(super) fn arms(&self, jump: usize) -> Option<[Option<usize>; 2]> {
        let instruction = self.code.get(jump).filter(|i| i.is_jcc_short_or_near())?;
        Some([self.index_of(instruction.near_branch_target()), Some(jump + 1)])
    }
}

fn is_branch(instruction: &Instruction) -> bool {
    instruction.is_jcc_short_or_near() || instruction.is_jmp_short_or_near()
}

/// Control does not go on behind it.
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
