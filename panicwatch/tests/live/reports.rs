//! Situations from bug reports: long chains, processes that end during a panic, lost records.

use std::{collections::BTreeSet, fs, process::Command};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use panicwatch::incident::{DeferEnd, Exit, Incident, Kind, Outcome};
use tempfile::TempDir;

use crate::{
    fixtures::only,
    ledger::none,
    matrix::{self, Built, Row},
    run::{self, PANICWATCH, Program, Running, Watched},
};

const TABLE: &[Row] = &[
    ("chains around every bound", "chain", chains, false),
    ("fatal chains around every bound", "chain", fatal_chains, false),
    ("ended midway", "midway", midway, false),
    ("attached midway", "midway", attached_midway, false),
    ("fatal error in a panic", "mutexes", fatal_in_panic, false),
    ("nil function deferred", "nildefer", nil_deferred, false),
    ("basic values with methods", "methods", methods, false),
    ("ancestors", "ancestors", ancestors, false),
    ("stack beyond what is copied", "endless", endless, false),
    ("stack beyond the time limit", "endless", out_of_time, false),
    ("records lost", "counter", lost, false),
];

/// Returns every cell of the group.
pub(crate) fn trials() -> Vec<Trial> {
    matrix::trials("report", TABLE, &[])
}

/// Number of panics of one chain that the document keeps, and of those whose texts are copied when the
/// process dies.
const KEPT: usize = 128;
const COPIED: usize = 64;
/// Chain lengths around these bounds, and around the bounds of earlier versions.
const LENGTHS: [usize; 12] = [2, 23, 24, 25, 26, 63, 64, 65, 127, 128, 129, 200];
/// A shorter list for the other releases.
const FEW: [usize; 4] = [25, 65, 128, 129];

/// All lengths for a release before and one after Go 1.22, which rewrote how panics find their deferred
/// calls.
fn lengths(built: &Built) -> &'static [usize] {
    if [21, 27].contains(&built.release.minor()) { &LENGTHS } else { &FEW }
}

fn watched(built: &Built, args: &[&str], options: &[&str]) -> Result<Watched> {
    run::watched(&Program::new(&built.path, args).with(options))
}

/// Like [`watched`], with an event ring that holds all records of a long chain: each panic copies the stack
/// of all panics before it, and on a busy machine the reader may get no CPU time meanwhile.
fn watched_whole(built: &Built, args: &[&str]) -> Result<Watched> {
    let mut program = Program::new(&built.path, args).with(&["--no-timeline"]);
    program.env.push(("PANICWATCH_EVENT_RING_BYTES".into(), (256_u32 << 20).to_string()));
    run::watched(&program)
}

/// Returns the texts of an incident's panics.
fn texts(incident: &Incident) -> Vec<String> {
    incident.panics.iter().map(|panic| panic.value.text.clone().unwrap_or_default()).collect()
}

/// Returns the part of a chain that is kept: its first and its last panics.
fn kept(all: &[String]) -> Vec<String> {
    let half = KEPT / 2;
    match all.len() {
        ..=KEPT => all.to_vec(),
        n => [&all[..half], &all[n - half..]].concat(),
    }
}

fn reason<'a>(incident: &'a Incident, what: &str) -> Option<&'a str> {
    incident.missing.iter().find(|missing| missing.what == what).map(|missing| missing.reason.as_str())
}

/// Checks one chain: its message, which panics are kept, and that the rest is counted in `missing`.
fn chain(incident: &Incident, all: &[String], outcome: Outcome) -> Result<()> {
    ensure!(incident.outcome == outcome, "outcome {:?}", incident.outcome);
    ensure!(incident.message.as_ref() == all.first(), "message {:?}", incident.message);
    ensure!(texts(incident) == kept(all), "panics {:?} of {}", texts(incident), all.len());
    let told = reason(incident, "panics");
    if all.len() > KEPT {
        let count = format!("left out {} of the chain's panics", all.len() - KEPT);
        ensure!(told.is_some_and(|told| told.contains(&count)), "told {told:?}, not {count}");
    } else {
        ensure!(told.is_none(), "told {told:?}");
    }
    Ok(())
}

