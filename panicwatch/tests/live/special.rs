//! Fixtures that need a judge of their own.

use anyhow::{Context, Result, ensure};
use panicwatch::{
    go::release::Release,
    incident::{DeferEnd, Exit, Incident, Kind, Outcome, State},
};

use crate::{
    compare::{self, Differences, Expect, runs::normalised},
    fixtures::{Built, dies, fatal, only, recovered},
    go_text::Account,
    ledger::none,
    need, process,
    run::{self, Program, Running},
};

/// Recovers every value: the text must be what the program sees, the printed form what Go prints when the
/// value is fatal.
pub(crate) fn values(built: &Built) -> Result<()> {
    let (truths, run) = recovered(built)?;
    let mut wrong = Vec::new();
    for (n, (truth, incident)) in truths.iter().zip(&run.incidents).enumerate() {
        let bare = run::bare(&Program::new(&built.path, &["die", &n.to_string()]))?;
        let account =
            Account::parse(&bare.stderr).with_context(|| format!("no account in {:?}", bare.stderr))?;
        let go = account.chain.first().map(|l| normalised(&l.printed));
        let seen = incident.panics.last().and_then(|p| p.value.printed.as_ref()).map(|p| normalised(p));
        // If only the program itself can produce an error's text, it cannot be printed without running the
        // program.
        let needed = truth.readable || go.as_ref().is_some_and(|p| p.starts_with('('));
        // U+FFFD stands for bytes that are not valid UTF-8; the raw bytes are kept in raw_hex.
        let broken = truth.text.as_ref().is_some_and(|t| t.contains('\u{fffd}'));
        let raw = incident.panics.last().and_then(|p| p.value.raw_hex.as_deref());
        if raw != broken.then_some("62616420fffe206279746573") {
            wrong.push(format!("value {n}, {:?}: raw_hex {raw:?}", truth.text));
        }
        if (needed || seen.is_some()) && seen != go {
            wrong
                .push(format!("value {n}, {}: Go prints {go:?}, value.printed is {seen:?}", truth.type_name));
        }
    }
    none("printed values", &wrong)
}

/// Dies of every value in turn, and compares the incident with what Go prints for it.
pub(crate) fn each_value_fatal(built: &Built) -> Result<()> {
    let count = run::bare(&Program::new(&built.path, &["count"]))?.stdout;
    let count: usize = count.trim().parse().context("count")?;
    let newest_or_full = need::full() || built.toolchain.release == Release::NEWEST;
    let mut wrong = Vec::new();
    // Every value on the newest release; on each other release every fifth, with a different offset.
    for n in (0..count)
        .filter(|n| newest_or_full || (n + usize::from(built.toolchain.release.minor())).is_multiple_of(5))
    {
        let n = n.to_string();
        let run = run::watched(&Program::new(&built.path, &["die", &n]))?;
        if let Err(error) = fatal(built, run, Kind::Panic, false) {
            wrong.push(format!("value {n}: {error:#}"));
        }
    }
    none("fatal values", &wrong)
}

/// Checks the labels of the goroutine that panicked, and whether it is locked to a thread.
pub(crate) fn labels(built: &Built) -> Result<()> {
    let (_, run) = recovered(built)?;
    let mut d = Differences::default();
    let of = |text: &str| {
        run.incidents.iter().find(|i| i.message.as_deref() == Some(text)).and_then(|i| i.goroutine.as_ref())
    };
    let labelled = of("labelled").context("no goroutine")?;
    d.equal("label request", Some("42"), labelled.labels.get("request").map(String::as_str));
    d.equal("label user", Some("a \"b\" c"), labelled.labels.get("user").map(String::as_str));
    d.equal("locked_to_thread", Some(true), of("locked").context("no goroutine")?.locked_to_thread);
    d.equal("locked_to_thread of the other", Some(false), labelled.locked_to_thread);
    none("labels", &d.0)
}

fn init_of(built: &Built, package: &str) -> Result<()> {
    let incident = dies(built, Kind::Panic)?;
    let init = incident.init.context("init is null")?;
    ensure!(init.package.as_deref() == Some(package), "init.package {:?}, not {package}", init.package);
    ensure!(!init.chain.is_empty(), "init.chain is empty");
    Ok(())
}

/// Dies in a package's init function.
pub(crate) fn init(built: &Built) -> Result<()> {
    init_of(built, "fixtures/initpanic/bad")
}

/// Dies in a variable's initializer.
pub(crate) fn init_variable(built: &Built) -> Result<()> {
    init_of(built, "fixtures/initvar/bad")
}

