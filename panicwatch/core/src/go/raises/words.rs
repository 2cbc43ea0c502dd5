//! Sentences that describe what raises.
//!
//! Knows the results of the scan. Text of the binary (types, constants) is escaped here.

use super::{
    BoundsCode, Certainty, Kind, Operand, RaisedBy, Seen,
    callee::Callee,
    check::{Decision, Pair, signedness},
    code::Arrivals,
    fault::{Fault, Touch},
    term::{Term, register_text},
};
use crate::incident::escape;

/// Maximum number of characters of a constant text that a sentence quotes.
const MAX_QUOTED: usize = 80;
/// Maximum number of checks that a sentence lists.
const MAX_CHECKS: usize = 3;

/// Describes the condition: " when %rax > 3, signed (cmp $0x3,%rax; jg)". `operands` provide names for the
/// values.
pub(super) fn when(decisions: &[Decision], arrivals: &Arrivals, operands: &[Operand]) -> String {
    let name = |term: &Term| {
        let text = term.text();
        let named =
            |o: &&Operand| o.seen == Seen::Compare && o.what == text && !["left", "right"].contains(&o.role);
        match operands.iter().find(named) {
            Some(operand) => format!("{} {text}", operand.role),
            None => text,
        }
    };
    let each = |d: &Decision| match &d.comparison {
        Some(c) => format!("when {} ({})", c.words(&name), d.check.text),
        None if d.check.raises_if_taken => format!("when {} is taken", d.check.text),
        None => format!("when {} is not taken", d.check.text),
    };
    let mut out = match decisions {
        [] if arrivals.plain.is_empty() => String::new(),
        [] => ", without a condition before it".to_owned(),
        [one] => format!(" {}", each(one)),
        many => {
            let listed: Vec<_> = many.iter().take(MAX_CHECKS).map(each).collect();
            let more = many.len().saturating_sub(MAX_CHECKS);
            let more = if more > 0 { format!(", or by {more} more") } else { String::new() };
            format!("; {} checks lead to it: {}{more}", many.len(), listed.join(", or "))
        }
    };
    if !decisions.is_empty() && !arrivals.plain.is_empty() {
        out.push_str(", or without a condition");
    }
    if arrivals.incomplete {
        out.push_str("; not every path to it was found");
    }
    out
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escape::one_line_max(text, MAX_QUOTED))
}

fn callee_name(out: &RaisedBy) -> String {
    out.by.as_deref().map_or_else(|| "the call".to_owned(), escape::one_line)
}

/// Describes a call that raises anything but a bounds error.
pub(super) fn call(callee: &Callee, out: &RaisedBy, when: &str) -> String {
    let by = callee_name(out);
    let type_name = out.type_name.as_deref().map(escape::one_line);
    let passed: Vec<_> = out
        .operands
        .iter()
        .filter(|o| o.seen == Seen::Call)
        .map(|o| format!("{} {}", o.role, o.what))
        .collect();
    let passed = if passed.is_empty() { String::new() } else { format!(" with {}", passed.join(" and ")) };
    if callee.certainty == Certainty::InCallee {
        let asserted = type_name.map(|t| format!(" (asserted: {t})")).unwrap_or_default();
        return format!("{by}, called{passed}, may raise inside: {}{asserted}", callee.says);
    }
    match callee.kind {
        Kind::Panic => {
            let what = match (type_name, out.message.as_deref()) {
                (Some(_), Some(text)) => format!("the constant string {}", quoted(text)),
                (Some(name), None) => format!("a value of type {name}"),
                (None, _) => "a value whose type this code does not show".to_owned(),
            };
            format!("{by} raises {what}{when}")
        }
        Kind::Throw | Kind::Fatal => {
            let text = out
                .message
                .as_deref()
                .map_or_else(|| "a text that this code does not show".to_owned(), quoted);
            format!("{by} ends the program with {text}{when}; nothing recovers it")
        }
        Kind::Assertion => {
            let name = type_name.unwrap_or_else(|| "a type that this code does not show".to_owned());
            format!("{by} raises: type assertion to {name} fails{when}")
        }
        _ => format!("{by} raises {}{passed}{when}", quoted(callee.says)),
    }
}

/// Returns the error's text, with constants as passed and the operands' names for other values.
pub(super) fn bounds_text(code: BoundsCode, out: &RaisedBy, passed: &(Term, Term)) -> String {
    let what = |role, passed: &Term| match passed {
        Term::Constant(_) => passed.text(),
        _ => out.operand(role).map_or_else(|| passed.text(), str::to_owned),
    };
    let (x_role, y_role) = code.roles();
    code.pattern().replace("{x}", &what(x_role, &passed.0)).replace("{y}", &what(y_role, &passed.1))
}

/// Describes a bounds error with a known code; `text` is the error's text, `when` the condition.
pub(super) fn bounds(
    code: BoundsCode,
    out: &RaisedBy,
    pair: Option<&Pair>,
    signed: Option<bool>,
    (text, when): (&str, &str),
) -> String {
    let by = callee_name(out);
    let (x_role, y_role) = code.roles();
    let check = out.checks.first().map(|c| format!(" ({})", c.text)).unwrap_or_default();
    let signed = signedness(signed);
    let fails = if code.may_be_equal() { ">" } else { "≥" };
    match pair {
        Some(Pair { y: Some(y), x }) => format!(
            "{x_role} {} is compared with {y_role} {}{check}: out of range when {x_role} {fails} {y_role}{signed}; {by} raises \"{text}\"",
            x.text(),
            y.text(),
        ),
        Some(Pair { y: None, x }) => format!(
            "{x_role} {} is tested{check}: out of range when it is negative; {by} raises \"{text}\"",
            x.text()
        ),
        None => format!(
            "{by} raises \"{text}\", {x_role} and {y_role} as they are at the call{when}; it is uncertain which \
             operands of a check they are"
        ),
    }
}

/// Describes a call of panicBounds without (readable) PCDATA.
pub(super) fn bounds_unknown(out: &RaisedBy, when: &str) -> String {
    let by = callee_name(out);
    format!("{by} raises a bounds error{when}; the binary does not say which (PCDATA_PanicBounds)")
}

/// Describes an instruction that faults.
pub(super) fn fault(fault: &Fault, instruction: &str) -> String {
    match fault {
        Fault::Nil { touched, check } => {
            let what = if *check {
                "is a nil check, which reads only to fault".to_owned()
            } else {
                touched.iter().map(touch).collect::<Vec<_>>().join(" and ")
            };
            let pointers: Vec<_> = fault.pointers().map(register_text).collect();
            let far = match touched.iter().any(|t| t.indexed) {
                true => " and the offset added to it is below 4096",
                false => "",
            };
            let nil = pointers.join(" or ");
            format!("{instruction} {what}: panics with a nil pointer dereference when {nil} is nil{far}")
        }
        Fault::Divide(divisor) => format!(
            "{instruction} divides by {}: the processor faults when it is 0, and the runtime panics with \"integer divide by zero\"; the compiler normally checks before",
            divisor.text()
        ),
    }
}

/// Describes a memory access: `reads 8 bytes at 0x8(%rax)`.
fn touch(touch: &Touch) -> String {
    let verb = if touch.writes { "writes" } else { "reads" };
    match touch.bytes {
        0 => format!("{verb} at {}", touch.memory),
        1 => format!("{verb} 1 byte at {}", touch.memory),
        n => format!("{verb} {n} bytes at {}", touch.memory),
    }
}
