//! Measures what reading a binary costs (opening it, planning its probes, symbolizing addresses), compared
//! with the usual tools.
//!
//! Run by `cargo xtask bench`. Everything compared is measured alternately in one run: trust the ratios.
//! Whether the answers are right is checked in tests/symbolize.rs; this benchmark only counts them.

#![expect(clippy::print_stdout, reason = "its figures are what a benchmark is for")]

#[path = "../tests/support/mod.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs::File,
    hint::black_box,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use panicwatch::{
    gobin::GoBinary,
    plan::plan,
    symbolize::{Lookup, Symbolizer, batch::Batch},
};
use support::{Toolchain, cache, toolchains};

/// Addresses per symbolizing run.
const ADDRESSES: usize = 1_000_000;
/// Runs of each measurement.
const ROUNDS: usize = 5;

/// Counts allocated bytes to find their peak.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: it forwards every call to the system's allocator and only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller upholds the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller upholds the same contract.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let found = toolchains();
    let Some(newest) = found.last() else {
        println!("SKIPPED all: no Go toolchain is at hand; run `cargo xtask setup`");
        return;
    };
    for (package, program) in
        [("docker.io", "usr/sbin/dockerd"), ("hugo", "usr/bin/hugo"), ("prometheus", "usr/bin/prometheus")]
    {
        let path = cache().join("debian").join(package).join(program);
        if !path.is_file() {
            println!("SKIPPED {program}: {} is not there; run `cargo xtask setup`", path.display());
            continue;
        }
        opening(&path);
        // Go's tool finds no pclntab in a position-independent program that gcc has linked.
        if panicwatch::gobin::open(&path).is_ok_and(|bin| !bin.is_pie()) {
            command(newest, &path);
        }
    }
    match with_debug_information(newest) {
        Ok(path) => library(&path),
        Err(why) => println!("SKIPPED addr2line (crate): {why}"),
    }
}

/// Measures opening a file and planning its probes.
fn opening(path: &Path) {
    let size = std::fs::metadata(path).map_or(0, |meta| meta.len()) as f64 / 1e6;
    let mut times = Vec::new();
    let mut peak = 0;
    for _ in 0..20 {
        PEAK.store(NOW.load(Ordering::Relaxed), Ordering::Relaxed);
        let before = NOW.load(Ordering::Relaxed);
        let began = Instant::now();
        let bin = panicwatch::gobin::open(path).expect("a Go program");
        assert!(black_box(plan(&bin)).is_useful());
        times.push(began.elapsed());
        peak = peak.max(PEAK.load(Ordering::Relaxed) - before);
    }
    println!(
        "open + plan, {} of {size:.0} MB: {:.1} ms (limit 30), {:.1} MB of memory above the mapping (limit 20)",
        name(path),
        median(&mut times).as_secs_f64() * 1e3,
        peak as f64 / 1e6
    );
}

/// Measures both commands, from start to exit.
fn command(toolchain: &Toolchain, path: &Path) {
    let bin = panicwatch::gobin::open(path).expect("a Go program");
    let pcs = addresses(&bin);
    let list = list_of(&pcs);
    let mut ours = Command::new(env!("CARGO_BIN_EXE_panicwatch"));
    ours.arg("symbolize").arg(path);
    let mut theirs = toolchain.command();
    theirs.args(["tool", "addr2line"]).arg(path);
    timed(&mut theirs, list.path()); // The go command builds the tool on first use.
    let (a, b) = in_turns(&mut || timed(&mut ours, list.path()), &mut || timed(&mut theirs, list.path()));
    let what = format!("{ADDRESSES} addresses of {}, as a command", name(path));
    report(&what, a, ("go tool addr2line", b), None);
    let (a, b) = in_turns(&mut || resolve(path, &pcs), &mut || timed(&mut theirs, list.path()));
    let what = format!("{ADDRESSES} addresses of {}, as a library", name(path));
    report(&what, a, ("go tool addr2line", b), Some(20.0));
}

