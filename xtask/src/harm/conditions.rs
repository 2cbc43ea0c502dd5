//! Runs a program under adverse conditions: it must end as it does alone, and every panic must be reported or
//! counted.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Context, End, Scenario,
    programs::{self, Ended, PATIENCE, Reported, printed},
    reuse,
    sums::{adds_up, sums},
};
use crate::{paths, shell};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "cpu starvation", run: starvation },
    Scenario { name: "memory limit", run: memory_limit },
    Scenario { name: "descriptor limit", run: descriptor_limit },
    Scenario { name: "disk full", run: disk_full },
    Scenario { name: "no tracefs", run: no_tracefs },
    Scenario { name: "exec from a thread", run: exec_from_thread },
    Scenario { name: "fork bomb", run: fork_bomb },
    Scenario { name: "reused process ids", run: reuse::reuse },
    Scenario { name: "many goroutines", run: many_goroutines },
    Scenario { name: "stopped", run: stopped },
];

/// Returns `panicwatch run -o FILE -- PROGRAM …` as a command line that a shell or another tool can start.
fn run_line(context: &Context, file: &Path, program: &Path, arguments: &[&str]) -> Vec<String> {
    let _ = fs::remove_file(file);
    let shown = |path: &Path| path.display().to_string();
    let mut line = vec![shown(&context.panicwatch), "run".into(), "-o".into(), shown(file), "--".into()];
    line.push(shown(program));
    line.extend(arguments.iter().map(|&argument| argument.to_owned()));
    line
}

fn command(line: &[String]) -> Command {
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]);
    command
}

/// Runs the book program under panicwatch, started through `wrapper` (a command line that takes another one
/// as its last arguments).
fn book(context: &Context, wrapper: &[&str], arguments: &[&str], file: &Path) -> Result<Ended> {
    let program = programs::book(context)?;
    let mut line: Vec<String> = wrapper.iter().map(|&word| word.to_owned()).collect();
    line.extend(run_line(context, file, &program, arguments));
    programs::run(context, &mut command(&line), PATIENCE)
}

/// Busy loops that are killed when this is dropped.
struct Hogs(Vec<Child>);

impl Hogs {
    fn start(number: usize) -> Result<Hogs> {
        let mut hogs = Hogs(Vec::new());
        for _ in 0..number {
            hogs.0.push(Command::new("sh").args(["-c", "while :; do :; done"]).spawn()?);
        }
        Ok(hogs)
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            drop(hog.kill());
            drop(hog.wait());
        }
    }
}

fn starvation(context: &Context) -> Result<End> {
    let cpus = std::thread::available_parallelism()?.get();
    let _hogs = Hogs::start(cpus * 2)?;
    let file = context.scratch.join("starved.jsonl");
    let ended = book(context, &["nice", "-n", "5"], &["-panics", "500", "-pause", "1ms"], &file)?;
    Ok(End::Passed(adds_up(&ended, &file, 500)?))
}

/// A memory control group that is removed when this is dropped.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// Returns `None` if this machine has no writable memory controller.
    fn create(bytes: u64) -> Option<MemoryGroup> {
        let name = format!("panicwatch-harm-{}-{bytes}", std::process::id());
        let (root, limit) =
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
                .into_iter()
                .find(|(root, _)| Path::new(root).join("cgroup.procs").exists())?;
        let group = MemoryGroup(Path::new(root).join(name));
        fs::create_dir(&group.0).ok()?;
        fs::write(group.0.join(limit), bytes.to_string()).ok()?;
        Some(group)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        drop(fs::remove_dir(&self.0));
    }
}

