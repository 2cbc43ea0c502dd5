//! Renders events as text: one line each, indented by depth. Text of the program is escaped.

use std::fmt::Write as _;

use super::line::{Argument, Event, FunctionCount, Line, Summary};
use crate::incident::escape;

/// Maximum depth of indentation; a greater depth is printed as a number.
const MAX_INDENT: usize = 40;
/// Maximum length of one value.
const MAX_VALUE: usize = 512;

/// Renders one event with a newline. Times are relative to `origin_ns`.
pub fn line(line: &Line<'_>, origin_ns: u64) -> String {
    let seconds = line.time_ns.saturating_sub(origin_ns);
    let mut out = format!("{:>5}.{:06} ", seconds / 1_000_000_000, seconds / 1_000 % 1_000_000);
    let _ = match line.goroutine {
        Some(0) => write!(out, "{:<7}", format!("t{}", line.thread)),
        Some(goroutine) => write!(out, "{:<7}", format!("g{goroutine}")),
        None => write!(out, "{:<7}", "?"),
    };
    out.push(' ');
    if line.depth > MAX_INDENT {
        let _ = write!(out, "{:1$}", format!("[{}] ", line.depth), 2 * MAX_INDENT);
    } else {
        out.push_str(&"  ".repeat(line.depth));
    }
    out.push_str(match line.event {
        Event::Entry => "> ",
        Event::Exit => "< ",
        Event::Unwound => "! ",
    });
    out.push_str(&escape::one_line(line.function));
    if let Some(args) = line.args {
        let _ = write!(out, "({})", list(args, true));
    }
    if line.event == Event::Unwound {
        out.push_str(" unwound");
    }
    if let Some(ns) = line.duration_ns {
        let _ = write!(out, "  {}", duration(ns));
    }
    if let Some(results) = line.results {
        let _ = write!(out, "  = {}", list(results, false));
    }
    out.push('\n');
    for caller in line.stack.unwrap_or_default() {
        let place = caller.file.as_deref().zip(caller.line).map(|(file, line)| format!("  {file}:{line}"));
        let caller = format!("{}{}", caller.function, place.unwrap_or_default());
        let _ = writeln!(out, "{:22}| {}", "", escape::one_line(&caller));
    }
    out
}

fn list(all: &[Argument], names: bool) -> String {
    let one = |argument: &Argument| {
        let unnamed = argument.name.starts_with('~') || argument.name.is_empty() || !names && all.len() == 1;
        let value = match (&argument.value, &argument.reason) {
            (Some(value), _) => value.clone(),
            (None, Some(reason)) => format!("<{reason}>"),
            (None, None) => "<unknown>".to_owned(),
        };
        let value = escape::one_line_max(&value, MAX_VALUE);
        if unnamed { value } else { format!("{}={value}", escape::one_line(&argument.name)) }
    };
    all.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Formats a duration: `850ns`, `12.3µs`, `4.56ms`, `1.20s`.
pub fn duration(ns: u64) -> String {
    let value = ns as f64;
    match ns {
        0..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{:.1}µs", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2}ms", value / 1e6),
        _ => format!("{:.2}s", value / 1e9),
    }
}

/// Renders the summary at the end: totals, and the functions called most.
pub fn summary(summary: &Summary, exits: bool) -> String {
    const MOST: usize = 10;
    let mut out = format!("{} calls", summary.entries);
    if exits {
        let _ = write!(out, ", {} returned, {} unwound", summary.exits, summary.unwound);
    }
    if summary.lost > 0 {
        let _ =
            write!(out, "; {} events are counted but not shown, because they arrived too fast", summary.lost);
    }
    let functions = most_called(summary);
    if functions.len() > 1 {
        for function in functions.iter().take(MOST) {
            let _ = write!(out, "\n{}", count(function));
        }
        if functions.len() > MOST {
            let _ = write!(out, "\n{:>12}  more functions", functions.len() - MOST);
        }
    }
    out
}

/// Renders the number of calls of each function, most called first, and the total.
pub fn counts(summary: &Summary) -> String {
    let functions = most_called(summary);
    let mut out: String = functions.iter().map(|function| count(function) + "\n").collect();
    let _ = writeln!(out, "{:>12}  calls of {} functions", summary.entries, functions.len());
    out
}

fn most_called(summary: &Summary) -> Vec<&FunctionCount> {
    let mut functions: Vec<_> = summary.functions.iter().collect();
    functions.sort_by_key(|function| std::cmp::Reverse(function.entries));
    functions
}

fn count(function: &FunctionCount) -> String {
    format!("{:>12}  {}", function.entries, escape::one_line(&function.function))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(event: Event, depth: usize) -> Line<'static> {
        Line {
            time_ns: 2_500_001_000,
            event,
            pid: 1,
            thread: 2,
            goroutine: Some(18),
            depth,
            function: "main.f",
            file: None,
            line: None,
            args: None,
            results: None,
            duration_ns: None,
            stack: None,
        }
    }

    #[test]
    fn lines_are_indented_and_say_all() {
        assert_eq!(line(&event(Event::Entry, 0), 1_000_000_000), "    1.500001 g18     > main.f\n");
        let argument = |name: &str, value: Option<&str>, reason: Option<&str>| Argument {
            name: name.to_owned(),
            type_name: "int".to_owned(),
            value: value.map(str::to_owned),
            reason: reason.map(str::to_owned),
        };
        let args = [argument("a", Some("1"), None), argument("b", None, Some("not read"))];
        let results = [argument("~r0", Some("\x1b[2J"), None)];
        let exit = Line {
            args: Some(&args),
            results: Some(&results),
            duration_ns: Some(1500),
            ..event(Event::Exit, 1)
        };
        assert_eq!(
            line(&exit, 1_000_000_000),
            "    1.500001 g18       < main.f(a=1, b=<not read>)  1.5µs  = \\x1b[2J\n"
        );
        let deep = line(&event(Event::Unwound, 1000), 0);
        assert!(deep.contains("[1000] ") && deep.ends_with("! main.f unwound\n"), "{deep:?}");
    }

    #[test]
    fn counts_are_in_order() {
        let function =
            |name: &str, entries| FunctionCount { function: name.to_owned(), entries, exits: 0, lost: 0 };
        let functions = vec![function("main.a", 2), function("main.\x1bb", 12)];
        let summary = Summary { entries: 14, functions, ..Summary::default() };
        assert_eq!(
            counts(&summary),
            "          12  main.\\x1bb\n           2  main.a\n          14  calls of 2 functions\n"
        );
    }

    #[test]
    fn durations_are_readable() {
        assert_eq!(
            [999, 1_500, 4_560_000, 61_000_000_000].map(duration),
            ["999ns", "1.5µs", "4.56ms", "61.00s"]
        );
    }
}