/// Two chains of panics that are recovered, wrapped and raised again, with an unrelated panic between them.
fn chains(built: &Built) -> Result<()> {
    for &length in lengths(built) {
        let depth = length - 2;
        let run = watched_whole(built, &[&depth.to_string(), "recovered"])?;
        ensure!(run.output.status == 2, "exit status {}", run.output.status);
        let mut wrapped = vec!["unknown operator".to_owned()];
        for depth in 0..=depth {
            wrapped.push(format!("at depth {depth}: {}", wrapped[depth]));
        }
        let [first, unrelated, second, last] = run.incidents.as_slice() else {
            anyhow::bail!("{length}: {} incidents: {}", run.incidents.len(), run.output.stderr);
        };
        let checks = [
            chain(first, &wrapped, Outcome::Recovered),
            chain(unrelated, &["an unrelated one".to_owned()], Outcome::Recovered),
            chain(second, &wrapped, Outcome::Recovered),
            chain(last, &["the last, unrelated too".to_owned()], Outcome::Fatal),
        ];
        for (i, check) in checks.into_iter().enumerate() {
            check.with_context(|| format!("a chain of {length}, incident {i}"))?;
        }
    }
    Ok(())
}

/// Panics nested in deferred calls until the process dies, after a recovered chain of the same length.
fn fatal_chains(built: &Built) -> Result<()> {
    for &length in lengths(built) {
        let depth = (length - 1).to_string();
        let all: Vec<String> = (0..length).map(|n| format!("level {n}")).collect();
        let run = watched_whole(built, &[&depth, "fatal"])?;
        let last = run.incidents.last().context("no incident")?;
        chain(last, &all, Outcome::Fatal).with_context(|| format!("a fatal chain of {length}"))?;
        ensure!(run.incidents.len() == 3, "{} incidents", run.incidents.len());
        // The values are errors: only the runtime can get their texts, and only those of the newest are
        // copied.
        let run = watched_whole(built, &[&depth, "resolved"])?;
        let last = run.incidents.last().context("no incident")?;
        let known: Vec<bool> = (0..length).map(|n| n + COPIED >= length).collect();
        let half = KEPT / 2;
        let known = if length > KEPT { [&known[..half], &known[length - half..]].concat() } else { known };
        let texts = texts(last);
        ensure!(texts.len() == known.len(), "{} texts of {}", texts.len(), known.len());
        for (i, (text, known)) in texts.iter().zip(known).enumerate() {
            let told = reason(last, &format!("panics[{i}].value.text")).is_some();
            ensure!(
                text.is_empty() != known && told != known,
                "{length}: panics[{i}] {text:?}, told why: {told}"
            );
        }
    }
    Ok(())
}

/// A deferred call is still running when the process ends.
fn midway(built: &Built) -> Result<()> {
    let code = |code| Some(Exit { code: Some(code), signal: None });
    let signal = |signal| Some(Exit { code: None, signal: Some(signal) });
    let killed = "before anything recovered it, the process was killed by signal 9 (SIGKILL)";
    let caught = "recover() caught it, but before the goroutine continued, the process exited with status 7";
    let exec = "before anything recovered it, the process executed another program (exec)";
    for (how, exit, words) in [
        ("return", code(0), "before anything recovered it, the process exited with status 0"),
        ("exit", code(7), "before anything recovered it, the process exited with status 7"),
        ("kill", signal(9), killed),
        ("term", signal(15), "before anything recovered it, the process was killed by signal 15 (SIGTERM)"),
        ("caught", code(7), caught),
        ("exec", None, exec),
    ] {
        let run = watched(built, &[how], &[])?;
        let incident = only(run.incidents).with_context(|| how)?;
        ensure!(incident.outcome == Outcome::Exited, "{how}: outcome {:?}", incident.outcome);
        ensure!(incident.exit == exit, "{how}: exit {:?}", incident.exit);
        ensure!(incident.end_ns.is_some(), "{how}: no end_ns");
        ensure!(reason(&incident, "outcome").is_none(), "{how}: {:?}", incident.missing);
        let report =
            panicwatch::render::report::render(&incident, &panicwatch::render::text::Style::new(false, 300));
        ensure!(report.contains(words), "{how}: {report}");
        ensure!(how == "caught" || !report.contains("recover() "), "{how}: {report}");
    }
    Ok(())
}