/// Runs `attach` with several memory limits: it must work, fail with an error, or be killed by the kernel;
/// the program must continue.
fn memory_limit(context: &Context) -> Result<End> {
    let (mut works, mut refused, mut killed) = (0, 0, 0);
    for megabytes in [4_u64, 8, 16, 24, 32, 48, 64, 128] {
        let Some(group) = MemoryGroup::create(megabytes << 20) else {
            return Ok(End::Skipped("no writable memory control group".into()));
        };
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", group.0.display());
        let outcome = attached(context, &["sh", "-c", &enter, "sh"])
            .with_context(|| format!("with {megabytes} MB of memory"))?;
        match outcome {
            0 => works += 1,
            1..=3 => refused += 1,
            _ => killed += 1,
        }
    }
    Ok(End::Passed(format!(
        "8 limits from 4 to 128 MB: {works} attach, {refused} report an error, {killed} killed"
    )))
}

fn descriptor_limit(context: &Context) -> Result<End> {
    let (mut works, mut refused) = (0, 0);
    for limit in [4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256] {
        let nofile = format!("ulimit -n {limit} && exec \"$@\"");
        let outcome = attached(context, &["sh", "-c", &nofile, "sh"])
            .with_context(|| format!("with {limit} descriptors"))?;
        ensure!((0..=3).contains(&outcome), "with {limit} descriptors attach ended with {outcome}");
        if outcome == 0 { works += 1 } else { refused += 1 }
    }
    ensure!(works > 0, "attach works with none of the limits");
    Ok(End::Passed(format!("12 limits from 4 to 256: {works} attach, {refused} report an error")))
}

