//! Parses the lines before the traceback: the `panic:` chain, `fatal error:`, `[signal …]`, or the lines of a
//! death by signal.

use super::{Account, hex};

/// Note in brackets after a panic's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Note {
    /// The line has no note in brackets.
    None,
    /// `[recovered]`.
    Recovered,
    /// `[recovered, repanicked]` (Go 1.25 and later): this panic and the next one, with the same value, in
    /// one line.
    Repanicked,
}

/// One `panic:` line with its continuation lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PanicLine {
    /// The value exactly as printed.
    pub(crate) printed: String,
    /// The note after the value.
    pub(crate) note: Note,
    /// Preceded by a tab: not the first of the chain, or after a Goexit.
    pub(crate) indented: bool,
}

/// The line `[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x48d0a6]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignalLine {
    /// Name of the signal, such as SIGSEGV.
    pub(crate) name: String,
    /// Value of g.sigcode0.
    pub(crate) code: u64,
    /// Value of g.sigcode1.
    pub(crate) addr: u64,
    /// Value of g.sigpc.
    pub(crate) pc: u64,
}

/// The line `SIGSEGV: segmentation violation` and the `PC=` line below it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SignalDeath {
    /// Name of the signal, such as SIGSEGV.
    pub(crate) name: String,
    /// The complete first line.
    pub(crate) line: String,
    /// Value of `PC=`.
    pub(crate) pc: Option<u64>,
    /// Value of `sigcode=`, decimal.
    pub(crate) code: Option<i64>,
    /// Value of `addr=` (Go 1.22 and later, only for SIGSEGV and SIGBUS).
    pub(crate) addr: Option<u64>,
    /// Whether `signal arrived during cgo execution` follows.
    pub(crate) in_cgo: bool,
}

/// Reports whether the line begins an account.
pub(super) fn starts(line: &str) -> bool {
    line.starts_with("panic: ") || line.starts_with("fatal error: ") || is_death(line)
}

/// Reports whether the line is `SIGNAME: description`, as fatalsignal prints it from its sigtable.
fn is_death(line: &str) -> bool {
    line.split_once(": ").is_some_and(|(name, _)| {
        name.len() > 3
            && name.starts_with("SIG")
            && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
    })
}

/// Removes the tab that Go 1.23 and later print after each newline of a value.
pub(crate) fn unindent(printed: &str) -> String {
    printed.replace("\n\t", "\n")
}

enum Open {
    Nothing,
    Panic,
    Fatal,
}

/// Parses the lines up to the traceback into `account`.
pub(super) fn parse(lines: &[&str], account: &mut Account) {
    if is_death(lines[0]) {
        account.death = Some(parse_death(lines));
        return;
    }
    // Go 1.22 and earlier print newlines as they are: a line that begins no new entry continues the previous
    // one.
    let mut open = Open::Nothing;
    for line in lines {
        let entry = line.strip_prefix('\t').unwrap_or(line);
        if let Some(value) = entry.strip_prefix("panic: ") {
            account.chain.push(PanicLine {
                printed: value.to_owned(),
                note: Note::None,
                indented: entry.len() < line.len(),
            });
            open = Open::Panic;
        } else if let Some(message) = entry.strip_prefix("fatal error: ") {
            account.fatal = Some(message.to_owned());
            open = Open::Fatal;
        } else if let Some(signal) = parse_signal(line) {
            account.signal = Some(signal);
            open = Open::Nothing;
        } else if let Some(status) = line.strip_prefix("exit status ") {
            account.exit_status = status.parse().ok();
        } else {
            continue_entry(&open, line, account);
        }
    }
    for line in &mut account.chain {
        strip_note(line);
    }
}

fn continue_entry(open: &Open, line: &str, account: &mut Account) {
    let text = match open {
        Open::Panic => account.chain.last_mut().map(|l| &mut l.printed),
        Open::Fatal => account.fatal.as_mut(),
        Open::Nothing => None,
    };
    if let Some(text) = text {
        text.push('\n');
        text.push_str(line);
    }
}

fn strip_note(line: &mut PanicLine) {
    for (suffix, note) in [(" [recovered, repanicked]", Note::Repanicked), (" [recovered]", Note::Recovered)]
    {
        if let Some(value) = line.printed.strip_suffix(suffix) {
            line.printed.truncate(value.len());
            line.note = note;
            return;
        }
    }
}

fn parse_signal(line: &str) -> Option<SignalLine> {
    let inner = line.strip_prefix("[signal ")?.strip_suffix(']')?;
    let field = |key: &str| inner.split(' ').find_map(|w| hex(w.strip_prefix(key)?));
    Some(SignalLine {
        name: inner.split([':', ' ']).next()?.to_owned(),
        code: field("code=")?,
        addr: field("addr=")?,
        pc: field("pc=")?,
    })
}

fn parse_death(lines: &[&str]) -> SignalDeath {
    let mut death = SignalDeath { line: lines[0].to_owned(), ..SignalDeath::default() };
    death.name = lines[0].split(':').next().unwrap_or_default().to_owned();
    for line in &lines[1..] {
        death.in_cgo |= *line == "signal arrived during cgo execution";
        if !line.starts_with("PC=") {
            continue;
        }
        for word in line.split(' ') {
            match word.split_once('=') {
                Some(("PC", v)) => death.pc = hex(v),
                Some(("sigcode", v)) => death.code = v.parse().ok(),
                Some(("addr", v)) => death.addr = hex(v),
                _ => {}
            }
        }
    }
    death
}