/// A panic raised before panicwatch attached, of which the process dies afterwards.
fn attached_midway(built: &Built) -> Result<()> {
    let dir = TempDir::new()?;
    let (go_on, file) = (dir.path().join("go on"), dir.path().join("incidents"));
    let mut command = Command::new(&built.path);
    command.arg("dies").arg(&go_on);
    let mut program = Running::start(command)?;
    program.wait_for("ready")?;
    let mut command = Command::new(PANICWATCH);
    command.args(["attach", "--pid", &program.child.id().to_string(), "-o"]).arg(&file);
    let mut attached = Running::start(command)?;
    attached.wait_for_stderr("watching ")?;
    fs::write(&go_on, "")?;
    ensure!(program.finish()?.status == 2, "it did not die of its panic");
    attached.finish()?;
    let incident = only(run::incidents(&file)?)?;
    ensure!(incident.outcome == Outcome::Fatal, "outcome {:?}", incident.outcome);
    ensure!(incident.message.as_deref() == Some("task failed"), "message {:?}", incident.message);
    let told = reason(&incident, "panics");
    ensure!(told == Some("raised before the probes were attached"), "{told:?}");
    Ok(())
}

/// The report shows both the panic and the fatal error, in Go's order.
fn fatal_in_panic(built: &Built) -> Result<()> {
    let run = watched(built, &[], &[])?;
    let incident = only(run.incidents)?;
    ensure!(incident.kind == Kind::FatalError, "kind {:?}", incident.kind);
    let report = panicwatch::render::report::render(&incident, &panicwatch::render::text::Style::default());
    let panic = report.find("panic: no price list for teapot").context("the panic is not told")?;
    let fatal =
        report.find("then fatal error: sync: RUnlock of unlocked RWMutex").context("the error is not")?;
    ensure!(panic < fatal, "{report}");
    let rows: Vec<&str> = report.lines().map(str::trim).collect();
    let row = |label: &str| rows.iter().find(|row| row.starts_with(label)).copied().unwrap_or_default();
    ensure!(!row("where ").contains("main.price"), "{report}");
    ensure!(row("panic in ").contains("main.price"), "{report}");
    ensure!(row("outcome ").contains("this is unrecoverable"), "{report}");
    Ok(())
}

fn nil_deferred(built: &Built) -> Result<()> {
    let run = watched(built, &[], &[])?;
    ensure!(run.incidents.len() == 3, "{} incidents", run.incidents.len());
    for incident in &run.incidents[1..] {
        let defer =
            incident.panics.first().and_then(|panic| panic.defers.first()).context("no deferred call")?;
        ensure!(defer.nil && defer.function.is_none(), "{defer:?}");
        ensure!(defer.ended == Some(DeferEnd::Panicked), "{defer:?}");
        let untold: Vec<_> = incident.missing.iter().filter(|m| m.what.contains("defers[0]")).collect();
        ensure!(untold.is_empty(), "{untold:?}");
        let report = panicwatch::render::report::full(incident, &panicwatch::render::text::Style::default());
        ensure!(report.contains("deferred nil function: panicked"), "{report}");
    }
    Ok(())
}

