//! Neighbours: unwatched processes that constantly switch, wake and migrate threads.
//!
//! [`incidents`] shows how complete the recorder's incidents are when such neighbours run; [`unwatched`]
//! measures what the recorder costs them. The neighbours are threads of this process, which is not watched.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use panicwatch::{
    incident::Incident,
    recorder::{Level, Options, Source},
    watch::session::{Scope, Session},
};

use crate::load::{Figures, Load, PANICWATCH};

/// Context switches per second that the neighbours make, over all CPUs.
const SWITCHES_PER_SECOND: u64 = 20_000;
/// Round trips of a pair between two pauses.
const BURST: u64 = 10;
/// Incidents recorded under each load, as a command-line argument.
const INCIDENTS: &str = "100";
/// Share of the window for which the state must be known for a timeline to count as known.
const KNOWN: f64 = 0.95;
/// Server loads: a description and the percentage of a core that the server keeps busy.
const LOADS: [(&str, &str); 3] =
    [("an idle server", "0"), ("a server at 10 % of a core", "10"), ("a server at a full core", "100")];

/// Pairs of threads that wake each other in turn, one pair per CPU, until the value is dropped.
struct Switching {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Switching {
    fn start() -> Switching {
        let stop = Arc::new(AtomicBool::new(false));
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        // A round trip takes two switches.
        let pace = Duration::from_secs(1) * 2 * BURST as u32 * cpus as u32 / SWITCHES_PER_SECOND as u32;
        let of_cpu = |cpu| {
            let (stop, mut pair) = (stop.clone(), Pair::start(cpu));
            thread::spawn(move || {
                pin(cpu);
                let mut next = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    pair.turns(BURST);
                    next += pace;
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                }
            })
        };
        let threads = (0..cpus).map(of_cpu).collect();
        Switching { stop, threads }
    }
}

impl Drop for Switching {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// The calling thread's end of a socket to an echo thread on the same CPU; the echo thread ends when the
/// value is dropped.
struct Pair(UnixStream);

impl Pair {
    fn start(cpu: usize) -> Pair {
        let (mut here, there) = UnixStream::pair().expect("a pair of sockets");
        thread::spawn(move || {
            pin(cpu);
            let mut byte = [0];
            while here.read_exact(&mut byte).and_then(|()| here.write_all(&byte)).is_ok() {}
        });
        Pair(there)
    }

