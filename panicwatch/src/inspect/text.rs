//! Renders the facts for users: whether the binary can be watched, then the build, its consequences, the
//! probes, the sections.
//!
//! All text that the binary controls passes through [`Line::target`], which escapes it.

use super::facts::{Dependency, Inspection, Probe, ProcessFacts, Replacement, Section};
use crate::{
    incident::Addr,
    render::text::{
        Style,
        line::{Line, Page, Tone},
    },
};

/// Column at which values start.
const COLUMN: usize = 16;
/// Maximum number of lines of one value.
const ROWS: usize = 8;
/// Maximum number of dependencies that are named; JSON has all.
const DEPENDENCIES: usize = 12;
/// Digits of a commit hash that suffice to identify it.
const REVISION: usize = 12;

/// Renders the facts.
pub fn text(facts: &Inspection, style: &Style) -> String {
    let mut page = Page::new(style);
    let machine = facts.arch.as_deref().unwrap_or("unknown machine");
    page.push(Line::new().target(Tone::Strong, &facts.path));
    let version = Line::new().target(Tone::Plain, &facts.go_version).own(Tone::Plain, ", ");
    let version = version.target(Tone::Plain, machine).own(Tone::Dim, ", ");
    page.push_wrapped(&version.target(Tone::Dim, &size(facts.file_size)), 2, ROWS);
    page.push_wrapped(&verdict(facts), 2, ROWS);
    if let Some(process) = &facts.process {
        in_process(&mut page, process);
    }
    build(&mut page, facts);
    tables(&mut page, facts);
    sentences(&mut page, "What is missing, and the consequences", &facts.costs);
    sentences(&mut page, "What the build settings mean for reports", &facts.notes);
    if !facts.probes.is_empty() {
        page.title_line(
            Line::new().own(Tone::Title, "Probes").own(Tone::Plain, ": ").then(prices(&facts.probes)),
        );
        rows(&mut page, &facts.probes, false);
    }
    sections(&mut page, facts);
    page.finish()
}

/// Renders the probe plan for `--dry-run`, with the reason for each probe site.
pub fn plan(path: &str, go_version: &str, probes: &[Probe], style: &Style) -> String {
    let mut page = Page::new(style);
    let head = Line::new().target(Tone::Strong, path).own(Tone::Plain, ": ").target(Tone::Plain, go_version);
    let counts = tally(probes).own(Tone::Plain, ": ").then(prices(probes));
    page.push_wrapped(&head.own(Tone::Plain, ", ").then(counts), 2, ROWS);
    rows(&mut page, probes, true);
    page.finish()
}

fn verdict(facts: &Inspection) -> Line {
    match &facts.cannot_be_watched {
        Some(reason) => Line::new().own(Tone::Bad, "cannot be watched: ").target(Tone::Plain, reason),
        None => Line::new().own(Tone::Good, "can be watched: ").then(tally(&facts.probes)),
    }
}

/// Formats the number of probes, as in "17 of 18 probes can be placed".
fn tally(probes: &[Probe]) -> Line {
    let placed = probes.iter().filter(|p| p.placed).count();
    let line = Line::new().number(Tone::Plain, placed).own(Tone::Plain, " of ");
    line.number(Tone::Plain, probes.len()).own(Tone::Plain, " probes can be placed")
}

/// Formats the numbers of emulated and stepped probe sites, as in "17 emulated (cheap), 1 single-stepped
/// (expensive)".
fn prices(probes: &[Probe]) -> Line {
    let of = |price| probes.iter().filter(|p| p.price == Some(price)).count();
    let line = Line::new().number(Tone::Plain, of("emulated")).own(Tone::Plain, " emulated (cheap), ");
    line.number(Tone::Plain, of("stepped")).own(Tone::Plain, " single-stepped (expensive)")
}

fn in_process(page: &mut Page<'_>, process: &ProcessFacts) {
    page.title("Process");
    row(page, "pid", Line::new().number(Tone::Plain, process.pid));
    if process.deleted {
        row(
            page,
            "file",
            Line::new().own(
                Tone::Note,
                "deleted or replaced since the process started; the running code is described",
            ),
        );
    }
    match (process.load_bias, process.text_start) {
        (Some(bias), Some(text)) => {
            let line = Line::new().own(Tone::Plain, "text at ").number(Tone::Plain, text);
            row(page, "loaded", line.own(Tone::Plain, ", load bias ").number(Tone::Plain, bias));
        }
        _ => row(
            page,
            "loaded",
            Line::new().own(Tone::Note, "unknown address: the process's mappings do not list the file"),
        ),
    }
    for other in &process.mapped {
        let line = Line::new()
            .target(Tone::Plain, &other.path)
            .own(Tone::Dim, " at ")
            .number(Tone::Dim, other.start);
        let line = match (&other.go_version, &other.unreadable) {
            (Some(version), _) => line.own(Tone::Strong, ", Go: ").target(Tone::Strong, version),
            (None, Some(why)) => line.own(Tone::Note, ", not read: ").target(Tone::Note, why),
            (None, None) => line.own(Tone::Dim, ", not Go"),
        };
        row(page, "also mapped", line);
    }
}

