//! Plans the probe sites of `init-trace`: from rt0_go through every package's init functions to main.main.
//!
//! The sites are few and cheap: rt0_go's calls and the loop over a task's functions are instructions that the
//! kernel emulates. The init functions have no probes of their own: the jump that closes the loop runs once
//! before each of them and once after the last.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use panicwatch_common::binary::site;

use super::{Body, Planner, ProbePlan, Purpose};
use crate::go::gobin::{Arch, Func, GoBinary};

/// Functions that rt0_go calls, in order.
/// <https://github.com/golang/go/blob/go1.24.11/src/runtime/asm_amd64.s#L159>
const RT0_CALLS: [(&str, &str, u32); 3] = [
    ("schedinit", "runtime.schedinit", site::STEP_SCHEDINIT),
    ("first goroutine", "runtime.newproc", site::STEP_NEWPROC),
    ("first thread", "runtime.mstart", site::STEP_MSTART),
];

/// Registers that hold the task and the index of the function where the loop compares the index with the
/// task's count.
const OPTIMISED: (Register, Register) = (Register::RAX, Register::RSI);
/// The same registers in code built with -gcflags=all=-N.
const PLAIN: (Register, Register) = (Register::RCX, Register::RAX);

/// Plans the probes that `init-trace` needs in addition to those of [`super::plan`].
pub fn init_plan(bin: &GoBinary) -> ProbePlan {
    let mut planner = Planner { bin, plan: ProbePlan::default() };
    if bin.arch() != Arch::Amd64 {
        let purpose = step("start", "runtime.rt0_go", 0);
        planner.leave_out(&purpose, format!("{} programs cannot be probed yet", bin.arch().name()));
        return planner.plan;
    }
    planner.rt0();
    planner.start(&step("runtime.main", "runtime.main", site::STEP_RUNTIME_MAIN));
    planner.tasks();
    planner.start(&step("main.main", "main.main", site::STEP_MAIN));
    planner.plan
}

fn step(name: &'static str, symbol: &'static str, flags: u32) -> Purpose {
    Purpose { name, program: "init_step", symbol, lost: "this startup step", flags }
}

impl Planner<'_> {
    fn rt0(&mut self) {
        let purpose = step("start", "runtime.rt0_go", site::STEP_RT0);
        let body = match Body::decode(self.bin, purpose.symbol) {
            Ok(body) => body,
            Err(reason) => return self.leave_out(&purpose, reason),
        };
        match body.code.first() {
            Some(first) => self.place(&purpose, body.func, first, 0, "runs once, before any Go code"),
            None => self.leave_out(&purpose, "it has no code"),
        }
        for (name, callee, flags) in RT0_CALLS {
            let purpose = step(name, purpose.symbol, flags);
            // The call goes through the ABI wrapper, which has the same name.
            let bin = self.bin;
            let calls = |i: &Instruction| {
                i.is_call_near()
                    && bin.find_func(i.near_branch_target()).is_some_and(|f: Func<'_>| f.name() == callee)
            };
            match body.index_of(calls) {
                Some(at) => {
                    let why = "the call in rt0_go: runs once";
                    self.place(&purpose, body.func, &body.code[at], 0, why);
                }
                None => self.leave_out(&purpose, format!("it does not call {callee} as expected")),
            }
        }
    }

    /// Plans the loop `for i := 0; i < t.nfns; i++ { f() }`: its condition is tested after the call and
    /// entered by a jump.
    fn tasks(&mut self) {
        let symbol =
            if self.bin.moduledata().inittasks.is_some() { "runtime.doInit1" } else { "runtime.doInit" };
        let purpose = Purpose {
            name: "package initialized",
            program: "init_task",
            symbol,
            lost: "the packages and their times",
            flags: 0,
        };
        let body = match Body::decode(self.bin, symbol) {
            Ok(body) => body,
            Err(reason) => return self.leave_out(&purpose, reason),
        };
        let nfns = u64::from(self.bin.layout().init_task.nfns);
        let indirect = |i: &Instruction| i.mnemonic() == Mnemonic::Call && i.op0_kind() == OpKind::Register;
        let pair = |i: &Instruction| (i.memory_base(), i.op1_register().full_register());
        let compares = |i: &Instruction| {
            i.mnemonic() == Mnemonic::Cmp
                && i.op0_kind() == OpKind::Memory
                && i.op1_kind() == OpKind::Register
                && i.memory_index() == Register::None
                && i.memory_displacement64() == nfns
                && [OPTIMISED, PLAIN].contains(&pair(i))
        };
        let jump = body
            .index_of(indirect)
            .and_then(|call| Some((call, body.index_after(call, 10, compares)?)))
            .map(|(call, compare)| (call, compare + 1))
            .filter(|&(call, jump)| {
                // Backwards, to the code that leads to the call.
                body.code.get(jump).is_some_and(|i| {
                    let target = i.near_branch_target();
                    i.mnemonic() == Mnemonic::Ja
                        && target < body.code[call].ip()
                        && body.code[..call].iter().any(|before| before.ip() == target)
                })
            });
        match jump {
            Some((_, at)) => {
                let why =
                    "the jump that closes the loop over a package's functions, taken before each of them";
                let flags = if pair(&body.code[at - 1]) == PLAIN { site::TASK_RCX } else { 0 };
                self.place(&purpose, body.func, &body.code[at], flags, why);
            }
            None => self.leave_out(&purpose, "the loop over a package's functions is not as expected"),
        }
    }
}
