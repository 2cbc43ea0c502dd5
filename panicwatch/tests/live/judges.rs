//! Tests the comparison itself: on the real output of a bare run, it must accept the incident that a perfect
//! observer would have written, and reject it with any single damage.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use panicwatch::{
    go::release::Release,
    incident::{Exit, Kind},
};

use crate::{
    compare::{self, Expect, recovered::Truth, synthetic, synthetic_recovered},
    fixtures::truths,
    go_text::{Account, unindent},
    ledger::none,
    run::{self, Program},
};

/// Tests the comparison of a fatal incident.
pub(crate) fn fatal(account: &Account, expect: &Expect) -> Result<()> {
    let good = synthetic::incident(account, expect);
    none("the comparison refuses the truth", &compare::fatal(account, &good, expect))?;
    for (name, bad) in synthetic::damaged(&good) {
        // Go 1.20 and earlier do not print how many frames of a deep stack they left out.
        let open_end = account.subject().is_some_and(|g| compare::stack::open_ended(g, expect.release));
        // Without a traceback there is no goroutine to compare with.
        let silent = account.goroutines.is_empty() && account.fatal.is_none();
        let untold = open_end && ["frame twice", "elided count"].contains(&name)
            || silent && name == "goroutine invented";
        ensure!(untold || !compare::fatal(account, &bad, expect).is_empty(), "damage not noticed: {name}");
    }
    Ok(())
}

/// Checks what every account must contain and how its kind shows, unless the environment changes that.
pub(crate) fn sound(account: &Account, expect: &Expect) -> Result<()> {
    ensure!(account.fatal.is_some() == matches!(expect.kind, Kind::FatalError | Kind::Throw), "kind of end");
    ensure!(account.death.is_some() == (expect.kind == Kind::Signal), "kind of end: signal");
    let Some(first) = account.goroutines.first() else {
        let none_left = account.fatal.as_ref().is_some_and(|f| f.starts_with("no goroutines "));
        ensure!(none_left, "no goroutine in the account");
        return Ok(());
    };
    ensure!(!first.frames.is_empty(), "no frame in the first goroutine");
    // Throws and signals print at traceback level 2, with pc; panics and fatal errors at level 1.
    let detailed = first.frames.iter().any(|f| f.pc.is_some());
    ensure!(
        detailed == matches!(expect.kind, Kind::Throw | Kind::Signal),
        "traceback level: pc printed {detailed}"
    );
    Ok(())
}

/// Tests the comparison on a bare run of a program that dies of a panic.
pub(crate) fn dies(program: &Program<'_>, release: Release) -> Result<Account> {
    let output = run::bare(program)?;
    let account =
        Account::parse(&output.stderr).with_context(|| format!("no account in {:?}", output.stderr))?;
    let exit = Exit { code: Some(output.status), signal: output.signal };
    let expect = Expect { kind: Kind::Panic, release, nothing_recovered: false, exit };
    sound(&account, &expect)
        .and_then(|()| fatal(&account, &expect))
        .with_context(|| output.stderr.chars().take(3000).collect::<String>())?;
    Ok(account)
}

/// Tests the comparison on a bare run of a program that recovers its panics.
pub(crate) fn recovered(program: &Program<'_>, release: Release) -> Result<Vec<Truth>> {
    let output = run::bare(program)?;
    ensure!(output.stdout.ends_with("done\n"), "the program was cut off: {output:?}");
    let truths = truths(&output.stdout)?;
    ensure!(!truths.is_empty(), "no truth printed");
    for truth in &truths {
        let raise = truth.raise().context("no panic in the fixture's stack")?;
        ensure!(!raise.frames.is_empty(), "no frame below the panic");
        let good = synthetic_recovered::incident(truth, release);
        none("the comparison refuses the truth", &compare::recovered::compare(truth, &good, release))?;
        for (name, bad) in synthetic_recovered::damaged(&good) {
            // If the fixture does not print the text, any text passes; so does a missing text with a reason.
            let untold =
                (name == "text" && truth.text.is_none()) || name == "text lost" && !bad.missing.is_empty();
            let refused = !compare::recovered::compare(truth, &bad, release).is_empty();
            ensure!(untold || refused, "damage not noticed: {name}, {truth:?}");
        }
    }
    Ok(truths)
}

/// Every value twice: recovered, where the program prints its text, and fatal, where Go prints it.
pub(crate) fn values(path: &Path, release: Release) -> Result<()> {
    let truths = recovered(&Program::new(path, &["all"]), release)?;
    for (n, truth) in truths.iter().enumerate() {
        let account = dies(&Program::new(path, &["die", &n.to_string()]), release)?;
        let printed = &account.chain.first().context("no panic line")?.printed;
        let printed = if release.indents_messages() { unindent(printed) } else { printed.clone() };
        let Some(text) = &truth.text else { continue };
        ensure!(printed.contains(text.as_str()), "value {n}: recovered {text:?}, printed {printed:?}");
    }
    Ok(())
}
