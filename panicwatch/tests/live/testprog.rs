//! The Go runtime's crash programs in every release: bare to test the comparison, watched to test panicwatch.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use libtest_mimic::Trial;
use panicwatch::{
    go::release::Release,
    incident::{Exit, Incident, Kind, Outcome},
};

use crate::{
    compare::{self, Expect, runs::Output},
    go_text::Account,
    gobuild::{self, Flavour},
    judges,
    ledger::{End, Verdict, cell, none},
    need,
    run::{self, Program},
    scenarios::{Lesser, SCENARIOS, Scenario},
    toolchain::{self, Toolchain},
};

/// Returns the tests of both groups, for every scenario and release. The newest release runs every scenario;
/// with PANICWATCH_TEST_FULL=1, all releases do.
pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (version, toolchain) in toolchain::all() {
        let release = toolchain.as_ref().map(|toolchain| toolchain.release).ok();
        let minor = release.map_or(u16::MAX, Release::minor);
        for scenario in SCENARIOS.iter().filter(|s| (s.since..=s.until).contains(&minor)) {
            let (bare, watched) = (toolchain.clone(), toolchain.clone());
            let name = scenario.label();
            trials.push(cell("oracle", &version, &name, move || judge(scenario, bare.clone())));
            if scenario.full_only && release != Some(Release::NEWEST) && !need::full() {
                continue;
            }
            trials.push(cell("testprog", &version, &name, move || watch(scenario, watched.clone())));
        }
    }
    trials
}

/// Builds the program, or returns the reason why it cannot be built.
fn program(
    scenario: &Scenario,
    toolchain: Result<Toolchain, String>,
) -> Result<Result<(Toolchain, PathBuf), String>> {
    let toolchain = match toolchain {
        Ok(toolchain) => toolchain,
        Err(reason) => return Ok(Err(reason)),
    };
    if scenario.program.ends_with("cgo") && !need::on_path("gcc") {
        return Ok(Err("gcc is not installed".to_owned()));
    }
    let source = toolchain.root.join("src/runtime/testdata").join(scenario.program);
    if !source.is_dir() {
        return Ok(Err(format!("this Go has no {}", source.display())));
    }
    let flavour = Flavour { name: "testprog", flags: scenario.flags };
    let path = gobuild::build(&toolchain, &source, flavour, &[])?;
    Ok(Ok((toolchain, path)))
}

/// Bare run: the table is right, the output is parsed completely, and the comparison accepts the truth and
/// rejects any damage.
fn judge(scenario: &Scenario, toolchain: Result<Toolchain, String>) -> Verdict {
    let (toolchain, path) = match program(scenario, toolchain)? {
        Ok(found) => found,
        Err(reason) => return Ok(End::Skipped(reason)),
    };
    let output = bare(scenario, &path)?;
    let Some(kind) = scenario.kind else { return Ok(End::Passed) };
    let (account, expect) = account(&output, kind, toolchain.release)?;
    judges::fatal(&account, &expect)?;
    if scenario.env.is_empty() {
        judges::sound(&account, &expect)?;
    }
    none("a run differs from itself", &compare::runs::compare(&output, &output, false))?;
    Ok(End::Passed)
}

