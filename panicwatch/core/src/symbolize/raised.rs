//! Results of [`crate::go::raises`] as a document and as text; addresses are run-time addresses here.

use serde::Serialize;

use crate::{
    go::raises::{self, Seen},
    incident::{Addr, escape::one_line},
};

/// An instruction that raises.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Raised {
    /// Address of the raising instruction.
    pub at: Addr,
    /// Disassembly of the instruction, AT&T syntax.
    pub instruction: String,
    /// Kind of panic: `bounds`, `nil_dereference` …
    pub kind: &'static str,
    /// Whether it always raises: `always`, `in_callee`, `fault`.
    pub certainty: &'static str,
    /// The called function; null for a fault.
    pub by: Option<String>,
    /// The conditional jumps that decide whether it is reached.
    pub checks: Vec<Check>,
    /// The values that decide whether it raises; uncertain ones are omitted.
    pub operands: Vec<Operand>,
    /// Static type of the value passed to panic, or the asserted type.
    #[serde(rename = "type")]
    pub type_name: Option<String>,
    /// Constant text passed to panic, throw or fatal.
    pub message: Option<String>,
    /// The function whose source contains the instruction.
    pub function: Option<String>,
    /// Path of the source file.
    pub file: Option<String>,
    /// Line in `file`.
    pub line: Option<u32>,
    /// A sentence that describes all this.
    pub words: String,
    /// Alternative interpretation of the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<Box<Raised>>,
}

/// A conditional jump that decides whether the instruction is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Address of the jump.
    pub jump: Addr,
    /// Address of the instruction whose flags the jump tests.
    pub compare: Option<Addr>,
    /// Whether taking the jump leads to the raise; otherwise not taking it does.
    pub raises_if_taken: bool,
    /// Compare instruction and mnemonic of the jump.
    pub text: String,
}

/// A value that decides whether the instruction raises.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Operand {
    /// Role in the check.
    pub role: &'static str,
    /// Register, constant, memory operand or type.
    pub what: String,
    /// Instruction at which `what` is valid: `compare`, `call`, `fault`.
    pub seen: &'static str,
}

impl Raised {
    /// Converts a result for a program with load bias `bias`.
    pub fn new(found: &raises::RaisedBy, bias: u64) -> Self {
        let at = |link: u64| Addr(link.wrapping_add(bias));
        let check = |c: &raises::Check| Check {
            jump: at(c.jump),
            compare: c.compare.map(at),
            raises_if_taken: c.raises_if_taken,
            text: c.text.clone(),
        };
        let operand = |o: &raises::Operand| Operand {
            role: o.role,
            what: o.what.clone(),
            seen: match o.seen {
                Seen::Compare => "compare",
                Seen::Call => "call",
                Seen::Fault => "fault",
            },
        };
        Self {
            at: at(found.at),
            instruction: found.instruction.clone(),
            kind: found.kind.as_str(),
            certainty: found.certainty.as_str(),
            by: found.by.clone(),
            checks: found.checks.iter().map(check).collect(),
            operands: found.operands.iter().map(operand).collect(),
            type_name: found.type_name.clone(),
            message: found.message.clone(),
            function: found.function.clone(),
            file: found.file.clone(),
            line: found.line,
            words: found.words.clone(),
            otherwise: found.otherwise.as_ref().map(|other| Box::new(Self::new(other, bias))),
        }
    }

    /// Returns indented lines for display.
    pub fn text(&self) -> String {
        let place = match (&self.file, self.line) {
            (Some(file), Some(line)) => format!("  {}:{line}", one_line(file)),
            _ => String::new(),
        };
        let mut out = format!("    {}{place}\n      {}\n", self.at, one_line(&self.words));
        if let Some(other) = &self.otherwise {
            out += "    or, read as the next instruction:\n";
            out += &other.text();
        }
        out
    }
}