/// Dies before anything could have attached to the process.
pub(crate) fn early(built: &Built) -> Result<()> {
    init_of(built, "main")
}

/// Two panics with the same value, none recovered: Go 1.25 prints `[recovered, repanicked]`
/// (golang/go#76099).
pub(crate) fn same_value(built: &Built) -> Result<()> {
    let bare = run::bare(&built.program())?;
    let run = run::watched(&built.program())?;
    none("watching changed the program", &compare::runs::compare(&bare, &run.output, false))?;
    let incident = fatal(built, run, Kind::Panic, true)?;
    ensure!(incident.panics.len() == 2, "{} panics, not 2", incident.panics.len());
    Ok(())
}

/// runtime.Goexit in a deferred call ends the goroutine, not the process.
pub(crate) fn goexit(built: &Built) -> Result<()> {
    let run = run::watched(&built.program())?;
    ensure!(run.output.stdout == "done\n" && run.output.status == 0, "changed: {:?}", run.output);
    let incident = only(run.incidents)?;
    let mut d = Differences::default();
    d.equal("outcome", Outcome::Goexit, incident.outcome);
    d.equal("message", Some("before Goexit"), incident.message.as_deref());
    d.equal("state", Some(State::Aborted), incident.panics.first().map(|p| p.state));
    d.equal("defer ended", Some(DeferEnd::Goexit), last_defer(&incident));
    d.equal("exit", None, incident.exit);
    none("goexit", &d.0)
}

/// os.Exit in a deferred call ends the process.
pub(crate) fn exit(built: &Built) -> Result<()> {
    let run = run::watched(&built.program())?;
    ensure!(run.output.status == 7, "exit status {}", run.output.status);
    ensure!(run.output.stderr.is_empty(), "standard error {:?}", run.output.stderr);
    let incident = only(run.incidents)?;
    let mut d = Differences::default();
    d.equal("outcome", Outcome::Exited, incident.outcome);
    d.equal("message", Some("before Exit"), incident.message.as_deref());
    d.equal("exit", Some(Exit { code: Some(7), signal: None }), incident.exit);
    d.equal("defer ended", Some(DeferEnd::Exited), last_defer(&incident));
    none("exit", &d.0)
}

fn last_defer(incident: &Incident) -> Option<DeferEnd> {
    incident.panics.last()?.defers.last()?.ended
}

/// A program that does not panic: nothing is reported.
pub(crate) fn no_panic(built: &Built) -> Result<()> {
    let run = run::watched(&built.program())?;
    ensure!(run.output.stdout == "done\n" && run.output.status == 0, "changed: {:?}", run.output);
    ensure!(run.output.stderr.is_empty(), "standard error {:?}", run.output.stderr);
    ensure!(run.incidents.is_empty(), "{} incidents invented", run.incidents.len());
    Ok(())
}

/// Reports each of many panics, in order, and nothing else.
pub(crate) fn counter(built: &Built) -> Result<()> {
    let run = run::watched(&built.program().with(&["--max-captures", "0"]))?;
    ensure!(run.output.stdout == format!("{}\n", built.args[0]), "changed: {:?}", run.output);
    let count: usize = built.args[0].parse()?;
    let mut at = 0;
    let mut wrong = Vec::new();
    for incident in &run.incidents {
        let text = incident.panics.first().and_then(|p| p.value.text.as_deref());
        if incident.outcome != Outcome::Recovered || text != Some(at.to_string().as_str()) {
            wrong.push(format!("{:?} {text:?} where {at} was due", incident.outcome));
        }
        at = text.and_then(|t| t.parse().ok()).unwrap_or(at) + 1;
    }
    wrong.truncate(20);
    none("counter", &wrong)?;
    ensure!(run.incidents.len() == count, "{} incidents of {count}", run.incidents.len());
    Ok(())
}

/// Panics beyond the capture rate are counted, every one of them.
pub(crate) fn counted(built: &Built) -> Result<()> {
    let run = run::watched(&built.program().with(&["--max-captures", "20"]))?;
    ensure!(run.output.stdout == format!("{}\n", built.args[0]), "changed: {:?}", run.output);
    let total: usize = built.args[0].parse()?;
    let (told, captured) = (&run.output.stderr, run.incidents.len());
    let mut counted = 0;
    for line in told.lines() {
        let rest = line.strip_prefix("panicwatch: ").with_context(|| format!("a foreign line: {line:?}"))?;
        let (count, rest) =
            rest.split_once(" more panic").with_context(|| format!("another line: {line:?}"))?;
        ensure!(rest.contains("main.once (") && rest.contains("main.go:"), "the place is missing: {line:?}");
        counted += count.parse::<usize>()?;
    }
    ensure!((100..total).contains(&captured), "{captured} captured of {total}");
    ensure!(captured + counted == total, "{captured} captured and {counted} counted of {total}: {told:?}");
    Ok(())
}

