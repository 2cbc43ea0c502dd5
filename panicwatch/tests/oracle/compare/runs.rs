//! Compares a bare and a watched run of the same program: watching must not change the output.

use super::Differences;
use crate::go_text::{Account, FrameText, GoroutineText};

/// Output and exit of a run.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    /// Standard output of the run.
    pub(crate) stdout: String,
    /// Standard error of the run.
    pub(crate) stderr: String,
    /// Exit status; 128 + signal if killed.
    pub(crate) status: i32,
    /// Signal that killed the process.
    pub(crate) signal: Option<i32>,
}

/// Compares a watched run with a bare one. Addresses, goroutine IDs and thread IDs may differ, and so may the
/// list of other goroutines and their states. With `anywhere`, the crash may even be at another location.
pub(crate) fn compare(bare: &Output, watched: &Output, anywhere: bool) -> Vec<String> {
    let mut d = Differences::default();
    let mut equal = |what: &str, bare: String, watched: String| {
        if bare != watched {
            d.add(format!("{what}: bare {bare:?}, watched {watched:?}"));
        }
    };
    equal("exit status", bare.status.to_string(), watched.status.to_string());
    equal("stdout", normalised(&bare.stdout), normalised(&watched.stdout));
    match (Account::parse(&bare.stderr), Account::parse(&watched.stderr)) {
        (Some(b), Some(w)) => {
            equal("panic lines", lines(&b), lines(&w));
            if !anywhere {
                // At another location the runtime may dump other memory.
                equal("stderr before the crash", normalised(&b.before), normalised(&w.before));
                equal("crashing goroutine", subject(&b), subject(&w));
            }
            equal(
                "runtime stack shown",
                b.runtime_stack.is_some().to_string(),
                w.runtime_stack.is_some().to_string(),
            );
        }
        _ => equal("stderr", normalised(&bare.stderr), normalised(&watched.stderr)),
    }
    d.0
}

fn lines(account: &Account) -> String {
    let signal = account.signal.as_ref().map(|s| &s.name);
    let death = account.death.as_ref().map(|d| &d.line);
    let chain: Vec<_> = account.chain.iter().map(|l| (&l.printed, l.note, l.indented)).collect();
    normalised(&format!("{chain:?} {:?} {signal:?} {death:?}", account.fatal))
}

fn subject(account: &Account) -> String {
    account.subject().map_or_else(String::new, shape)
}

fn shape(goroutine: &GoroutineText) -> String {
    let creator = goroutine.created_by.as_ref().map(|c| position(&c.frame));
    let frames: Vec<String> = goroutine.frames.iter().map(position).collect();
    format!("{} {:?} {frames:?} {:?} by {creator:?}", goroutine.status, goroutine.labels, goroutine.elided)
}

fn position(frame: &FrameText) -> String {
    format!("{} {}:{} {:?}", frame.function, frame.file, frame.line, frame.offset)
}

/// Replaces addresses and the IDs of goroutines and threads with a placeholder.
pub(crate) fn normalised(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let marker = ["0x", "goroutine ", " g ", " m="].into_iter().find(|m| rest.starts_with(m));
        if let Some(marker) = marker {
            let tail = &rest[marker.len()..];
            let hex = marker == "0x";
            let digits =
                tail.bytes().take_while(|b| if hex { b.is_ascii_hexdigit() } else { b.is_ascii_digit() });
            let n = digits.count();
            out.push_str(marker);
            if n > 0 {
                out.push('N');
            }
            rest = &tail[n..];
        } else {
            let next = rest.chars().next().map_or(1, char::len_utf8);
            out.push_str(&rest[..next]);
            rest = &rest[next..];
        }
    }
    out
}
