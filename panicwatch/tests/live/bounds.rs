//! Crosses every bound of a capture: data within the bound is known, data beyond it is missing with a reason.
//!
//! The program (`tests/fixtures/go/bounds`) recovers one panic, or dies of it; its arguments select the bound
//! and the size.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use panicwatch::incident::{Exit, Incident, Kind, Outcome};

use crate::{
    compare::{self, Differences, Expect},
    fixtures::{Built, only, recovered},
    go_text::Account,
    ledger::none,
    run::{self, Program, Watched},
};

/// Environment variable that sets the number of rows of the tables that the eBPF programs fill.
const TABLE_ROWS: &str = "PANICWATCH_TABLE_ROWS";

/// Returns the only incident of the program run with `args`.
fn incident(built: &Built, args: &[&str]) -> Result<Incident> {
    let run = run::watched(&Program::new(&built.path, args))?;
    let incident = only(run.incidents).with_context(|| format!("{args:?}"))?;
    let outcome = if args.len() > 1 { Outcome::Fatal } else { Outcome::Recovered };
    ensure!(incident.outcome == outcome, "{args:?}: outcome {:?}", incident.outcome);
    Ok(incident)
}

fn reason<'a>(incident: &'a Incident, what: &str) -> Option<&'a str> {
    incident.missing.iter().find(|missing| missing.what == what).map(|missing| missing.reason.as_str())
}

/// Go 1.24 and later: 64 labels, 984 bytes of each text. Earlier releases: 32 buckets of a map, which hold at
/// least 50 labels.
pub(crate) fn labels(built: &Built) -> Result<()> {
    let mut d = Differences::default();
    let is_list = built.toolchain.release.labels_are_list();
    for (count, die) in [(17, false), (17, true), (50, false), (64, false), (65, false), (500, true)] {
        let arg = format!("labels={count}");
        let args = [arg.as_str(), "die"];
        let found = incident(built, &args[..1 + usize::from(die)])?;
        let labels = &found.goroutine.as_ref().context("no goroutine")?.labels;
        let whole = if is_list { count <= 64 } else { count <= 50 };
        if whole {
            d.equal(&format!("{arg}: labels"), count, labels.len());
        }
        if !whole && is_list {
            d.equal(&format!("{arg}: labels of the list's beginning"), 64, labels.len());
        }
        let complete = labels.len() == count;
        d.equal(&format!("{arg}: missing says so"), !complete, reason(&found, "goroutine.labels").is_some());
        let right = labels.iter().all(|(key, value)| {
            let digit = key.trim_start_matches("key").chars().last().unwrap_or(' ');
            value.len() == 3 && value.chars().all(|c| c == digit)
        });
        d.equal(&format!("{arg}: each label is its own"), true, right);
    }
    for (size, known) in [(216, 216), (217, 217), (984, 984), (985, 984), (100_000, 984)] {
        let arg = format!("label={size}");
        let found = incident(built, &[&arg])?;
        let labels = &found.goroutine.as_ref().context("no goroutine")?.labels;
        let lengths: Vec<usize> = labels.values().map(String::len).collect();
        d.equal(&format!("{arg}: lengths"), vec![known; 2], lengths);
        d.equal(
            &format!("{arg}: missing says so"),
            size != known,
            reason(&found, "goroutine.labels").is_some(),
        );
    }
    none("labels", &d.0)
}

/// The value's own text is known up to a mebibyte, and the text of an error it refers to up to 4 KiB. If the
/// panic is fatal, the runtime turns the error into a string, which is known up to a mebibyte again.
pub(crate) fn texts(built: &Built) -> Result<()> {
    const MIB: usize = 1 << 20;
    let mut d = Differences::default();
    for (args, known) in [
        (vec!["text=65497".to_owned()], 65_497),
        (vec![format!("text={MIB}")], MIB),
        (vec![format!("text={}", MIB + 1)], MIB),
        (vec![format!("text={}", 16 * MIB)], MIB),
        (vec!["error=4096".to_owned()], 4096),
        (vec!["error=4097".to_owned()], 4096),
        (vec!["error=4097".to_owned(), "die".to_owned()], 4097),
        (vec![format!("error={}", MIB + 1), "die".to_owned()], MIB),
    ] {
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        let found = incident(built, &words)?;
        let text = found.message.clone().unwrap_or_default();
        d.equal(&format!("{args:?}: bytes"), known, text.len());
        d.equal(&format!("{args:?}: all of them right"), true, text.bytes().all(|b| b == b'x'));
        let len: usize = words[0].split_once('=').context("a count")?.1.parse()?;
        for what in ["message", "panics[0].value.text", "panics[0].value.printed"] {
            d.equal(&format!("{args:?}: {what} missing"), known != len, reason(&found, what).is_some());
        }
    }
    none("texts", &d.0)
}

