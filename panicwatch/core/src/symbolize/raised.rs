//! What [`crate::go::raises`] found, as a document and for people: addresses are run-time ones here.

use serde::Serialize;

use crate::{
    go::raises::{self, Seen},
    incident::{Addr, escape::one_line},
};

/// A place that raises.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Raised {
    /// The raising instruction.
    pub at: Addr,
    /// Its disassembly.
    pub instruction: String,
    /// What it raises: `bounds`, `nil_dereference` …
    pub kind: &'static str,
    /// `always`, `in_callee`, `fault`.
    pub certainty: &'static str,
    /// The function that it calls.
    pub by: Option<String>,
    /// The conditional jumps that decide whether it is reached.
    pub checks: Vec<Check>,
    /// The values that decide; those that are not certain are absent.
    pub operands: Vec<Operand>,
    /// Static type of the value given to panic, or the type asserted.
    #[serde(rename = "type")]
    pub type_name: Option<String>,
    /// Constant text given to panic, throw or fatal.
    pub message: Option<String>,
    /// The function whose source this is.
    pub function: Option<String>,
    /// Source file.
    pub file: Option<String>,
    /// Source line.
    pub line: Option<u32>,
    /// All that as a sentence.
    pub words: String,
    /// The address can be read in another way as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<Box<Raised>>,
}

/// A conditional jump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The jump.
    pub jump: Addr,
    /// The instruction whose flags it tests.
    pub compare: Option<Addr>,
    /// It raises when the jump is taken, else when it is not.
    pub raises_if_taken: bool,
    /// Both, disassembled.
    pub text: String,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Operand {
    /// What it is to the check.
    pub role: &'static str,
    /// Register, constant, memory, type.
    pub what: String,
    /// Where it is that: `compare`, `call`, `fault`.
    pub seen: &'static str,
}

impl Raised {
    /// Of a program loaded `bias` above its link-time addresses.
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

    /// Lines for people, indented.
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