    /// Wakes the echo thread and waits for its answer, `n` times.
    fn turns(&mut self, n: u64) {
        let mut byte = [0];
        for _ in 0..n {
            self.0.write_all(&byte).and_then(|()| self.0.read_exact(&mut byte)).expect("it answers");
        }
    }
}

/// Binds the calling thread to a CPU.
fn pin(cpu: usize) {
    // SAFETY: an empty set of CPUs is all zeroes; both calls stay within the set.
    let done = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    assert_eq!(done, 0, "CPU {cpu} cannot be used");
}

/// Context switches on this machine since boot.
fn switches() -> f64 {
    let text = fs::read_to_string("/proc/stat").expect("/proc is mounted");
    let line = text.lines().find_map(|line| line.strip_prefix("ctxt "));
    line.and_then(|n| n.trim().parse().ok()).expect("a number of context switches")
}

/// Prints, for a server under each load next to the neighbours, for which share of the window the state of
/// the panicking goroutine is known with default settings.
pub(crate) fn incidents(program: &Path) {
    println!(
        "\nneighbours: what is known of the {INCIDENTS} incidents of a server beside {SWITCHES_PER_SECOND} switches a second"
    );
    let switching = Switching::start();
    for (what, percent) in LOADS {
        let (began, before) = (Instant::now(), switches());
        let (incidents, used, said) = run(program, percent);
        let per_second = (switches() - before) / began.elapsed().as_secs_f64();
        let known = Figures(incidents.iter().map(known).collect());
        let enough = known.0.iter().filter(|share| **share >= KNOWN).count();
        println!(
            "  {what:28} {enough} of {} known for {:.0} % of the window (least {:.1} %, median {:.1} %); used {used} % of a core; \
             {per_second:.0} switches a second on the machine",
            incidents.len(),
            100.0 * KNOWN,
            100.0 * known.at(0.0),
            100.0 * known.median()
        );
        said.iter().for_each(|line| println!("    {line}"));
    }
    drop(switching);
}

/// Runs the server under panicwatch and returns its incidents, the percentage of a core it used, and
/// panicwatch's messages.
fn run(program: &Path, percent: &str) -> (Vec<Incident>, String, Vec<String>) {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-neighbours.jsonl");
    let output = Command::new(PANICWATCH)
        .arg("run")
        .arg("-o")
        .arg(&file)
        .arg("--")
        .arg(program)
        .args([percent, INCIDENTS])
        .stdin(Stdio::null())
        .output()
        .expect("panicwatch starts");
    assert!(output.status.success(), "panicwatch ended with {}", output.status);
    let text = fs::read_to_string(&file).expect("a file of incidents");
    let incidents = text.lines().map(|line| serde_json::from_str(line).expect("an incident")).collect();
    let said = String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect();
    (incidents, String::from_utf8_lossy(&output.stdout).trim().to_owned(), said)
}

/// Returns the share of the window for which the state of the panicking goroutine is known; 0 without a
/// timeline.
fn known(incident: &Incident) -> f64 {
    let of = |timeline: &panicwatch::incident::timeline::Timeline| {
        1.0 - timeline.summary.unknown_ns as f64 / timeline.window_ns as f64
    };
    incident.timeline.as_ref().map_or(0.0, of)
}

/// Turns of each source per round.
const TURNS: usize = 100;
/// Operations per turn, which then takes some milliseconds.
const OF_A_TURN: u64 = 2_000;
/// Quantile of the turns that is compared, with a source and without: other load on the machine only makes
/// turns longer.
const UNDISTURBED: f64 = 0.1;

/// Measures how much longer switches, wake-ups and migrations of unwatched threads take while the recorder
/// records them.
pub(crate) fn unwatched(program: &Path, rounds: usize) {
    // A session needs a watched process.
    let load = Load::start(program, "server");
    let options = Options { level: Level::Full, ..Options::default() };
    let session = Session::start(Scope::Chosen, &options).expect("recording starts");
    let exe = format!("/proc/{}/exe", load.pid());
    let armed = session.arm(&File::open(&exe).expect("it runs"), program).expect("it can be armed");
    session.watch(load.pid(), Some(&armed)).expect("it is watched");
    let attach = |source: Source, on: bool| {
        session.armory().with_programs(|programs| {
            if on {
                programs.attach_source(source).expect("it is attached")
            } else {
                programs.detach_source(source)
            }
        });
    };
    options
        .sources()
        .iter()
        .filter(|source| !source.is_in_program())
        .for_each(|source| attach(*source, false));
    println!("\nunwatched: what recording costs threads that are not watched, {} turns each", rounds * TURNS);
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let mut pair = Pair::start(0);
    // A round trip has two switches and two wake-ups.
    let mut turns = || per_thing(2 * OF_A_TURN, || pair.turns(OF_A_TURN));
    let mut moves = || per_thing(OF_A_TURN, || (0..OF_A_TURN).for_each(|n| pin(n as usize % 2)));
    let compare = |source: Source, what: &str, thing: &mut dyn FnMut() -> f64| {
        let (mut with, mut without) = (Figures::default(), Figures::default());
        for _ in 0..rounds * TURNS {
            attach(source, true);
            with.0.push(thing());
            attach(source, false);
            without.0.push(thing());
        }
        let (with, without) = (with.at(UNDISTURBED), without.at(UNDISTURBED));
        println!("  {what:10} {:6.0} ns more than {without:.0}", with - without);
    };
    pin(0);
    compare(Source::Switch, "switch", &mut turns);
    compare(Source::Wakeup, "wake-up", &mut turns);
    if cpus > 1 {
        compare(Source::Migrate, "migration", &mut moves);
    }
}

/// Returns the CPU time of this process per operation, in nanoseconds.
fn per_thing(n: u64, things: impl FnOnce()) -> f64 {
    let before = cpu_ns();
    things();
    (cpu_ns() - before) / n as f64
}

fn cpu_ns() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct outlives the call, and the clock exists.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}