fn build(page: &mut Page<'_>, facts: &Inspection) {
    page.title("Build");
    if let Some(package) = &facts.main_package {
        row(page, "main package", Line::new().target(Tone::Plain, package));
    }
    if let Some(module) = &facts.module {
        let line = Line::new().target(Tone::Plain, module);
        row(
            page,
            "module",
            versioned(line, facts.module_version.as_deref(), facts.module_replaced_by.as_ref()),
        );
    }
    if let Some(vcs) = &facts.vcs {
        let revision: String = vcs.revision.as_deref().unwrap_or("unknown").chars().take(REVISION).collect();
        let line = Line::new().target(Tone::Plain, vcs.system.as_deref().unwrap_or("unknown system"));
        let line = line.own(Tone::Plain, " ").target(Tone::Strong, &revision).own(Tone::Plain, " ");
        let line = line.target(Tone::Plain, vcs.time.as_deref().unwrap_or_default());
        row(
            page,
            "revision",
            match vcs.modified {
                Some(true) => line.own(Tone::Note, ", with uncommitted changes"),
                _ => line,
            },
        );
    }
    // DefaultGODEBUG is long and rarely wanted.
    let (defaults, settings): (Vec<_>, Vec<_>) = facts
        .settings
        .iter()
        .filter(|(name, value)| !name.starts_with("vcs") && !value.is_empty())
        .partition(|(name, _)| name == "DefaultGODEBUG");
    for (label, settings) in [("settings", settings), ("GODEBUG", defaults)] {
        let texts: Vec<_> = settings.iter().map(|(name, value)| setting(name, value)).collect();
        if !texts.is_empty() {
            row(page, label, Line::new().target(Tone::Plain, &texts.join("  ")));
        }
    }
    for (label, id) in [("GNU build id", &facts.build_id), ("Go build id", &facts.go_build_id)] {
        if let Some(id) = id {
            row(page, label, Line::new().target(Tone::Dim, id));
        }
    }
    dependencies(page, &facts.dependencies);
}

/// Formats a setting in shell syntax.
fn setting(name: &str, value: &str) -> String {
    match (name, value.contains(' ')) {
        ("DefaultGODEBUG", _) => value.replace(',', ", "),
        (_, true) => format!("{name}=\"{value}\""),
        (_, false) => format!("{name}={value}"),
    }
}

fn versioned(line: Line, version: Option<&str>, replaced: Option<&Replacement>) -> Line {
    let line = line.own(Tone::Plain, " ").target(Tone::Plain, version.unwrap_or_default());
    match replaced {
        Some(other) => {
            let line =
                line.own(Tone::Note, " replaced by ").target(Tone::Note, &other.path).own(Tone::Note, " ");
            line.target(Tone::Note, other.version.as_deref().unwrap_or_default())
        }
        None => line,
    }
}

fn dependencies(page: &mut Page<'_>, all: &[Dependency]) {
    for dependency in all.iter().take(DEPENDENCIES) {
        let line = Line::new().target(Tone::Plain, &dependency.path);
        row(
            page,
            "dependency",
            versioned(line, dependency.version.as_deref(), dependency.replaced_by.as_ref()),
        );
    }
    let left = all.len().saturating_sub(DEPENDENCIES);
    if left > 0 {
        let line = Line::new().own(Tone::Dim, "… and ").number(Tone::Dim, left);
        row(page, "", line.own(Tone::Dim, " more (--format json has them all)"));
    }
}

fn tables(page: &mut Page<'_>, facts: &Inspection) {
    page.title("In the file");
    let functions = match (facts.functions, facts.text_start) {
        (Some(functions), Some(text)) => {
            let line = Line::new().number(Tone::Plain, functions).own(Tone::Plain, " functions from ");
            line.number(Tone::Plain, text)
        }
        _ => Line::new().own(Tone::Note, "not read"),
    };
    row(page, "pclntab", functions);
    let inlined = match facts.inlined_calls {
        Some(calls) => Line::new().number(Tone::Plain, calls),
        None => Line::new().own(Tone::Note, "not counted"),
    };
    row(page, "inlined calls", inlined);
    row(page, "symbol table", presence(facts.symbol_table));
    row(page, "debug info", presence(facts.dwarf));
    row(page, "struct layout", layout(facts));
    let linked = if facts.pie { "position independent" } else { "at fixed addresses" };
    let cgo = match facts.cgo {
        Some(true) => ", with C code (cgo)",
        Some(false) => ", Go alone (no cgo)",
        None => "",
    };
    row(page, "linked", Line::new().own(Tone::Plain, linked).own(Tone::Plain, cgo));
}

fn presence(there: bool) -> Line {
    Line::new().own(if there { Tone::Plain } else { Tone::Note }, if there { "yes" } else { "no" })
}

