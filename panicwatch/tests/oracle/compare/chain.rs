//! Compares the chain of panics with the lines that Go printed for it.
//!
//! One line is one panic, with one exception: since Go 1.25, consecutive panics with the identical value
//! share a line (preprintpanics sets `repanicked`, printpanics then skips the later one):
//! <https://github.com/golang/go/blob/go1.26.0/src/runtime/panic.go>

use panicwatch::incident::{Incident, Kind, Panic, State};

use super::{Differences, Expect};
use crate::go_text::{Account, Note, PanicLine};

/// Compares the chain of a fatal incident.
pub(crate) fn compare(account: &Account, incident: &Incident, expect: &Expect, d: &mut Differences) {
    // Up to Go 1.25 a fatal error during a panic prints no chain; a throw never does. There is nothing to
    // compare with.
    if account.chain.is_empty() {
        return;
    }
    // A Goexit in the chain prints nothing.
    let panics: Vec<&Panic> = incident.panics.iter().filter(|p| !p.goexit).collect();
    let Some(counts) = assign(&account.chain, &panics, expect.release.prints_repanics_once()) else {
        let go: Vec<&str> = account.chain.iter().map(|l| l.printed.as_str()).collect();
        let seen: Vec<&str> = panics.iter().map(|p| p.value.printed.as_deref().unwrap_or("null")).collect();
        d.add(format!("panics[].value.printed: Go says {go:?}, the incident {seen:?}"));
        return;
    };
    let mut at = 0;
    for (line, count) in account.chain.iter().zip(counts) {
        let last_line = at + count == panics.len();
        states(line, &panics[at..at + count], last_line, expect, d);
        at += count;
    }
    for panic in &panics {
        texts(panic, expect, d);
    }
}

/// Returns how many panics each line stands for; `None` if lines and panics cannot be matched.
fn assign(lines: &[PanicLine], panics: &[&Panic], shared: bool) -> Option<Vec<usize>> {
    let Some((line, rest)) = lines.split_first() else {
        return panics.is_empty().then(Vec::new);
    };
    let same = panics.iter().take_while(|p| p.value.printed.as_deref() == Some(&line.printed)).count();
    // `[recovered, repanicked]` means that there are at least two.
    let least = if line.note == Note::Repanicked { 2 } else { 1 };
    let most = if shared { same } else { same.min(1) };
    (least..=most).find_map(|n| {
        let mut counts = assign(rest, &panics[n..], shared)?;
        counts.insert(0, n);
        Some(counts)
    })
}

fn states(line: &PanicLine, panics: &[&Panic], last_line: bool, expect: &Expect, d: &mut Differences) {
    for (i, panic) in panics.iter().enumerate() {
        let last = last_line && i + 1 == panics.len();
        let noted = match line.note {
            Note::None => false,
            // The note of a shared line depends on the first panic's flag; the flags of the others are not
            // printed.
            Note::Recovered => i == 0,
            Note::Repanicked => i + 1 < panics.len(),
        };
        let recovered = noted && !expect.nothing_recovered;
        if i > 0 && !last && !expect.nothing_recovered {
            continue;
        }
        // A shared line that is not the last of the chain ends with a panic whose state the line does not
        // show.
        if i + 1 == panics.len() && panics.len() > 1 && !last_line {
            continue;
        }
        let what = format!("state of panic {:?}", line.printed);
        let want: &[State] = match (recovered, last) {
            (true, _) => &[State::Repanicked],
            // The process dies of the fatal error; the panic itself was still in progress.
            (false, true) if expect.kind != Kind::Panic => &[State::Running],
            (false, true) => &[State::Fatal],
            // The process dies of this panic too, although a later one replaced it.
            (false, false) if expect.kind != Kind::Panic => &[State::Aborted, State::Running],
            (false, false) => &[State::Aborted, State::Fatal],
        };
        if !want.contains(&panic.state) {
            d.add(format!("{what}: {want:?} wanted, the incident {:?}", panic.state));
        }
        d.equal(&format!("{what}: recover present"), recovered, panic.recover.is_some());
    }
}

/// Run-time errors that the code alone shows with certainty.
const CERTAIN: [&str; 3] = ["index out of range", "slice bounds out of range", "integer divide by zero"];

fn texts(panic: &Panic, expect: &Expect, d: &mut Differences) {
    let Some(printed) = &panic.value.printed else { return };
    for error in CERTAIN {
        let claims = |check: &String| check.contains(&format!("raises \"{error}"));
        if panic.check.as_ref().is_some_and(claims) && !printed.contains(error) {
            d.add(format!("panics[].check: the code is said to raise {error:?}, Go says {printed:?}"));
        }
    }
    // A plain value (a string, an error's text, a number) is its own text; `main.T("x")` and `(T) 0x…` are
    // not.
    if let Some(text) = &panic.value.text
        && !printed.ends_with(')')
        && !printed.starts_with('(')
    {
        let want = if expect.release.indents_messages() { text.replace('\n', "\n\t") } else { text.clone() };
        d.equal("panics[].value.text as printed", printed.as_str(), want.as_str());
    }
}