/// A death beyond that rate is still reported, as Go's own output has it.
pub(crate) fn fatal_beyond(built: &Built) -> Result<()> {
    let run = run::watched(&built.program().with(&["--max-captures", "20"]))?;
    ensure!(run.output.status == 2, "exit status {}", run.output.status);
    let fatal = run.incidents.last().context("no incident")?;
    let mut d = Differences::default();
    d.equal("outcome", Outcome::Fatal, fatal.outcome);
    d.equal("message", Some("the last one"), fatal.message.as_deref());
    let stack: Vec<&str> = fatal.stack.iter().map(|frame| frame.function.as_str()).collect();
    d.equal("stack", vec!["main.main"], stack);
    d.equal("panics", 0, fatal.panics.len());
    let reason = fatal.missing.iter().find(|missing| missing.what == "panics").map(|m| m.reason.as_str());
    d.equal("told why", true, reason.is_some_and(|reason| reason.contains("--max-captures")));
    d.equal("timeline", true, fatal.timeline.is_some());
    none("fatal beyond the rate", &d.0)
}

/// Goroutines that die at the same time: one fatal incident for each account that Go completed, and none that
/// Go does not print. The last account can be truncated: a thread may begin to print when another is about to
/// end the process.
pub(crate) fn stampede(built: &Built) -> Result<()> {
    let run = run::watched(&built.program())?;
    ensure!(run.output.status == 2, "exit status {}", run.output.status);
    let accounts = Account::all(&run.output.stderr);
    let fatal: Vec<_> = run.incidents.iter().filter(|i| i.outcome == Outcome::Fatal).collect();
    for incident in &fatal {
        let named = accounts.iter().any(|a| a.chain.first().map(|c| &c.printed) == incident.message.as_ref());
        ensure!(named, "Go says nothing of {:?}", incident.message);
    }
    let exit = Exit { code: Some(2), signal: None };
    let expect =
        Expect { kind: Kind::Panic, release: built.toolchain.release, nothing_recovered: false, exit };
    let mut compared = 0;
    for account in &accounts {
        let Some(id) = account.subject().map(|g| g.id) else { continue };
        let incident = fatal.iter().find(|i| i.goroutine.as_ref().map(|g| g.id) == Some(id));
        let incident = incident.with_context(|| format!("no incident of goroutine {id}"))?;
        none("the incident is not what Go said", &compare::fatal(account, incident, &expect))?;
        compared += 1;
    }
    ensure!(compared > 0, "Go finished no account: {:?}", run.output.stderr);
    Ok(())
}

fn sent(built: &Built, signal: i32) -> Result<run::Watched> {
    let mut running = Running::watched(&built.program())?;
    running.wait_for("ready")?;
    run::signal(process::running(&built.path, running.child.id())?, signal)?;
    running.finish_watched()
}

/// SIGSEGV from another process: Go does not turn it into a panic.
pub(crate) fn segv(built: &Built) -> Result<()> {
    let run = sent(built, libc::SIGSEGV)?;
    ensure!(run.output.status == 2, "exit status {}", run.output.status);
    fatal(built, run, Kind::Signal, false).map(drop)
}

/// SIGQUIT: Go prints a goroutine dump and exits.
pub(crate) fn quit(built: &Built) -> Result<()> {
    let run = sent(built, libc::SIGQUIT)?;
    ensure!(run.output.status == 2, "exit status {}", run.output.status);
    fatal(built, run, Kind::Signal, false).map(drop)
}

/// SIGKILL: Go cannot handle it, and there is no panic to report.
pub(crate) fn kill(built: &Built) -> Result<()> {
    let run = sent(built, libc::SIGKILL)?;
    ensure!(run.output.status == 137, "exit status {}, not 128 + 9", run.output.status);
    ensure!(run.incidents.is_empty(), "{} incidents invented", run.incidents.len());
    Ok(())
}

/// A fault in C code: Go cannot turn it into a panic.
pub(crate) fn crash_in_c(built: &Built) -> Result<()> {
    let kind = if built.toolchain.release.fault_in_c_is_fatal() { Kind::Signal } else { Kind::Throw };
    dies(built, kind).map(drop)
}
