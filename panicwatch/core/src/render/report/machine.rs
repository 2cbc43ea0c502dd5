//! The machine-level part of the report: the raising instruction and its neighbors, and registers.

use crate::{
    incident::{Addr, Incident, Kind, Panic},
    render::text::line::{Line, Page, Tone},
};

/// Prints the instructions of the first raise, where the defect is, and of the last, which killed the
/// process, and the registers of the first.
pub(super) fn render(page: &mut Page<'_>, incident: &Incident) {
    let chain = incident.panics.len() > 1;
    // The headline is not about the panics in progress.
    let other = incident.kind != Kind::Panic;
    let with_code = |(_, p): &(usize, &Panic)| !p.instructions.is_empty();
    let first = incident.panics.iter().enumerate().find(with_code);
    let last = incident.panics.iter().enumerate().rev().find(with_code);
    let last = last.filter(|(i, _)| first.is_none_or(|(f, _)| f != *i));
    for (i, panic) in first.into_iter().chain(last) {
        page.title_line(title("Instructions", chain.then_some(i), other));
        if let Some(check) = &panic.check {
            page.push_wrapped(&Line::new().own(Tone::Plain, "  ").target(Tone::Plain, check), 2, 4);
        }
        instructions(page, panic);
    }
    if let Some((i, panic)) = incident.panics.iter().enumerate().find(|(_, p)| !p.registers.is_empty()) {
        page.title_line(title("Registers at the raise", chain.then_some(i), other));
        registers(page, panic);
    }
}

fn title(text: &'static str, panic: Option<usize>, other: bool) -> Line {
    let line = Line::new().own(Tone::Title, text);
    match panic {
        Some(i) => line.own(Tone::Title, ", panic ").number(Tone::Title, i + 1),
        None if other => line.own(Tone::Title, ", of the panic in progress"),
        None => line,
    }
}

fn instructions(page: &mut Page<'_>, panic: &Panic) {
    let widest = panic.instructions.iter().map(|i| i.bytes.len()).max().unwrap_or(0).min(22);
    for instruction in panic.instructions.iter().take(64) {
        let (mark, tone) = if instruction.raised { ("▶ ", Tone::Strong) } else { ("  ", Tone::Dim) };
        let line = Line::new().own(if instruction.raised { Tone::Bad } else { tone }, mark);
        let mut line = line.number(tone, instruction.address).own(tone, "  ");
        // A narrow terminal has no room for the bytes.
        if page.width() >= 80 {
            let column = line.width() + widest + 2;
            line = line.target(Tone::Dim, &instruction.bytes).column(column);
        }
        page.push(line.target(tone, &instruction.text));
    }
}

fn registers(page: &mut Page<'_>, panic: &Panic) {
    let ordered = order(panic.registers.iter().map(|(n, v)| (n.as_str(), *v)).collect());
    // Width of a register: a name of up to six letters, 64 bits in hexadecimal, and a gap.
    let cell = 6 + 1 + 18 + 2;
    let columns = (page.width() - 2) / cell;
    for row in ordered.chunks(columns.max(1)) {
        let mut line = Line::new();
        for (i, (name, value)) in row.iter().enumerate() {
            line = line.column(2 + i * cell).target(Tone::Dim, name);
            let tone = if value.0 == 0 { Tone::Dim } else { Tone::Plain };
            line = line.column(2 + i * cell + 7).number(tone, *value);
        }
        page.push(line);
    }
}

/// Sorts registers in the order of the manuals and of Go's own dump; unknown names are last, by name.
fn order(mut all: Vec<(&str, Addr)>) -> Vec<(&str, Addr)> {
    const AMD64: [&str; 18] = [
        "rax", "rbx", "rcx", "rdx", "rdi", "rsi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
        "r14", "r15", "rip", "rflags",
    ];
    let place = |name: &str| {
        let arm = name.strip_prefix('x').or(name.strip_prefix('r')).and_then(|n| n.parse::<usize>().ok());
        AMD64.iter().position(|n| *n == name).or(arm).unwrap_or(usize::MAX)
    };
    all.sort_by_key(|(name, _)| (place(name), *name));
    all.truncate(64);
    all
}
