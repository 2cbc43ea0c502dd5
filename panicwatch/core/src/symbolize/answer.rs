//! The complete answer for one address: frames, and on request instructions and what raises there.

use serde::Serialize;

use super::{Lookup, Resolved, Symbolizer, listing, raised::Raised, text};
use crate::{go::raises, incident::escape::one_line};

/// Number of instructions shown on each side.
const AROUND: usize = 6;

/// What is requested in addition to frames.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Whether to include the instructions around the address.
    pub listing: bool,
    /// Whether to include what raises a panic there.
    pub raised_by: RaisedBy,
}

/// Scope of the search for what raises a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RaisedBy {
    /// The instructions were not requested.
    #[default]
    Nothing,
    /// The instruction to which the address refers.
    Here,
    /// Every instruction of the function.
    Everywhere,
}

/// The answer for one address.
#[derive(Debug, Clone, Serialize)]
pub struct Answer {
    /// Frames: function, file, line.
    #[serde(flatten)]
    pub resolved: Resolved,
    /// The instructions around it, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<Vec<listing::Line>>,
    /// Why there are no instructions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions_reason: Option<String>,
    /// What raises a panic there, or anywhere in the function, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raised_by: Option<Vec<Raised>>,
    /// Why it is unknown what raises.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raised_by_reason: Option<String>,
}

impl From<Resolved> for Answer {
    fn from(resolved: Resolved) -> Self {
        Self {
            resolved,
            instructions: None,
            instructions_reason: None,
            raised_by: None,
            raised_by_reason: None,
        }
    }
}

/// Returns the answer for the run-time address `address`.
pub fn give(symbolizer: &Symbolizer<'_>, address: u64, lookup: Lookup, wanted: Wanted) -> Answer {
    let mut answer = Answer::from(symbolizer.resolve(address, lookup));
    if wanted.listing && answer.resolved.reason.is_none() {
        match listing::around(symbolizer, address, lookup, AROUND, AROUND) {
            Ok(lines) => answer.instructions = Some(lines),
            Err(reason) => answer.instructions_reason = Some(reason.to_string()),
        }
    }
    let (bin, bias) = (symbolizer.binary(), symbolizer.bias());
    let pc = address.wrapping_sub(bias);
    let raised = |found: &raises::RaisedBy| Raised::new(found, bias);
    match wanted.raised_by {
        RaisedBy::Nothing => {}
        RaisedBy::Here => match raises::raised_by(bin, pc) {
            Ok(found) => answer.raised_by = Some(vec![raised(&found)]),
            Err(reason) => answer.raised_by_reason = Some(reason.to_string()),
        },
        RaisedBy::Everywhere => {
            let found = bin.find_func(pc).map(|func| raises::all_in(bin, func)).unwrap_or_default();
            answer.raised_by = Some(found.iter().map(raised).collect());
        }
    }
    answer
}

impl Answer {
    /// Returns the answer as text for display.
    pub fn text(&self, source: &mut dyn FnMut(&str, u32) -> Option<String>) -> String {
        let mut out = text::resolved(&self.resolved);
        if let Some(lines) = &self.instructions {
            out += &text::listing(lines, source);
        }
        if let Some(reason) = &self.instructions_reason {
            out += &format!("    no instructions: {}\n", one_line(reason));
        }
        match self.raised_by.as_deref() {
            Some([]) => out += "    nothing in this function raises a panic\n",
            found => found.unwrap_or_default().iter().for_each(|raised| out += &raised.text()),
        }
        if let Some(reason) = &self.raised_by_reason {
            out += &format!("    {}\n", one_line(reason));
        }
        out
    }
}

/// Returns the line for a request that is not an address.
pub fn refusal(asked: &str, reason: &dyn std::fmt::Display) -> String {
    format!("{} ?? {}\n", one_line(asked), one_line(&reason.to_string()))
}