/// Runs `attach` on a book program through `wrapper`; returns the exit status of attach. The program must end
/// as it does alone.
fn attached(context: &Context, wrapper: &[&str]) -> Result<i32> {
    let program = programs::book(context)?;
    let mut target = Command::new(&program);
    target.args(["-input", "-panics", "100", "-pause", "1ms"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut target = target.spawn()?;
    let pid = target.id().to_string();
    let file = context.scratch.join("attached.jsonl");
    drop(fs::remove_file(&file));
    let mut line: Vec<&str> = wrapper.to_vec();
    let (panicwatch, path) = (context.panicwatch.display().to_string(), file.display().to_string());
    line.extend([panicwatch.as_str(), "attach", "--pid", &pid, "-o", &path]);
    let mut attach = programs::start(context, Command::new(line[0]).args(&line[1..]))?;
    let watching = attach.until("watching").is_ok();
    drop(target.stdin.take());
    let output = target.wait_with_output()?;
    ensure!(output.status.code() == Some(7), "the target ended with {}", output.status);
    let attach = attach.wait(Duration::from_secs(60))?;
    if watching && attach.status == 0 {
        let ended = Ended {
            status: 7,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: attach.stderr.clone(),
        };
        adds_up(&ended, &file, 100)?;
    } else {
        ensure!(!attach.stderr.is_empty() || attach.status > 128, "attach failed without a word");
    }
    Ok(attach.status)
}

fn disk_full(context: &Context) -> Result<End> {
    let folder = context.scratch.join("small-disk");
    fs::create_dir_all(&folder)?;
    let mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none"];
    shell::capture(Command::new(mount[0]).args(&mount[1..]).arg(&folder))?;
    let file = folder.join("incidents.jsonl");
    let ended = book(context, &[], &["-panics", "200"], &file);
    shell::capture(Command::new("umount").arg(&folder))?;
    let ended = ended?;
    ensure!(ended.status == 7, "status {} in place of 7: {}", ended.status, ended.stderr);
    ensure!(printed(&ended, "recovered ")? == 200, "the program lost panics");
    ensure!(ended.stderr.contains("No space left"), "the full disk is not reported: {}", ended.stderr);
    Ok(End::Passed("program unaffected; the full disk is reported".into()))
}

fn no_tracefs(context: &Context) -> Result<End> {
    let umount = "umount -a -t tracefs 2>/dev/null; umount -l /sys/kernel/tracing /sys/kernel/debug 2>/dev/null; exec \"$@\"";
    let file = context.scratch.join("no-tracefs.jsonl");
    let wrapper = ["unshare", "--mount", "sh", "-c", umount, "sh"];
    let ended = book(context, &wrapper, &["-panics", "100", "-pause", "1ms"], &file)?;
    Ok(End::Passed(adds_up(&ended, &file, 100)?))
}

fn exec_from_thread(context: &Context) -> Result<End> {
    let fixtures = "panicwatch/tests/fixtures/go";
    let program = context.scratch.join("execthread");
    let mut go = programs::go_command(programs::newest_go()?)?;
    go.current_dir(paths::root().join(fixtures))
        .args(["build", "-mod=mod", "-o"])
        .arg(&program)
        .arg("./execthread");
    shell::run(&mut go)?;
    let file = context.scratch.join("execthread.jsonl");
    let runs = context.size(3, 20);
    let alone = programs::run(context, &mut Command::new(&program), PATIENCE)?;
    let mut incidents = None;
    for _ in 0..runs {
        let line = run_line(context, &file, &program, &[]);
        let watched = programs::run(context, &mut command(&line), PATIENCE)?;
        ensure!(watched.status == alone.status, "status {} became {}", alone.status, watched.status);
        let reported = Reported::read(&file)?.outcomes;
        ensure!(!reported.is_empty(), "no incident");
        ensure!(
            incidents.get_or_insert_with(|| reported.clone()) == &reported,
            "{incidents:?} became {reported:?}"
        );
    }
    Ok(End::Passed(format!("{runs} runs, each {:?}", incidents.unwrap_or_default())))
}

fn fork_bomb(context: &Context) -> Result<End> {
    let program = programs::book(context)?;
    let copies = context.size(60, 400);
    let bomb = format!(
        "for i in $(seq {copies}); do {} -panics 3 -goroutines 1 & done; wait; exit 7",
        program.display()
    );
    let file = context.scratch.join("bomb.jsonl");
    let line = run_line(context, &file, Path::new("/bin/sh"), &["-c", &bomb]);
    let ended = programs::run(context, &mut command(&line), PATIENCE)?;
    ensure!(ended.status == 7, "status {}: {}", ended.status, ended.stderr);
    let finished = ended.stdout.lines().filter(|line| *line == "recovered 3").count() as u64;
    ensure!(finished == copies, "{finished} of {copies} programs finished");
    let figures = sums(copies * 3, &Reported::read(&file)?, &ended.stderr)?;
    Ok(End::Passed(format!("{copies} programs at once; {figures}")))
}

fn many_goroutines(context: &Context) -> Result<End> {
    let file = context.scratch.join("many.jsonl");
    let ended = book(context, &[], &["-idle", "100000", "-panics", "200", "-pause", "1ms"], &file)?;
    Ok(End::Passed(format!("100000 goroutines; {}", adds_up(&ended, &file, 200)?)))
}

/// Stops `attach` (SIGSTOP) while the program panics: the program must continue, and every lost record must
/// be counted.
fn stopped(context: &Context) -> Result<End> {
    let program = programs::book(context)?;
    let panics = context.size(2000, 20_000_u64);
    let output = context.scratch.join("stopped.stdout");
    let mut target = Command::new(&program);
    target.args(["-input", "-panics", &panics.to_string(), "-pause", "1ms"]);
    let mut target = target.stdin(Stdio::piped()).stdout(File::create(&output)?).spawn()?;
    let file = context.scratch.join("stopped.jsonl");
    drop(fs::remove_file(&file));
    let mut attach = Command::new(&context.panicwatch);
    attach.args(["attach", "--max-captures", "0", "--pid", &target.id().to_string(), "-o"]).arg(&file);
    let mut attach = programs::start(context, &mut attach)?;
    attach.until("watching")?;
    attach.signal("STOP")?;
    drop(target.stdin.take());
    let status = target.wait()?;
    attach.signal("CONT")?;
    let attach = attach.wait(PATIENCE)?;
    ensure!(status.code() == Some(7), "the target ended with {status}");
    let ended = Ended { status: 7, stdout: fs::read_to_string(&output)?, stderr: attach.stderr };
    Ok(End::Passed(adds_up(&ended, &file, panics)?))
}