/// More objects than the queue holds: the first ones are in the detail, and no text is invented.
pub(crate) fn objects(built: &Built) -> Result<()> {
    let mut d = Differences::default();
    for count in [1, 10, 30, 64, 65, 1000] {
        let found = incident(built, &[&format!("joined={count}")])?;
        let detail = found.panics[0].value.detail.clone().unwrap_or_default();
        // The queue has the objects of one level before the strings that they refer to.
        let shown = count.min(20);
        for i in [0, shown - 1] {
            d.equal(&format!("{count}: step {i}"), true, detail.contains(&format!("\"step {i}: EOF\"")));
        }
        d.equal(&format!("{count}: text"), None, found.panics[0].value.text.clone());
    }
    none("objects", &d.0)
}

/// Deferred records are followed up to a bound; beyond it, the depth is unknown.
pub(crate) fn defers(built: &Built) -> Result<()> {
    let mut d = Differences::default();
    for count in [16, 100, 200] {
        let found = incident(built, &[&format!("defers={count}")])?;
        let depth = found.goroutine.as_ref().context("no goroutine")?.defer_depth;
        let said = reason(&found, "goroutine.defer_depth").is_some();
        // Two more deferred calls: the deferring function's own, and runtime.main's.
        let whole = (count < 120).then_some(count + 2);
        d.equal(&format!("{count}: depth"), whole, depth);
        d.equal(&format!("{count}: missing says so"), whole.is_none(), said);
    }
    none("defers", &d.0)
}

/// A failed type assertion is three words: the first two look like a string whose length is an address.
pub(crate) fn assertion(built: &Built) -> Result<()> {
    let found = incident(built, &["assertion=1"])?;
    let text = found.panics[0].value.text.as_deref();
    ensure!(text == Some("interface conversion: interface {} is string, not int"), "text {text:?}");
    let bytes = found.capture.bytes.context("the capture's size is not known")?;
    ensure!(bytes < 64 << 10, "{bytes} bytes were copied of it");
    Ok(())
}

/// Untouched stack pages are the only data missing: stacks and sites are right, and two defects have two
/// fingerprints.
pub(crate) fn cold(built: &Built) -> Result<()> {
    let (_, run) = recovered(built)?;
    let [one, two] = &run.incidents[..] else { bail!("{} incidents", run.incidents.len()) };
    ensure!(one.fingerprint != two.fingerprint, "both are {}", one.fingerprint);
    ensure!(reason(one, "stack").is_none() && reason(two, "stack").is_none(), "{:?}", one.missing);
    Ok(())
}

/// A text that extends into memory that was never touched is truncated there.
pub(crate) fn cold_text(built: &Built) -> Result<()> {
    let found = only(run::watched(&built.program())?.incidents)?;
    // The text begins 96 bytes before the end of the page.
    let expected = format!("{:\0<96}", "begins on one page");
    ensure!(found.message.as_ref() == Some(&expected), "message {:?}", found.message);
    ensure!(reason(&found, "message").is_some(), "missing {:?}", found.missing);
    Ok(())
}

/// The same when the process dies of the panic, compared with Go's own output.
pub(crate) fn cold_fatal(built: &Built) -> Result<()> {
    let run = run::watched(&built.program())?;
    let (account, incident) = fatal_of(&run)?;
    let expect = Expect {
        kind: Kind::Panic,
        release: built.toolchain.release,
        nothing_recovered: false,
        exit: Exit { code: Some(2), signal: None },
    };
    none("the incident is not what Go said", &compare::fatal(&account, incident, &expect))
}

/// Parses what Go printed, and returns it with the only fatal incident of the run.
fn fatal_of(run: &Watched) -> Result<(Account, &Incident)> {
    let account = Account::parse(&run.output.stderr)
        .with_context(|| format!("no account in {:?}", run.output.stderr))?;
    let fatal: Vec<&Incident> = run.incidents.iter().filter(|i| i.outcome == Outcome::Fatal).collect();
    let [incident] = fatal[..] else { bail!("{} fatal incidents", fatal.len()) };
    Ok((account, incident))
}

