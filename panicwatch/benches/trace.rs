//! Measures what tracing costs the traced program per call, compared with an empty eBPF program at the same
//! instruction, bpftrace and delve.
//!
//! Run by `cargo xtask bench trace`, as root. The traced program itself measures its calls; everything is
//! measured alternately in one run, as CPU time of the program (delve, which stops the program, as wall-clock
//! time): trust the ratios. The word `entry` limits the run to the entry probe and the empty program.

#![expect(clippy::print_stdout, reason = "its figures are what a benchmark is for")]

#[path = "../tests/support/mod.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod support;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use panicwatch::{
    gobin,
    plan::trace::{Wanted, trace_plan},
    probe::trace::EmptyProbe,
};
use support::{Toolchain, cache, toolchains};

/// Calls per run.
const CALLS: u32 = 1_000_000;
/// Calls per run of the more expensive ways.
const FEW_CALLS: u32 = 100_000;
/// Calls per run under a debugger.
const VERY_FEW_CALLS: u32 = 500;
/// Runs of each measurement.
const ROUNDS: usize = 7;

const PANICWATCH: &str = env!("CARGO_BIN_EXE_panicwatch");

fn main() {
    if panicwatch::helper::dispatch(panicwatch::watch::helpers::serve).is_some() {
        return;
    }
    // SAFETY: plain system call.
    if unsafe { libc::geteuid() } != 0 {
        println!("SKIPPED all: probes need root");
        return;
    }
    let found = toolchains();
    let Some(newest) = found.last() else {
        println!("SKIPPED all: no Go toolchain is at hand; run `cargo xtask setup`");
        return;
    };
    let entry_only = std::env::args().any(|argument| argument == "entry");
    match build(newest) {
        Ok(program) if entry_only => return entries(&program),
        Ok(program) => {
            calls(&program);
            many(&newest.go);
        }
        Err(why) => println!("SKIPPED all: {why}"),
    }
    // The newest release whose debug information Delve 1.20 reads.
    let old = found.iter().rfind(|toolchain| toolchain.version().minor() == 24);
    match old.map(build) {
        Some(Ok(program)) => debugger(&program),
        Some(Err(why)) => println!("SKIPPED delve: {why}"),
        None => println!("SKIPPED delve: no Go toolchain of a release that it reads"),
    }
}

fn build(toolchain: &Toolchain) -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/go/hotcall/main.go");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hotcall-{}", toolchain.version().minor()));
    let built = toolchain.command().args(["build", "-o"]).arg(&out).arg(source).output();
    let built = built.map_err(|error| error.to_string())?;
    if built.status.success() { Ok(out) } else { Err(String::from_utf8_lossy(&built.stderr).into_owned()) }
}

/// Cost of a call as the program measured it, in nanoseconds.
#[derive(Clone, Copy)]
struct Told {
    /// Wall-clock time of the run, seconds.
    wall: f64,
    /// CPU time of the program; neither a debugger's time nor other load on the machine counts.
    cpu: f64,
}

/// Runs a command with the number of calls as its last argument and parses the program's output: "1000 calls
/// 5000 ns, 4000 ns of CPU" → nanoseconds per call.
fn told(command: &mut Command, calls: u32) -> Result<Told, String> {
    said(command.arg(calls.to_string()), calls)
}

/// Like [`told`], for a command line that already contains the number of calls.
fn said(command: &mut Command, calls: u32) -> Result<Told, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let wanted = format!("{calls} calls ");
    let found = text.lines().find_map(|line| {
        let (wall, cpu) = line.strip_prefix(&wanted)?.strip_suffix(" ns of CPU")?.split_once(" ns, ")?;
        let each = |ns: &str| ns.parse::<f64>().ok().map(|ns| ns / f64::from(calls));
        Some(Told { wall: each(wall)?, cpu: each(cpu)? })
    });
    found.ok_or_else(|| {
        format!("it said {text:?}, and on standard error {:?}", String::from_utf8_lossy(&output.stderr))
    })
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn site(program: &Path) -> u64 {
    let bin = gobin::open(program).expect("a Go program");
    let plan = trace_plan(&bin, &|func| func.name() == "main.hot", Wanted::default());
    plan.sites.first().expect("a site").file_offset
}

fn traced(program: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(PANICWATCH);
    command.args(["trace", "main.hot", "-o", "/dev/null"]).args(options).arg("--").arg(program);
    command
}

fn bpftraced(program: &Path, calls: u32) -> Command {
    let mut command = Command::new("bpftrace");
    let probe = format!("uprobe:{}:\"main.hot\" {{ @ = count(); }}", program.display());
    command.args(["-e", &probe, "-c", &format!("{} {calls}", program.display())]);
    command
}

