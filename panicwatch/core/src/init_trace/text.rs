//! Renders the trace for a terminal: the timeline as a tree, or the packages by duration, slowest first.
//!
//! Made from the document alone. Text of the program goes through `Line::target`, which escapes it.

use std::fmt;

use super::{DepthSource, Function, How, InitTrace, Package, Stopped};
use crate::{
    incident::base_name,
    render::text::{
        Nanos, Style,
        line::{Line, Number, Page, Tone},
    },
};

/// Columns: start time, duration, bar, depth, tree.
const AT: usize = 10;
const TOOK: usize = AT + 11;
const BAR: usize = TOOK + 2;
const BAR_WIDTH: usize = 8;
const DEPTH: usize = BAR + BAR_WIDTH + 6;
const TREE: usize = DEPTH + 2;
/// Maximum number of packages named in the summary; each took at least 1/`WEIGHTY` of the packages' total
/// time.
const NAMED: usize = 3;
const WEIGHTY: u64 = 20;
/// Minimum width of a source position; a narrower one is not useful.
const PLACE: usize = 24;
/// A package's functions are shown if it took at least 1/`WORTH` of the whole.
const WORTH: u64 = 50;

/// Formats nanoseconds as milliseconds with three decimals, so that columns align.
struct Ms(u64);

impl Number for Ms {}

impl fmt::Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{:03}", self.0 / 1_000_000, self.0 / 1_000 % 1_000))
    }
}

/// A bar of at most [`BAR_WIDTH`] columns, in eighths of a column.
struct Bar(u64);

impl Number for Bar {}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
        let full = usize::try_from(self.0 / 8).unwrap_or(0).min(BAR_WIDTH);
        let part = if full == BAR_WIDTH { "" } else { PARTS[(self.0 % 8) as usize] };
        write!(f, "{}{part}", "█".repeat(full))
    }
}

/// Renders the text, ending in a newline.
pub fn render(trace: &InitTrace, slowest_first: bool, style: &Style) -> String {
    let mut page = Page::new(style);
    let text = Text { trace, scale: longest(trace), origin: trace.origin_ns() };
    text.header(&mut page);
    if slowest_first {
        text.slowest(&mut page);
    } else {
        text.tree(&mut page);
    }
    if let Some(stopped) = &trace.stopped {
        text.stopped(&mut page, stopped);
    }
    text.notes(&mut page);
    page.finish()
}

fn longest(trace: &InitTrace) -> u64 {
    trace.packages.iter().filter_map(|package| package.duration_ns).max().unwrap_or(0).max(1)
}

fn name_of(package: &Package, tone: Tone) -> Line {
    match &package.package {
        Some(name) => Line::new().target(tone, name),
        None => Line::new().own(Tone::Note, "(a package that is not in the binary)"),
    }
}

struct Text<'a> {
    trace: &'a InitTrace,
    /// Duration of a full bar, in nanoseconds.
    scale: u64,
    origin: u64,
}