/// Tables with two rows, and panics beyond the rate at four sites: each panic is captured, counted at its
/// site, or reported as one that could not be counted.
pub(crate) fn places(built: &Built) -> Result<()> {
    const EACH: usize = 500;
    let arg = format!("places={EACH}");
    let mut program = Program::new(&built.path, &[&arg]).with(&["--max-captures", "1", "--no-timeline"]);
    program.env.push((TABLE_ROWS.into(), "2".into()));
    let run = run::watched(&program)?;
    ensure!(run.output.status == 0, "exit status {}: {}", run.output.status, run.output.stderr);
    let stderr = &run.output.stderr;
    let (captured, counted) = (run.incidents.len(), said(stderr, " more panic"));
    let uncounted = said(stderr, "a panic could not even be counted");
    ensure!(counted > 0 && uncounted > 0, "{counted} counted, {uncounted} not: {stderr}");
    let all = captured + counted + uncounted;
    ensure!(all == 4 * EACH, "{captured} captured, {counted} counted, {uncounted} not: {stderr}");
    Ok(())
}

/// A table with two rows, and five watched processes: the report counts the processes that found no row.
pub(crate) fn processes(built: &Built) -> Result<()> {
    let path = built.path.display().to_string();
    let five = "for i in 1 2 3 4 5; do \"$0\" text=8 & done; wait";
    let mut program = Program::new(Path::new("/bin/sh"), &["-c", five, &path]).with(&["--no-timeline"]);
    program.env.push((TABLE_ROWS.into(), "2".into()));
    let run = run::watched(&program)?;
    ensure!(run.output.status == 0, "exit status {}: {}", run.output.status, run.output.stderr);
    ensure!(run.output.stdout.matches("done").count() == 5, "changed: {:?}", run.output);
    let said = run.output.stderr.contains("the table of watched processes is full");
    ensure!(said || run.incidents.len() == 5, "{} incidents, {}", run.incidents.len(), run.output.stderr);
    ensure!(said, "the table was never full: {}", run.output.stderr);
    Ok(())
}

/// Goroutines that panic before the first of them recovers.
const TOGETHER: usize = 40;

fn together(built: &Built, captures: &str, ring_bytes: &str) -> Result<Watched> {
    let arg = format!("together={TOGETHER}");
    let mut program = Program::new(&built.path, &[&arg]).with(&["--max-captures", captures, "--no-timeline"]);
    program.env.push((TABLE_ROWS.into(), "2".into()));
    program.env.push(("PANICWATCH_EVENT_RING_BYTES".into(), ring_bytes.into()));
    let run = run::watched(&program)?;
    ensure!(run.output.status == 0, "exit status {}: {}", run.output.status, run.output.stderr);
    ensure!(run.output.stdout == "done\n", "changed: {:?}", run.output);
    Ok(run)
}

/// Two rows for goroutines that lost records: the losses of all others count for every goroutine, and no
/// incident is wrong.
pub(crate) fn lost_rows(built: &Built) -> Result<()> {
    let run = together(built, "0", "65536")?;
    let mut complete = 0;
    for incident in &run.incidents {
        let lost = reason(incident, "outcome").is_some_and(|reason| reason.contains("lost"));
        match incident.outcome {
            Outcome::Recovered => complete += 1,
            Outcome::Unknown if lost => {}
            outcome => bail!("outcome {outcome:?}, {:?}", incident.missing),
        }
        ensure!(incident.panics.len() == 1, "{} panics", incident.panics.len());
    }
    let losers = TOGETHER - complete;
    ensure!(losers > 2, "{losers} goroutines lost records: {}", run.output.stderr);
    Ok(())
}

/// Two rows for goroutines whose panic is only counted: each panic is captured or counted once, and none is
/// reported in part.
pub(crate) fn quiet_rows(built: &Built) -> Result<()> {
    let run = together(built, "1", "16777216")?;
    for incident in &run.incidents {
        ensure!(incident.outcome == Outcome::Recovered && incident.panics.len() == 1, "{incident:?}");
    }
    let (captured, stderr) = (run.incidents.len(), &run.output.stderr);
    let counted = said(stderr, " more panic") + said(stderr, "a panic could not even be counted");
    ensure!(counted > 2, "{counted} counted: {stderr}");
    ensure!(captured + counted == TOGETHER, "{captured} captured, {counted} counted: {stderr}");
    Ok(())
}

/// Returns the sum of the numbers at the beginning of the messages that contain `what`.
fn said(stderr: &str, what: &str) -> usize {
    let lines = stderr.lines().filter(|line| line.contains(what));
    lines.filter_map(|line| line.strip_prefix("panicwatch: ")?.split(' ').next()?.parse::<usize>().ok()).sum()
}