/// Watched run: the program behaves as it does alone, and the incident agrees with Go's output.
fn watch(scenario: &Scenario, toolchain: Result<Toolchain, String>) -> Verdict {
    if let Some(reason) = need::probes() {
        return Ok(End::Skipped(reason));
    }
    let (toolchain, path) = match program(scenario, toolchain)? {
        Ok(found) => found,
        Err(reason) => return Ok(End::Skipped(reason)),
    };
    let bare = bare(scenario, &path)?;
    let mut run = run::watched(&started(scenario, &path))?;
    for _ in 1..scenario.attempts {
        if run.output.status == scenario.status {
            break;
        }
        run = run::watched(&started(scenario, &path))?;
    }
    none("watching changed the program", &compare::runs::compare(&bare, &run.output, scenario.anywhere))?;
    let (fatal, mut rest): (Vec<&Incident>, Vec<&Incident>) =
        run.incidents.iter().partition(|i| i.outcome == Outcome::Fatal);
    let said =
        || format!("{:?}", run.incidents.iter().map(|i| (i.kind, i.outcome, &i.message)).collect::<Vec<_>>());
    // In racy programs, several goroutines may detect the race and die of it.
    let (wanted, racy) = (usize::from(scenario.kind.is_some()), scenario.attempts > 1);
    ensure!(
        fatal.len() == wanted || (racy && fatal.len() > wanted),
        "{} fatal incidents: {}",
        fatal.len(),
        said()
    );
    // panicwatch shows a death by signal as a shell does; only the bare run has the signal itself.
    if run.output.status == bare.status {
        run.output.signal = bare.signal;
    }
    if let Some(kind) = scenario.kind {
        let (account, expect) = account(&run.output, kind, toolchain.release)?;
        let subject = account.subject().map(|g| g.id);
        let named = fatal.iter().find(|i| i.goroutine.as_ref().map(|g| g.id) == subject);
        let incident = named.unwrap_or(&fatal[0]);
        none("the incident is not what Go said", &compare::fatal(&account, incident, &expect))?;
        let same = |i: &&Incident| (i.kind, &i.message) == (incident.kind, &incident.message);
        ensure!(fatal.iter().all(same), "different deaths: {}", said());
        if racy {
            rest.retain(|i| i.outcome != Outcome::Exited || !same(i));
        }
    }
    ensure!(
        rest.len() == scenario.lesser.len(),
        "{} lesser incidents wanted: {}",
        scenario.lesser.len(),
        said()
    );
    for (want, incident) in scenario.lesser.iter().zip(rest) {
        none("lesser incident", &lesser(want, incident))?;
    }
    Ok(End::Passed)
}

fn lesser(want: &Lesser, incident: &Incident) -> Vec<String> {
    let mut d = compare::Differences::default();
    d.equal("kind", Kind::Panic, incident.kind);
    if !want.outcome.contains(&incident.outcome) {
        d.add(format!("outcome: {:?} wanted, incident {:?}", want.outcome, incident.outcome));
    }
    let seen = incident.panics.iter().filter(|p| !p.goexit);
    let seen: Vec<_> = seen.map(|p| (p.value.text.as_deref(), p.state)).collect();
    let wanted: Vec<_> = want.chain.iter().map(|(text, state)| (Some(*text), *state)).collect();
    d.equal("chain", wanted, seen);
    d.equal("message", want.chain.first().map(|c| c.0), incident.message.as_deref());
    d.0
}

fn started<'a>(scenario: &Scenario, path: &'a std::path::Path) -> Program<'a> {
    let mut program = Program::new(path, &[scenario.name]);
    program.env = scenario.env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    program
}

/// Repeats a bare run until it ends as the scenario expects.
fn bare(scenario: &Scenario, path: &std::path::Path) -> Result<Output> {
    let mut last = None;
    for _ in 0..scenario.attempts {
        let output = run::bare(&started(scenario, path))?;
        if output.status == scenario.status && !output.stdout.starts_with("unknown function") {
            return Ok(output);
        }
        last = Some(output);
    }
    bail!("{} attempts, none ended with status {}: {last:?}", scenario.attempts, scenario.status)
}

fn account(output: &Output, kind: Kind, release: Release) -> Result<(Account, Expect)> {
    let Some(account) = Account::parse(&output.stderr) else {
        bail!("Go gave no account of its end: status {}, {:?}", output.status, output.stderr)
    };
    let exit = match output.signal {
        Some(signal) => Exit { code: None, signal: Some(signal) },
        None => Exit { code: Some(output.status), signal: None },
    };
    Ok((account, Expect { kind, release, nothing_recovered: false, exit }))
}
