//! The live suite: panicwatch on real Go programs, compared with what Go itself prints.
//!
//! Groups (the first part of a test's name):
//! - `oracle`: tests the comparisons on bare runs; needs no privileges.
//! - `testprog`: the Go runtime's own crash programs under panicwatch.
//! - `fixture`: the suite's own programs, which print their own ground truth.
//! - `exec`: starting, attaching to and leaving programs.
//! - `start`: Go code that starts without notice, programs that outlive their starter, full disks.
//! - `gate`: the exec gate when it, or panicwatch, does not respond.
//! - `cli`: what the command prints.
//! - `breakpoints`: what is left in programs when panicwatch is killed.
//! - `debian`: third-party servers from Debian packages.
//! - `daemon`: a whole host, watched.
//! - `inittrace`: the timeline of a program's initialization.
//! - `report`: situations from bug reports.
//! - `timeline`: what happened before a panic.
//! - `trace`: live function tracing.
//!
//! One cell: `cargo test --test live -- testprog::1.24::StringPanic --exact`. PANICWATCH_TEST_FULL=1 runs
//! every build of every fixture. Tests that cannot run on this machine are skipped with a reason, and
//! counted.

mod bounds;
mod breakpoints;
#[expect(dead_code, reason = "the browser's own tests use all of it")]
#[path = "../browser/chromium.rs"]
mod chromium;
mod cli;
#[path = "../oracle/compare/mod.rs"]
mod compare;
mod daemon;
mod debian;
mod exec;
mod fixtures;
mod gate;
#[path = "../oracle/go_text/mod.rs"]
mod go_text;
mod gobuild;
mod inittrace;
mod judges;
#[path = "../oracle/lanes/mod.rs"]
mod lanes;
mod ledger;
mod matrix;
mod need;
mod process;
mod reports;
mod run;
mod scenarios;
mod special;
mod start;
mod testprog;
mod timeline;
mod toolchain;
mod trace;
mod traffic;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if arguments.test_threads.is_none() {
        // Programs with data races need idle cores.
        arguments.test_threads = Some(2);
    }
    let mut trials = Vec::new();
    trials.extend(testprog::trials());
    trials.extend(fixtures::trials());
    trials.extend(exec::trials());
    trials.extend(cli::trials());
    trials.extend(breakpoints::trials());
    trials.extend(start::trials());
    trials.extend(gate::trials());
    trials.extend(daemon::trials());
    trials.extend(debian::trials());
    trials.extend(inittrace::trials());
    trials.extend(reports::trials());
    trials.extend(timeline::trials());
    trials.extend(trace::trials());
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list
        && let Err(error) = ledger::print_table()
    {
        // A closed pipe is no reason to fail.
        drop(error);
    }
    conclusion.exit_code()
}