fn methods(built: &Built) -> Result<()> {
    let run = watched(built, &[], &[])?;
    let seen: Vec<_> =
        run.incidents.iter().filter_map(|incident| incident.panics.first()).map(|p| &p.value).collect();
    let half =
        if built.release.prints_shortest_floats() { "main.ratio(0.5)" } else { "main.ratio(+5.000000e-001)" };
    let want = [
        (None, Some(r#"main.constErr("not found")"#)),
        (None, Some("main.status(-404)")),
        (None, Some(half)),
        (None, Some("main.flag(true)")),
        (None, Some("&main.small(200)")),
        (Some("1.5s"), None),
    ];
    ensure!(seen.len() == want.len(), "{} incidents", seen.len());
    for (value, (text, detail)) in seen.iter().zip(want) {
        ensure!(value.text.as_deref() == text && value.detail.as_deref() == detail, "{value:?}");
    }
    Ok(())
}

/// Reports as many ancestors as Go keeps, and that the others are missing.
fn ancestors(built: &Built) -> Result<()> {
    // Number of creators, GODEBUG=tracebackancestors, and whether the panic is recovered: within Go's list,
    // beyond Go's list, beyond the 64 that are copied, and without the setting.
    for (created, keeps, recovers) in
        [(3, 10, true), (3, 10, false), (3, 2, false), (70, 100, false), (3, 0, false)]
    {
        let depth = (created - 2_usize).to_string();
        let args: &[&str] = if recovers { &[&depth, "recover"] } else { &[&depth] };
        let mut program = Program::new(&built.path, args);
        if keeps > 0 {
            program.env.push(("GODEBUG".into(), format!("tracebackancestors={keeps}")));
        }
        let run = run::watched(&program)?;
        let incident = only(run.incidents)?;
        let ids: Vec<u64> = incident.ancestry.iter().map_while(|ancestor| ancestor.goroutine_id).collect();
        // Go prints "[originating from goroutine 7]:" for each ancestor.
        let printed: Vec<u64> = run
            .output
            .stderr
            .lines()
            .filter_map(|line| {
                line.strip_prefix("[originating from goroutine ")?.strip_suffix("]:")?.parse().ok()
            })
            .collect();
        let what =
            format!("{created} creators, {keeps} kept: {:?}, {:?}", incident.ancestry, incident.missing);
        let places: Vec<&str> = incident
            .ancestry
            .iter()
            .filter_map(|ancestor| ancestor.created_at.as_ref())
            .map(|frame| frame.function.as_str())
            .collect();
        ensure!(places.iter().all(|place| ["main.next", "main.main"].contains(place)), "{what}");
        let untold = |field: &str| incident.missing.iter().any(|missing| missing.what.starts_with(field));
        if keeps >= created {
            ensure!(ids.last() == Some(&1) || created > 64, "{what}");
        }
        match (created, keeps) {
            (3, 10) => {
                ensure!(ids.len() == 3 && places == ["main.next", "main.next", "main.main"], "{what}");
                ensure!(!untold("ancestry"), "{what}");
            }
            (3, 2) => {
                ensure!(ids.len() == 2 && places == ["main.next", "main.next", "main.main"], "{what}");
                ensure!(untold("ancestry[2].goroutine_id"), "{what}");
            }
            (70, _) => {
                ensure!(ids.len() == 64 && untold("ancestry[64].goroutine_id"), "{what}");
            }
            _ => ensure!(ids.len() <= 1 && untold("ancestry"), "{what}"),
        }
        if !recovers && keeps > 0 {
            let printed = &printed[..printed.len().min(64)];
            ensure!(printed == ids, "Go prints {printed:?}, {what}");
        }
    }
    Ok(())
}

/// The outermost frames are the real ones, and frames that were not seen are not counted.
fn endless(built: &Built) -> Result<()> {
    for (depth, whole) in [("1000", true), ("300000", false)] {
        let run = watched(built, &[depth], &["--no-timeline", "--max-capture-time", "4s"])?;
        ensure!(run.incidents.len() == 2, "{} incidents", run.incidents.len());
        for incident in &run.incidents {
            let names: Vec<&str> = incident.stack.iter().map(|frame| frame.function.as_str()).collect();
            if built.release.traceback_prints_both_ends() {
                let outer = names.iter().position(|name| *name == "main.outer");
                let outer = outer.context("main.outer is missing")?;
                ensure!(names.last() == Some(&"main.main") && outer + 3 >= names.len(), "{names:?}");
                ensure!(names.len() == 100, "{} frames", names.len());
            } else {
                // Go 1.20 and earlier print only the innermost frames.
                ensure!(names.iter().all(|name| *name == "main.down"), "{names:?}");
            }
            let elided = incident.stack_elided;
            ensure!(elided.is_some() == whole, "{depth}: stack_elided {elided:?}");
            let told = reason(incident, "stack").is_some() && reason(incident, "stack_elided").is_some();
            ensure!(told != whole, "{depth}: {:?}", incident.missing);
        }
    }
    Ok(())
}

/// A capture that reaches its time limit copies no more, says so, and invents nothing: outcome and panics
/// stay right.
fn out_of_time(built: &Built) -> Result<()> {
    const LIMIT: &str = "time limit";
    let run = watched(built, &["300000"], &["--no-timeline", "--max-capture-time", "1us"])?;
    let whole = watched(built, &["300000"], &["--no-timeline", "--max-capture-time", "4s"])?;
    let outcomes = |run: &Watched| run.incidents.iter().map(|i| (i.kind, i.outcome)).collect::<Vec<_>>();
    ensure!(outcomes(&run) == outcomes(&whole), "{:?}, not {:?}", outcomes(&run), outcomes(&whole));
    ensure!(run.output.stderr.contains("a capture reached its time limit"), "{}", run.output.stderr);
    ensure!(!whole.output.stderr.contains(LIMIT), "{}", whole.output.stderr);
    for (cut, whole) in run.incidents.iter().zip(&whole.incidents) {
        let told = cut.missing.iter().any(|missing| missing.reason.contains(LIMIT));
        ensure!(told && reason(cut, "stack").is_some(), "{:?}", cut.missing);
        ensure!(!whole.missing.iter().any(|missing| missing.reason.contains(LIMIT)), "{:?}", whole.missing);
        let (few, all) = (cut.capture.bytes.unwrap_or(0), whole.capture.bytes.unwrap_or(0));
        ensure!(few < 1 << 20 && all > 7 << 20, "{few} and {all} bytes");
        ensure!(cut.panics.iter().all(|panic| panic.site.is_none()), "a site without a stack");
    }
    Ok(())
}

/// With an event ring that is much too small, no incident is wrong: an incident that lacks records reports
/// it.
fn lost(built: &Built) -> Result<()> {
    for (ring, args) in [("65536", ["3000", "die"]), ("16384", ["3000", "die"]), ("32768", ["300", "die"])] {
        let mut program = Program::new(&built.path, &args).with(&["--max-captures", "0", "--no-timeline"]);
        program.env.push(("PANICWATCH_EVENT_RING_BYTES".into(), ring.into()));
        let run = run::watched(&program)?;
        ensure!(run.output.status == 2, "exit status {}", run.output.status);
        let lost = run.output.stderr.contains("the event ring was full and an event was lost");
        let mut wrong = Vec::new();
        let (mut seen, mut raised) = (BTreeSet::new(), BTreeSet::new());
        for incident in &run.incidents {
            // Panics whose text was lost are distinguished by the time of the raise.
            let text = texts(incident).join(", ");
            let last = text == "the last one" || incident.message.as_deref() == Some("the last one");
            let told = reason(incident, "outcome").is_some_and(|reason| reason.contains("lost"));
            let right = match incident.outcome {
                Outcome::Recovered => !last && incident.panics.len() == 1,
                Outcome::Unknown => told && incident.panics.len() == 1,
                Outcome::Fatal => last && incident.panics.len() <= 1,
                Outcome::Exited | Outcome::Goexit => false,
            };
            let twice = incident.outcome != Outcome::Fatal && !text.is_empty() && !seen.insert(text.clone());
            let again = incident.panics.iter().any(|panic| !raised.insert(panic.raised_ns));
            let untold = text.is_empty() && incident.missing.is_empty();
            if !right || twice || again || untold {
                wrong.push(format!("{:?} {text:?} {:?}", incident.outcome, incident.missing));
            }
        }
        none(&format!("wrong with a ring of {ring} bytes"), &wrong)?;
        ensure!(lost || args[0] == "300", "with a ring of {ring} bytes nothing was lost");
    }
    Ok(())
}