/// Measures only the entry probe, compared with an empty program at the same instruction.
fn entries(program: &Path) {
    let offset = site(program);
    let (mut bare, mut empty, mut entry, mut count) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS * 3 {
        bare.push(told(&mut Command::new(program), CALLS).expect("it runs").cpu);
        {
            let _probe = EmptyProbe::attach(program, &[offset]).expect("an empty program");
            empty.push(told(&mut Command::new(program), CALLS).expect("it runs").cpu);
        }
        entry.push(told(&mut traced(program, &[]), CALLS).expect("it is traced").cpu);
        count.push(told(&mut traced(program, &["--count"]), CALLS).expect("it is traced").cpu);
    }
    let bare = median(bare);
    told_of_entries(median(empty) - bare, median(entry) - bare, median(count) - bare);
}

fn told_of_entries(empty: f64, entry: f64, count: f64) {
    println!("an empty eBPF program at the same instruction: {empty:.0} ns a call");
    for (what, ns) in [("trace --count", count), ("trace, entries", entry)] {
        println!("{what}: {ns:.0} ns a call, {:.2} times the empty program (limit 1.15)", ns / empty);
    }
}

fn calls(program: &Path) {
    let offset = site(program);
    let mut bare = Vec::new();
    let mut empty = Vec::new();
    let mut entry = Vec::new();
    let mut count = Vec::new();
    let mut args = Vec::new();
    let mut exits = Vec::new();
    let mut bpftrace = Vec::new();
    let mut without_bpftrace = None;
    for _ in 0..ROUNDS {
        bare.push(told(&mut Command::new(program), CALLS).expect("it runs").cpu);
        {
            let _probe = EmptyProbe::attach(program, &[offset]).expect("an empty program");
            empty.push(told(&mut Command::new(program), CALLS).expect("it runs").cpu);
        }
        entry.push(told(&mut traced(program, &[]), CALLS).expect("it is traced").cpu);
        count.push(told(&mut traced(program, &["--count"]), CALLS).expect("it is traced").cpu);
        args.push(told(&mut traced(program, &["--args"]), FEW_CALLS).expect("it is traced").cpu);
        exits.push(told(&mut traced(program, &["--duration"]), FEW_CALLS).expect("it is traced").cpu);
        match said(&mut bpftraced(program, FEW_CALLS), FEW_CALLS) {
            Ok(told) => bpftrace.push(told.cpu),
            Err(why) => without_bpftrace = Some(why),
        }
    }
    let bare = median(bare);
    let cost = |all: Vec<f64>| median(all) - bare;
    let (empty, entry, count) = (cost(empty), cost(entry), cost(count));
    println!("a call by itself: {bare:.1} ns");
    told_of_entries(empty, entry, count);
    println!("trace --args: {:.0} ns a call", cost(args));
    let exits = cost(exits);
    println!("trace --duration: {exits:.0} ns a call");
    match without_bpftrace {
        Some(why) => println!("SKIPPED bpftrace: {why}"),
        None => {
            let bpftrace = cost(bpftrace);
            println!(
                "bpftrace, counting entries: {bpftrace:.0} ns a call, {:.1} times trace --count, {:.1} times trace (wanted 20)",
                bpftrace / count,
                bpftrace / entry
            );
        }
    }
}

/// Measures attaching to and detaching from thousands of functions.
fn many(go: &Path) {
    let began = Instant::now();
    let output = Command::new(PANICWATCH).args(["trace", "*", "--dry-run", "--exe"]).arg(go).output();
    let planned = began.elapsed();
    let functions = output.map_or(0, |output| output.stdout.iter().filter(|b| **b == b'\n').count());
    let began = Instant::now();
    let status = Command::new(PANICWATCH)
        .args(["trace", "cmd/go/*", "net/*", "-o", "/dev/null", "--"])
        .arg(go)
        .arg("version")
        .output();
    let told = status.map_or_else(|e| e.to_string(), |o| String::from_utf8_lossy(&o.stderr).into_owned());
    println!(
        "planning all {functions} functions of the go command: {:.2} s; tracing it, from start to end: {:.2} s ({})",
        planned.as_secs_f64(),
        began.elapsed().as_secs_f64(),
        told.lines().next().unwrap_or_default()
    );
}

fn debugger(program: &Path) {
    let delve = [cache().join("debian/delve/usr/bin/dlv"), PathBuf::from("/usr/bin/dlv")];
    let Some(delve) = delve.iter().find(|path| path.is_file()) else {
        println!("SKIPPED delve: it is not there; run `cargo xtask setup`");
        return;
    };
    let mut theirs = Command::new(delve);
    theirs.args(["--check-go-version=false", "trace", "--exec"]).arg(program).args(["^main.hot$", "--"]);
    let theirs = told(&mut theirs, VERY_FEW_CALLS);
    let ours = told(&mut traced(program, &[]), CALLS).expect("it is traced").wall;
    match theirs {
        Ok(Told { wall: theirs, .. }) => {
            println!("dlv trace: {theirs:.0} ns a call, {:.0} times ours (wanted 1000)", theirs / ours)
        }
        Err(why) => println!("SKIPPED delve: {why}"),
    }
}