impl Text<'_> {
    fn header(&self, page: &mut Page<'_>) {
        let trace = self.trace;
        let tone = if trace.stopped.is_some() { Tone::Bad } else { Tone::Title };
        let exe = base_name(&trace.program.exe).unwrap_or(&trace.program.exe);
        let line = Line::new().own(tone, "━━ INITIALIZATION of ").target_tail(Tone::Strong, exe, 40);
        let line = line.own(Tone::Plain, "[").number(Tone::Plain, trace.program.pid).own(Tone::Plain, "] ");
        let line = line.target(Tone::Dim, &trace.program.go_version).own(tone, " ");
        page.push(line.rule_to(tone, page.width()));
        page.push_wrapped(&self.summary(), 0, 6);
    }

    fn summary(&self) -> Line {
        let trace = self.trace;
        let line = match (trace.total_ns, &trace.stopped) {
            (Some(total), _) => Line::new()
                .own(Tone::Plain, "main.main began ")
                .number(Tone::Strong, Nanos(total))
                .own(Tone::Plain, " after rt0_go"),
            (None, Some(_)) => Line::new().own(Tone::Bad, "main.main was not reached"),
            (None, None) => Line::new().own(Tone::Plain, "main.main began"),
        };
        let times = trace.packages.iter().filter_map(|package| package.duration_ns);
        let spent = times.fold(0, u64::saturating_add);
        let line = line.own(Tone::Plain, "; ").number(Tone::Plain, trace.packages.len());
        let line = line.own(Tone::Plain, if trace.packages.len() == 1 { " package" } else { " packages" });
        let mut line = line.own(Tone::Plain, " took ").number(Tone::Strong, Nanos(spent));
        let weighty = |package: &&Package| package.duration_ns.is_some_and(|took| took >= spent / WEIGHTY);
        for (i, package) in trace.slowest().into_iter().filter(weighty).take(NAMED).enumerate() {
            line = line.own(Tone::Plain, if i == 0 { ", mostly " } else { ", " });
            line = line.then(name_of(package, Tone::Strong)).own(Tone::Plain, " ");
            line = line.number(Tone::Plain, Nanos(package.duration_ns.unwrap_or(0)));
        }
        line
    }

    fn heading(page: &mut Page<'_>) {
        page.blank();
        let line = Line::new().column(AT - 6).own(Tone::Dim, "at, ms");
        let line = line.column(TOOK - 8).own(Tone::Dim, "took, ms");
        page.push(line.column(DEPTH - 5).own(Tone::Dim, "depth"));
    }

    fn at(&self, time_ns: u64) -> Line {
        let (sign, distance) = match time_ns.checked_sub(self.origin) {
            Some(after) => (1, after),
            None => (0, self.origin - time_ns),
        };
        let width = Line::new().number(Tone::Plain, Ms(distance)).width();
        let line = Line::new().column(AT.saturating_sub(width + usize::from(sign == 0)));
        let line = if sign == 0 { line.own(Tone::Dim, "-") } else { line };
        line.number(Tone::Dim, Ms(distance))
    }

    fn took(&self, line: Line, duration_ns: Option<u64>, bar: bool) -> Line {
        let Some(duration) = duration_ns else { return line.column(TOOK - 1).own(Tone::Bad, "✗") };
        let width = Line::new().number(Tone::Plain, Ms(duration)).width();
        let tone = if self.is_slow(duration) { Tone::Strong } else { Tone::Plain };
        let line = line.column(TOOK.saturating_sub(width)).number(tone, Ms(duration));
        let eighths = u128::from(duration) * 8 * BAR_WIDTH as u128 / u128::from(self.scale);
        if bar && eighths > 0 {
            return line.column(BAR).number(Tone::Note, Bar(eighths as u64));
        }
        line
    }

    /// Reports whether the duration is at least a tenth of the whole, and at least 0.1 ms.
    fn is_slow(&self, duration: u64) -> bool {
        self.trace.total_ns.is_some_and(|total| duration >= total / 10 && duration >= 100_000)
    }

    fn step(&self, page: &mut Page<'_>, time_ns: u64, branch: &'static str, what: Line) {
        page.push(self.at(time_ns).column(TREE).own(Tone::Dim, branch).then(what));
    }

    fn tree(&self, page: &mut Page<'_>) {
        Self::heading(page);
        let trace = self.trace;
        if let Some(exec) = trace.exec_ns {
            let what = Line::new().own(Tone::Dim, "exec: program loaded");
            self.step(page, exec, "", what);
        }
        let (mut first, mut shown_packages) = (true, false);
        for step in trace.chain.iter().filter(|step| step.what != "main.init") {
            let is_last = step.what == "main.main";
            if is_last {
                self.packages(page);
                shown_packages = true;
            }
            let branch = if first {
                ""
            } else if is_last {
                "└─ "
            } else {
                "├─ "
            };
            let tone = if is_last { Tone::Strong } else { Tone::Plain };
            self.step(page, step.time_ns, branch, Line::new().target(tone, &step.what));
            first = false;
        }
        if !shown_packages {
            self.packages(page);
        }
    }

    fn packages(&self, page: &mut Page<'_>) {
        let all = &self.trace.packages;
        for (i, package) in all.iter().enumerate() {
            let is_last = i + 1 == all.len();
            self.package(page, package, if is_last { "│  └─ " } else { "│  ├─ " });
            if self.worth_details(package) {
                self.functions(page, package, if is_last { "│     " } else { "│  │  " });
            }
        }
    }

    fn slowest(&self, page: &mut Page<'_>) {
        Self::heading(page);
        for package in self.trace.slowest() {
            self.package(page, package, "");
            if self.worth_details(package) {
                self.functions(page, package, "");
            }
        }
    }

    fn package(&self, page: &mut Page<'_>, package: &Package, branch: &'static str) {
        let line = self.took(self.at(package.start_ns), package.duration_ns, true);
        let line = match package.depth {
            Some(depth) => {
                let width = Line::new().number(Tone::Plain, depth).width();
                line.column(DEPTH.saturating_sub(width)).number(Tone::Plain, depth)
            }
            None => line.column(DEPTH - 1).own(Tone::Dim, if package.runtime { "-" } else { "?" }),
        };
        let tone = match package.duration_ns {
            None => Tone::Bad,
            Some(duration) if self.is_slow(duration) => Tone::Strong,
            Some(_) if package.runtime => Tone::Dim,
            Some(_) => Tone::Plain,
        };
        page.push(line.column(TREE).own(Tone::Dim, branch).then(name_of(package, tone)));
    }

    fn worth_details(&self, package: &Package) -> bool {
        let whole = self.trace.total_ns.unwrap_or(self.scale);
        package.duration_ns.is_none_or(|took| took >= 100_000 && took >= whole / WORTH)
    }

    fn functions(&self, page: &mut Page<'_>, package: &Package, branch: &'static str) {
        for (i, function) in package.functions.iter().enumerate() {
            let is_last = i + 1 == package.functions.len();
            let line = self.took(self.at(function.start_ns), function.duration_ns, false);
            let line = line.column(TREE).own(Tone::Dim, branch);
            let line = line.own(Tone::Dim, if is_last { "└─ " } else { "├─ " });
            page.push(function_line(line, function, page.width()));
        }
    }

    fn stopped(&self, page: &mut Page<'_>, stopped: &Stopped) {
        page.blank();
        let line = Line::new().own(Tone::Bad, "STOPPED before main.main: ");
        let line = match stopped.how {
            How::Died => line.own(Tone::Bad, "the program died"),
            How::Exited => line.own(Tone::Bad, "the program exited"),
            How::Killed => {
                line.own(Tone::Bad, "the program was killed by signal ").number(Tone::Bad, code(stopped))
            }
            How::Executed => line.own(Tone::Bad, "the program executed another program (exec)"),
            How::Unknown => line.own(Tone::Bad, "panicwatch lost track of the program"),
        };
        let line = match (stopped.how, stopped.code) {
            (How::Died | How::Exited, Some(code)) => {
                line.own(Tone::Bad, " with status ").number(Tone::Bad, code)
            }
            _ => line,
        };
        let line = match stopped.time_ns.and_then(|time| time.checked_sub(self.origin)) {
            Some(after) => line
                .own(Tone::Plain, ", ")
                .number(Tone::Plain, Nanos(after))
                .own(Tone::Plain, " after rt0_go"),
            None => line,
        };
        page.push_wrapped(&line, 2, 3);
        let mut row = |name: &'static str, value: &Option<String>, tone| {
            if let Some(value) = value {
                let line = Line::new().own(Tone::Dim, "  ").own(Tone::Dim, name).column(13);
                page.push_wrapped(&line.target(tone, value), 13, 4);
            }
        };
        row("package", &stopped.package, Tone::Strong);
        row("variable", &stopped.variable, Tone::Strong);
        row("function", &stopped.function, Tone::Strong);
        if stopped.function.is_none() {
            row("after", &Some(stopped.at.clone()), Tone::Strong);
        }
        let place = stopped.file.as_ref().map(|file| match stopped.line {
            Some(line) => format!("{file}:{line}"),
            None => file.clone(),
        });
        row("at", &place, Tone::Strong);
        row("message", &stopped.message, Tone::Bad);
    }

    fn notes(&self, page: &mut Page<'_>) {
        let trace = self.trace;
        page.blank();
        let has = |unknown: bool| trace.packages.iter().any(|p| p.depth.is_none() && p.runtime != unknown);
        let mut line = Line::new().own(
            Tone::Dim,
            match trace.depth_source {
                DepthSource::InitTasks => "depth: fewest imports from package main, from the init tasks",
                DepthSource::Calls => "depth: fewest imports from package main that calls in the code prove",
            },
        );
        if has(true) {
            line = line.own(Tone::Dim, "; ?: unknown");
        }
        if has(false) {
            line = line.own(Tone::Dim, "; -: initialized by the runtime for itself");
        }
        page.push_wrapped(&line, 2, 3);
        let quiet = |what: &str| what.ends_with(".depth") || what == "total_ns";
        for missing in trace.missing.iter().filter(|missing| !quiet(&missing.what)) {
            let line = Line::new().own(Tone::Note, "unknown: ").target(Tone::Note, &missing.what);
            page.push_wrapped(&line.own(Tone::Note, ": ").target(Tone::Note, &missing.reason), 2, 3);
        }
    }
}

fn code(stopped: &Stopped) -> i32 {
    stopped.code.unwrap_or(0)
}

/// Appends function and source position, "slow.init  /src/slow/slow.go:3", for the line below its package.
fn function_line(line: Line, function: &Function, width: usize) -> Line {
    let tone = if function.duration_ns.is_none() { Tone::Bad } else { Tone::Plain };
    let line = match &function.function {
        Some(name) => line.target(tone, name.rsplit('/').next().unwrap_or(name)),
        None => line.own(Tone::Note, "(a function that is not in the binary)"),
    };
    let Some(file) = &function.file else { return line };
    let room = width.saturating_sub(line.width() + 2);
    let file = if room < PLACE { file.rsplit('/').next().unwrap_or(file) } else { file };
    let place = function.line.map_or_else(|| file.to_owned(), |n| format!("{file}:{n}"));
    line.own(Tone::Plain, "  ").target_tail(Tone::Dim, &place, room.max(PLACE))
}
