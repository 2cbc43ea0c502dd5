//! The fingerprint of an incident: equal for the same defect on every host, whether recovered or fatal, and
//! after a rebuild that did not change the code concerned. docs/fingerprint.md specifies the rule.
//!
//! A pure function of the document: program, kind, class of the value, and names of the innermost user
//! functions. Must not depend on lines, offsets, addresses, times, ids, or text that contains data.

use sha2::{Digest as _, Sha256};

use crate::incident::{
    Frame, Incident, Kind, Panic, Value, base_name,
    frame_class::{self, Class},
};

/// Version of the rule, prepended to every fingerprint: a new rule requires a new prefix.
pub const PREFIX: &str = "pw1:";

/// Number of distinct user functions included.
const FRAMES: usize = 3;

/// Number of occurrences on the stack that makes a function of a stack overflow part of the recursion.
const RECURSIVE: usize = 3;

/// Returns the fingerprint: [`PREFIX`] and 16 hexadecimal digits.
pub fn fingerprint(incident: &Incident) -> String {
    let mut hash = Sha256::new();
    for part in basis(incident) {
        // Hashing the length first keeps the boundaries of the parts unambiguous.
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let hex: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("{PREFIX}{hex}")
}

/// Returns the input of the fingerprint in readable form: it shows why two incidents share a fingerprint or
/// do not.
pub fn basis(incident: &Incident) -> Vec<String> {
    let mut out = vec![
        format!("program {}", program(incident)),
        format!("kind {}", incident.kind.name()),
        format!("class {}", class(incident)),
    ];
    out.extend(functions(incident).into_iter().map(|f| format!("in {f}")));
    out
}

/// Returns the main module path, which is the same in rebuilds and on all hosts; without one, the
/// executable's name.
fn program(incident: &Incident) -> &str {
    let process = &incident.process;
    let module = process.module.as_deref().filter(|m| !m.is_empty() && *m != "command-line-arguments");
    module.or(process.exe.as_deref().and_then(base_name)).unwrap_or("?")
}

/// Returns the class of the incident, without data: the value's type, and for the runtime's own errors also
/// the kind of error; the message for everything but panics.
pub fn class(incident: &Incident) -> String {
    match incident.panics.iter().find(|p| !p.goexit) {
        Some(first) if incident.kind == Kind::Panic => value_class(first),
        _ => message_class(incident.message.as_deref().unwrap_or("?")),
    }
}

/// Returns the value's type; for the runtime's own errors also their text, without data.
fn value_class(panic: &Panic) -> String {
    let Value { type_name, text, .. } = &panic.value;
    let name = generic_free(type_name.as_deref().unwrap_or("?"));
    match text {
        // Its text differs between Go releases, and the type identifies the error.
        _ if name == "*runtime.PanicNilError" => name,
        // A user's type may implement runtime.Error as well; its text then is user data.
        Some(text) if panic.runtime_error && is_runtime_type(&name) => {
            format!("{name} {}", runtime_error_class(text))
        }
        _ => name,
    }
}

fn is_runtime_type(name: &str) -> bool {
    name.trim_start_matches('*').starts_with("runtime.")
}

/// Reduces a text of <https://github.com/golang/go/blob/go1.24.11/src/runtime/error.go> to the part fixed by
/// the code.
fn runtime_error_class(text: &str) -> String {
    let text = text.strip_prefix("runtime error: ").unwrap_or(text);
    if let Some(conversion) = text.strip_prefix("interface conversion: ") {
        return format!("interface conversion to {}", asserted(conversion));
    }
    // The rest of these texts (types, numbers) depends on the data.
    for start in [
        "hash of unhashable type",
        "comparing uncomparable type",
        "index out of range",
        "slice bounds out of range",
    ] {
        if text.starts_with(start) {
            return start.to_owned();
        }
    }
    without_numbers(text)
}

/// Returns the asserted type, which the source names; the type found is data. The texts are "I is T, not A"
/// and "T is not A: missing method M".
fn asserted(conversion: &str) -> &str {
    let after =
        [", not ", " is not "].iter().find_map(|sep| conversion.split_once(sep)).map_or("?", |(_, a)| a);
    let end = [": missing method", " (types from different"].iter().filter_map(|s| after.find(s)).min();
    &after[..end.unwrap_or(after.len())]
}

/// Returns the first line of the message of a fatal error or signal, without numbers and without text of the
/// program.
fn message_class(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let cut = match line.split_once(": ") {
        Some((head @ ("panic while printing panic value" | "removed GODEBUG"), _)) => head,
        // The text after the colon is fixed, as in "SIGSEGV: segmentation violation".
        _ => line,
    };
    without_numbers(cut)
}

/// Replaces every number with N, except digits that are part of a name (int64).
fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    let mut in_word = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_ascii_digit() && !in_word {
            while chars.next_if(|c| c.is_ascii_alphanumeric()).is_some() {}
            if out.ends_with('-') {
                out.pop();
            }
            out.push('N');
            continue;
        }
        in_word = c.is_alphanumeric() || c == '_';
        out.push(c);
    }
    out
}

