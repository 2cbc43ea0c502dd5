//! Wording of the report: times, outcomes, locations.

use crate::{
    incident::{
        Exit, Frame, Incident, Kind, Outcome, Panic, base_name,
        frame_class::{self, Class},
    },
    render::text::{
        Nanos,
        line::{Line, Number, Tone},
    },
};

/// A time, printed relative to `start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Since {
    pub(super) start: u64,
    pub(super) at: u64,
}

impl Number for Since {}

impl std::fmt::Display for Since {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.at.checked_sub(self.start) {
            Some(0) => f.pad("+0"),
            Some(ns) => f.pad(&format!("+{}", Nanos(ns))),
            None => f.pad(&format!("-{}", Nanos(self.start - self.at))),
        }
    }
}

pub(super) fn tone_of(class: Class) -> Tone {
    match class {
        Class::User => Tone::Strong,
        Class::ThirdParty => Tone::Plain,
        Class::Standard | Class::Runtime => Tone::Dim,
    }
}

/// Returns the incident's main module, which determines the class of frames.
pub(super) fn module(incident: &Incident) -> Option<&str> {
    incident.process.module.as_deref()
}

/// Formats file and line as "file.go:17", at most `max` columns, truncated on the left.
pub(super) fn place(frame: &Frame, max: usize, tone: Tone) -> Line {
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => Line::new().target_tail(tone, &format!("{file}:{line}"), max),
        (Some(file), None) => Line::new().target_tail(tone, file, max),
        _ => Line::new().number(tone, frame.pc),
    }
}

/// Formats "pkg.Func (file.go:17)", with the base name of the file.
pub(super) fn function_and_file(frame: &Frame, module: Option<&str>) -> Line {
    let tone = tone_of(frame_class::of_frame(frame, module));
    let line = Line::new().target(tone, &frame.function);
    let Some(file) = &frame.file else { return line };
    let name = file.rsplit('/').next().unwrap_or(file);
    let line = line.own(Tone::Plain, " (").target_tail(Tone::Plain, name, 40);
    let line = match frame.line {
        Some(n) => line.own(Tone::Plain, ":").number(Tone::Plain, n),
        None => line,
    };
    line.own(Tone::Plain, ")")
}

/// Returns the text that Go prints before the message.
pub(super) fn prefix(incident: &Incident) -> &'static str {
    match incident.kind {
        Kind::Panic => "panic: ",
        Kind::FatalError | Kind::Throw => "fatal error: ",
        Kind::Signal => "",
    }
}

/// Returns the headline of the report: what happened, and how it ended.
pub(super) fn headline(incident: &Incident) -> (&'static str, &'static str) {
    let what = match incident.kind {
        Kind::Panic => "PANIC",
        Kind::FatalError => "FATAL ERROR",
        Kind::Throw => "RUNTIME THROW",
        Kind::Signal => "FATAL SIGNAL",
    };
    let end = match incident.outcome {
        Outcome::Fatal => ", THE PROCESS DIED",
        Outcome::Recovered => ", RECOVERED",
        Outcome::Goexit => ", ENDED BY Goexit",
        Outcome::Exited => match incident.exit {
            Some(Exit { signal: Some(_), .. }) => ", CUT SHORT BY A SIGNAL",
            Some(_) => ", CUT SHORT BY AN EXIT",
            None => ", CUT SHORT BY AN EXEC",
        },
        Outcome::Unknown if incident.exit.is_some() => ", OUTCOME UNKNOWN",
        Outcome::Unknown => ", END NOT SEEN",
    };
    (what, end)
}

/// Describes how the process ended, as in "the process exited with status 2".
pub(super) fn exit(exit: Option<Exit>) -> Line {
    let line = Line::new().own(Tone::Plain, "the process ");
    match exit {
        Some(Exit { signal: Some(number), .. }) => {
            let line = line.own(Tone::Bad, "was killed by signal ").number(Tone::Bad, number);
            match signal_name(number) {
                Some(name) => line.own(Tone::Bad, " (").own(Tone::Bad, name).own(Tone::Bad, ")"),
                None => line,
            }
        }
        Some(Exit { code: Some(code), .. }) => {
            line.own(Tone::Bad, "exited with status ").number(Tone::Bad, code)
        }
        _ => line.own(Tone::Bad, "died").own(Tone::Note, ", exit status unknown"),
    }
}

/// Returns the name of a signal on Linux, x86-64 and arm64.
fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        31 => "SIGSYS",
        _ => return None,
    })
}

/// The text of a panic as Go prints it, or what is known of it.
pub(super) enum Said<'a> {
    Text(&'a str),
    /// The type of a value whose text is unknown.
    Type(&'a str),
    Nothing,
}

pub(super) fn said(panic: &Panic) -> Said<'_> {
    let value = &panic.value;
    match (&value.text, &value.printed, &value.type_name) {
        (Some(text), ..) if is_plain(panic) => Said::Text(text),
        (_, Some(text), _) | (Some(text), None, _) => Said::Text(text),
        (_, _, Some(name)) => Said::Type(name),
        _ => Said::Nothing,
    }
}

/// Reports whether Go prints the text itself, as for a plain string or an error; `printed` may then only
/// differ in the indentation of further lines.
fn is_plain(panic: &Panic) -> bool {
    panic.value.printed.as_deref().is_none_or(|p| {
        panic
            .value
            .text
            .as_deref()
            .is_some_and(|t| t == p || p.contains('\n') && t.replace('\n', "\n\t") == p)
    })
}

/// Returns date and time of day, to the millisecond, of an RFC 3339 time; `None` if it is not one.
pub(super) fn clock(time: &str) -> Option<(&str, &str)> {
    let (date, rest) = time.split_once('T')?;
    let digits = |s: &str, also: &str| s.chars().all(|c| c.is_ascii_digit() || also.contains(c));
    let clock = rest.get(..12)?;
    (date.len() == 10 && digits(date, "-") && digits(clock, ":.")).then_some((date, clock))
}

/// Returns the name of the program.
pub(super) fn program(incident: &Incident) -> &str {
    let exe = incident.process.exe.as_deref().or(incident
        .process
        .args
        .as_ref()
        .and_then(|a| a.first())
        .map(|s| &**s));
    exe.and_then(base_name).unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (ns, want) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (46_200, "46.2 µs"),
            (2_410_000, "2.41 ms"),
            (312_000_000, "312 ms"),
            (61_000_000_000, "61.0 s"),
        ] {
            assert_eq!(Nanos(ns).to_string(), want);
        }
        assert_eq!(Since { start: 10, at: 5 }.to_string(), "-5 ns");
    }
}