fn layout(facts: &Inspection) -> Line {
    let layout = &facts.layout;
    let source = match layout.source {
        Some("table") => "panicwatch's table",
        Some(_) => "the binary's debug information",
        None => "unknown",
    };
    let line = Line::new().own(Tone::Plain, source);
    match (&layout.not_compared, layout.differences.len()) {
        (Some(_), _) => line.own(Tone::Dim, ", not compared"),
        (None, 0) => {
            let line = line.own(Tone::Dim, "; table and debug information agree on all ");
            line.number(Tone::Dim, layout.compared).own(Tone::Dim, " offsets")
        }
        (None, n) => {
            let line = line.own(Tone::Note, "; table and debug information differ in ").number(Tone::Note, n);
            let line =
                line.own(Tone::Note, " of ").number(Tone::Note, layout.compared).own(Tone::Note, " offsets:");
            layout.differences.iter().take(4).fold(line, |line, d| {
                let line = line.own(Tone::Plain, " ").own(Tone::Plain, d.go_type).own(Tone::Plain, ".");
                line.own(Tone::Plain, d.field)
            })
        }
    }
}

fn sentences(page: &mut Page<'_>, title: &'static str, sentences: &[String]) {
    if sentences.is_empty() {
        return;
    }
    page.title(title);
    for sentence in sentences {
        page.push_wrapped(&Line::new().own(Tone::Dim, "  - ").target(Tone::Plain, sentence), 4, ROWS);
    }
}

fn rows(page: &mut Page<'_>, probes: &[Probe], reasons: bool) {
    for probe in probes {
        let line = Line::new().own(Tone::Plain, "  ").own(Tone::Plain, probe.name).column(24);
        let line = match probe.price {
            Some("stepped") => line.own(Tone::Note, "stepped"),
            Some(price) => line.own(Tone::Good, price),
            None => line.own(Tone::Bad, "not placed"),
        };
        let line = line.column(35).target(Tone::Plain, &place(probe));
        match &probe.reason {
            None => page.push(line.column(66).target(Tone::Dim, &at(probe))),
            Some(reason) => {
                page.push_wrapped(&line.own(Tone::Plain, ": ").target(Tone::Plain, reason), 24, ROWS);
                let lost = Line::new().column(24).own(Tone::Dim, "lost: ");
                page.push_wrapped(&lost.own(Tone::Plain, probe.lost.unwrap_or_default()), 24, ROWS);
            }
        }
        if let Some(why) = probe.why.filter(|_| reasons) {
            let line = Line::new().column(35).own(Tone::Dim, "file offset ");
            let line = line.number(Tone::Dim, Addr(probe.file_offset.unwrap_or_default()));
            page.push_wrapped(&line.own(Tone::Dim, ": ").own(Tone::Dim, why), 35, ROWS);
        }
    }
}

/// Formats the location of a probe, as in "runtime.gopanic+0x1c".
fn place(probe: &Probe) -> String {
    match probe.offset {
        Some(offset) => format!("{}+{offset:#x}", probe.symbol),
        None => probe.symbol.clone(),
    }
}

/// Formats address and instruction of a probe, as in "0x43a2dc push %rbp".
fn at(probe: &Probe) -> String {
    let address = probe.address.map(|a| a.to_string()).unwrap_or_default();
    format!("{address} {}", probe.instruction.as_deref().unwrap_or_default())
}

/// Lists the sections. Debug sections share one line, because they are rarely of interest individually.
fn sections(page: &mut Page<'_>, facts: &Inspection) {
    if facts.sections.is_empty() {
        return;
    }
    page.title("Sections");
    let (debug, others): (Vec<_>, Vec<_>) =
        facts.sections.iter().partition(|s| s.name.starts_with(".debug_") || s.name.starts_with(".zdebug_"));
    for section in &others {
        let line = Line::new().own(Tone::Plain, "  ").target(Tone::Plain, &section.name).column(28);
        let line =
            line.number(Tone::Dim, section.address).column(42).target(Tone::Plain, &size(section.size));
        page.push(
            line.column(54).target(Tone::Dim, &section.flags).column(60).target(Tone::Dim, &section.kind),
        );
    }
    if !debug.is_empty() {
        let total = debug.iter().fold(0_u64, |sum, s: &&Section| sum.saturating_add(s.size));
        let line = Line::new().own(Tone::Plain, "  .debug_… (").number(Tone::Plain, debug.len());
        page.push(line.own(Tone::Plain, " sections)").column(42).target(Tone::Plain, &size(total)));
    }
}

/// Formats a size, as in "1.2 MiB".
fn size(bytes: u64) -> String {
    let kib = bytes as f64 / 1024.0;
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{kib:.1} KiB"),
        _ => format!("{:.1} MiB", kib / 1024.0),
    }
}

fn row(page: &mut Page<'_>, label: &'static str, value: Line) {
    let line = Line::new().own(Tone::Plain, "  ").own(Tone::Dim, label).column(COLUMN).then(value);
    page.push_wrapped(&line, COLUMN, ROWS);
}