fn functions(incident: &Incident) -> Vec<String> {
    let module = incident.process.module.as_deref();
    let overflow = incident.message.as_deref() == Some("stack overflow");
    if overflow {
        return recursion(&incident.stack, module);
    }
    let stack = raise_stack(incident);
    let mut out: Vec<String> = entry_of_library(stack, module).into_iter().collect();
    let best = stack.iter().map(|f| frame_class::of_frame(f, module)).min();
    for frame in stack.iter().filter(|f| Some(frame_class::of_frame(f, module)) == best) {
        let Some(name) = function_name(&frame.function) else { continue };
        if !out.contains(&name) {
            out.push(name);
        }
        if out.len() == FRAMES {
            break;
        }
    }
    out
}

/// Returns the frames below the first raise. While a deferred call of a panic runs, the frames that raised
/// the panic are still on the stack, below that of gopanic. Later panics of the chain exist only while the
/// deferred calls run.
fn raise_stack(incident: &Incident) -> &[Frame] {
    let is_gopanic = |f: &Frame| frame_class::is_gopanic(&f.function);
    match incident.stack.iter().rposition(is_gopanic) {
        Some(i) if incident.kind == Kind::Panic => &incident.stack[i + 1..],
        _ => &incident.stack,
    }
}

/// For an incident raised in a library, returns the library function that was called from outside, not its
/// callees, which change with the library's releases. `None` when user code raised it.
fn entry_of_library(stack: &[Frame], module: Option<&str>) -> Option<String> {
    let class = |f: &Frame| frame_class::of_frame(f, module);
    let raiser = class(stack.iter().find(|f| class(f) != Class::Runtime)?);
    if raiser == Class::User {
        return None;
    }
    let run = stack.iter().skip_while(|f| class(f) == Class::Runtime);
    run.take_while(|f| class(f) == raiser).filter_map(|f| function_name(&f.function)).last()
}

/// Returns the functions that recur, in alphabetical order: at which of them the stack overflows is chance.
fn recursion(stack: &[Frame], module: Option<&str>) -> Vec<String> {
    let known = stack.iter().filter(|f| frame_class::of_frame(f, module) != Class::Runtime);
    let names: Vec<_> = known.filter_map(|f| function_name(&f.function)).collect();
    let mut out: Vec<_> =
        names.iter().filter(|n| names.iter().filter(|m| m == n).count() >= RECURSIVE).cloned().collect();
    out.sort();
    out.dedup();
    out
}

/// Returns a function's name without parts that the compiler numbers: closures (`f.func2.1` is `f.func`),
/// range-over-func bodies (`f-range1` is `f`), init functions, type arguments. A closure of an inlined
/// function has both names, `caller.f.func1`, and becomes `f.func` again, as in a build that did not inline
/// it. `None` for wrappers generated by the compiler (`gowrap1`, `deferwrap1`).
/// <https://github.com/golang/go/blob/go1.24.11/src/cmd/compile/internal/ir/func.go> (closureName)
fn function_name(function: &str) -> Option<String> {
    let plain = generic_free(function);
    let package = frame_class::package(&plain).unwrap_or_default().to_owned();
    let name = plain[package.len()..].trim_start_matches('.').to_owned();
    let package = package.rsplit_once("/vendor/").map_or(package.as_str(), |(_, p)| p);
    let mut parts: Vec<&str> = name.split('.').collect();
    let mut closure = false;
    while parts.len() > 1 {
        let last = parts[parts.len() - 1];
        if numbered(last, "gowrap") || numbered(last, "deferwrap") {
            return None;
        }
        let is_number = last.bytes().all(|b| b.is_ascii_digit());
        let of_init = is_number && parts.len() == 2 && parts[0] == "init";
        if !(numbered(last, "func") || is_number) {
            break;
        }
        closure |= !of_init;
        parts.pop();
    }
    if closure {
        let first = parts.len() - 1;
        let method = first > 0 && parts[first - 1].ends_with(')');
        parts.drain(..first - usize::from(method));
    }
    let name = parts.join(".");
    let mut name = name.rsplit_once("-range").map_or(name.as_str(), |(n, _)| n).to_owned();
    if closure {
        // Closures of package variables: "glob..func1" before Go 1.21, "init.func1" since.
        name = if name.is_empty() || name == "glob" { "init".into() } else { name };
        name.push_str(".func");
    }
    Some(if package.is_empty() { name } else { format!("{package}.{name}") })
}

fn numbered(part: &str, stem: &str) -> bool {
    // "func1-range2" is a range-over-func body in a closure.
    let digits = part.strip_prefix(stem).map(|d| d.split_once("-range").map_or(d, |(d, _)| d));
    digits.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
}

/// Removes everything in brackets after a name: type arguments, as `[...]` or written out. A slice or array
/// type (`[]int`, `*[4]int`) keeps its brackets.
fn generic_free(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut depth = 0usize;
    for c in name.chars() {
        let after_name = out.ends_with(|c: char| c.is_alphanumeric() || c == '_') && !out.ends_with("map");
        match c {
            '[' if depth > 0 || after_name => depth += 1,
            ']' if depth > 0 => depth -= 1,
            c if depth == 0 => out.push(c),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
#[path = "fingerprint/tests.rs"]
mod tests;