/// Writes the addresses to a file, one per line.
fn list_of(pcs: &[u64]) -> tempfile::NamedTempFile {
    let list = tempfile::NamedTempFile::new().expect("a file");
    let text: String = pcs.iter().map(|pc| format!("{pc:#x}\n")).collect();
    list.as_file().write_all(text.as_bytes()).expect("room");
    list
}

/// Returns how long a command takes with the file as its standard input.
fn timed(command: &mut Command, list: &Path) -> Duration {
    let input = File::open(list).expect("the list");
    let began = Instant::now();
    let status = command.stdin(input).stdout(Stdio::null()).status().expect("it starts");
    assert!(status.success(), "{command:?}");
    began.elapsed()
}

/// Measures resolving in the same process: function, file and line of every frame; ours also formats the
/// text.
fn library(path: &Path) {
    let bin = panicwatch::gobin::open(path).expect("a Go program");
    let pcs = addresses(&bin);
    let ours = &mut || resolve(path, &pcs);
    let theirs = &mut || {
        let began = Instant::now();
        let loader = addr2line::Loader::new(path).expect("debug information");
        let mut sum = 0;
        for pc in &pcs {
            let Ok(mut frames) = loader.find_frames(*pc) else { continue };
            while let Ok(Some(frame)) = frames.next() {
                let name = frame.function.as_ref().and_then(|f| f.raw_name().ok()).map_or(0, |n| n.len());
                let place = frame.location.as_ref();
                sum += name + place.and_then(|l| l.file).map_or(0, str::len);
                sum += place.and_then(|l| l.line).unwrap_or(0) as usize;
            }
        }
        black_box(sum);
        began.elapsed()
    };
    let what = format!("{ADDRESSES} addresses of {}, as a library", name(path));
    let (a, b) = in_turns(ours, theirs);
    report(&what, a, ("the addr2line crate", b), Some(1.0));
}

/// Measures the time from opening the file to the text of every address.
fn resolve(path: &Path, pcs: &[u64]) -> Duration {
    let began = Instant::now();
    let bin = panicwatch::gobin::open(path).expect("a Go program");
    let symbolizer = Symbolizer::new(&bin, 0);
    let mut batch = Batch::new(&symbolizer, Lookup::Exact, panicwatch::symbolize::threads());
    pcs.iter().for_each(|pc| batch.push(*pc));
    batch.write(&mut io::sink()).expect("nothing to fail");
    began.elapsed()
}

fn addresses(bin: &GoBinary) -> Vec<u64> {
    let (lo, hi) = (bin.moduledata().text, bin.moduledata().etext);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    (0..ADDRESSES).map(|_| lo + next() % (hi - lo)).collect()
}

/// Builds the go command with debug information, which the released binary lacks.
fn with_debug_information(toolchain: &Toolchain) -> Result<PathBuf, String> {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-go");
    let built = toolchain.command().args(["build", "-o"]).arg(&out).arg("cmd/go").output();
    let built = built.map_err(|error| error.to_string())?;
    if built.status.success() { Ok(out) } else { Err(String::from_utf8_lossy(&built.stderr).into_owned()) }
}

fn in_turns(a: &mut dyn FnMut() -> Duration, b: &mut dyn FnMut() -> Duration) -> (Duration, Duration) {
    let (mut first, mut second): (Vec<_>, Vec<_>) = (0..ROUNDS).map(|_| (a(), b())).unzip();
    (median(&mut first), median(&mut second))
}

fn report(what: &str, ours: Duration, theirs: (&str, Duration), wanted: Option<f64>) {
    let (name, theirs) = theirs;
    let (ours, theirs) = (ours.as_secs_f64(), theirs.as_secs_f64());
    let wanted = wanted.map_or_else(String::new, |wanted| format!(" (wanted {wanted})"));
    println!("{what}: {ours:.3} s; {name} {theirs:.3} s: {:.1} times faster{wanted}", theirs / ours);
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
