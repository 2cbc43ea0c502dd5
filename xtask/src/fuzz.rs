//! `cargo xtask fuzz`: runs panicwatch's decoders under libFuzzer.
//!
//! Builds the crate `panicwatch/fuzz` as cargo-fuzz would, but without a sanitizer, so that a stable compiler
//! suffices, and the Go programs that the targets damage with their inputs. Then runs each target for its
//! share of the time. New inputs stay under `target`. The names of the targets come from the crate's files.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::{paths, setup, shell};

/// Time limit for one input, seconds.
const TIMEOUT: u64 = 10;
/// Memory limit of a target, megabytes.
const MEMORY: u64 = 512;
/// Limit for a single allocation, megabytes.
const ALLOCATION: u64 = 128;
/// Text with which libFuzzer reports the file of the failing input.
const WRITTEN: &str = "Test unit written to ";
/// Maximum length of an input in bytes.
const MAX_LEN: u64 = 4096;

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Fuzz only this target (a file of panicwatch/fuzz/fuzz_targets)
    target: Option<String>,
    /// Seconds for all targets together
    #[arg(long, default_value_t = SECONDS)]
    seconds: u64,
}

/// Default duration of a run, also in CI, seconds.
pub(crate) const SECONDS: u64 = 60;

/// Runs the task.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut targets = targets()?;
    if let Some(wanted) = &args.target {
        targets.retain(|target| target == wanted);
        if targets.is_empty() {
            bail!("no fuzz target {wanted}; there are: {}", self::targets()?.join(", "));
        }
    }
    if let Some(why) = why_not() {
        bail!("{why}");
    }
    let fuzzer = Fuzzer::build()?;
    let share = (args.seconds / targets.len() as u64).max(1);
    let failed: Vec<_> = targets.iter().filter_map(|target| fuzzer.fuzz(target, share).err()).collect();
    for error in &failed {
        shell::complain(&format!("{error:#}"));
    }
    if !failed.is_empty() {
        bail!("{} of {} fuzz targets failed", failed.len(), targets.len());
    }
    Ok(())
}

/// Returns the names of all targets.
pub(crate) fn targets() -> Result<Vec<String>> {
    let folder = crate_root().join("fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Returns what prevents fuzzing on this machine, if anything.
pub(crate) fn why_not() -> Option<String> {
    if paths::on_path("c++").or_else(|| paths::on_path("g++")).is_none() && env::var_os("CXX").is_none() {
        return Some(
            "libFuzzer is compiled with a C++ compiler, and there is none (apt-get install g++)".to_owned(),
        );
    }
    if toolchains().is_empty() {
        return Some(
            "there is no Go toolchain whose programs could be damaged (cargo xtask setup)".to_owned(),
        );
    }
    None
}

/// Checks format and lints of the crate, which is not a member of the workspace.
pub(crate) fn check() -> Result<()> {
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(paths::cargo());
        command.current_dir(crate_root()).args(arguments);
        command
    };
    shell::run(&mut cargo(&["fmt", "--check"]))?;
    let mut clippy = cargo(&["clippy", "--quiet", "--locked", "--all-targets", "--target-dir"]);
    // The workspace's own check has already built most dependencies there.
    clippy.arg(paths::root().join("target")).args(["--", "--deny", "warnings"]);
    // Checking links nothing; without this variable, it would compile libFuzzer first.
    shell::run(clippy.env("CUSTOM_LIBFUZZER_PATH", folder().join("none.a")))
}

fn crate_root() -> PathBuf {
    paths::root().join("panicwatch/fuzz")
}

/// Folder of the built targets, the corpora and the artifacts.
fn folder() -> PathBuf {
    paths::root().join("target/fuzz")
}

/// The built targets and the programs that they use.
pub(crate) struct Fuzzer {
    executables: PathBuf,
    /// Folder of the Go programs.
    programs: PathBuf,
}

impl Fuzzer {
    /// Compiles the targets and the Go programs.
    pub(crate) fn build() -> Result<Self> {
        let folder = folder();
        let programs = folder.join("programs");
        fs::create_dir_all(&programs).with_context(|| format!("cannot create {}", programs.display()))?;
        build_programs(&programs)?;
        let host = host()?;
        let mut cargo = Command::new(paths::cargo());
        cargo
            .current_dir(crate_root())
            // With --target, the flags do not apply to build scripts and macros.
            .args(["build", "--release", "--locked", "--bins", "--target", &host, "--target-dir"])
            .arg(&folder)
            .env("RUSTFLAGS", flags())
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        shell::run(&mut cargo)?;
        Ok(Self { executables: folder.join(host).join("release"), programs })
    }

    /// Runs one target for `seconds`; a failing input is an error.
    pub(crate) fn fuzz(&self, target: &str, seconds: u64) -> Result<()> {
        let [corpus, artifacts] = ["corpus", "artifacts"].map(|name| folder().join(name).join(target));
        for path in [&corpus, &artifacts] {
            fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        let seeds = crate_root().join("corpus").join(target);
        let mut command = self.command(target);
        // libFuzzer writes new inputs to the first folder.
        command.arg(&corpus).args(seeds.is_dir().then_some(&seeds));
        command.args([
            format!("-max_total_time={seconds}"),
            format!("-timeout={TIMEOUT}"),
            format!("-rss_limit_mb={MEMORY}"),
            format!("-malloc_limit_mb={ALLOCATION}"),
            format!("-max_len={MAX_LEN}"),
            format!("-artifact_prefix={}/", artifacts.display()),
            "-print_final_stats=1".to_owned(),
        ]);
        let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {target}"))?;
        let log = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            shell::say(&format!("{target}: {}", summary(&log)));
            return Ok(());
        }
        for line in last_lines(&log, 60) {
            shell::say(line);
        }
        let Some(input) =
            log.lines().find_map(|line| line.split_once(WRITTEN).map(|(_, path)| Path::new(path)))
        else {
            bail!("{target} failed ({})", output.status)
        };
        bail!("{target} failed on {}; again: {}", input.display(), self.again(target, input));
    }

    fn command(&self, target: &str) -> Command {
        let mut command = Command::new(self.executables.join(target));
        command.env("PANICWATCH_FUZZ_BINARIES", &self.programs).env("RUST_BACKTRACE", "1");
        command
    }

    /// Returns the command line that runs a single input.
    fn again(&self, target: &str, input: &Path) -> String {
        let mut command = self.command(target);
        command.arg(input);
        format!("PANICWATCH_FUZZ_BINARIES={} {}", self.programs.display(), shell::show(&command))
    }
}

/// Returns the flags that cargo-fuzz sets, without a sanitizer and without tracing of comparisons: the
/// tracing made the targets three to six times slower, and the inputs have few magic numbers that it could
/// find.
fn flags() -> String {
    let coverage = ["level=4", "inline-8bit-counters", "pc-table"];
    let coverage = coverage.map(|option| format!("-Cllvm-args=-sanitizer-coverage-{option}"));
    let mut flags = vec!["-Cpasses=sancov-module".to_owned()];
    flags.extend(coverage);
    flags.extend(["--cfg", "fuzzing", "-Cdebug-assertions", "-Ccodegen-units=1"].map(str::to_owned));
    flags.join(" ")
}

/// Returns the target triple of this machine.
fn host() -> Result<String> {
    let version = shell::capture(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}

/// Returns the go commands of the oldest and the newest installed release; one if only one is installed.
fn toolchains() -> Vec<PathBuf> {
    let Ok(cache) = paths::cache() else { return Vec::new() };
    let debian = PathBuf::from("/usr/lib/go-1.19/bin/go");
    let ours = setup::GO_VERSIONS.iter().map(|version| setup::go_root(&cache, version).join("bin/go"));
    let mut found: Vec<_> = std::iter::once(debian).chain(ours).filter(|go| go.is_file()).collect();
    if found.len() > 2 {
        found.drain(1..found.len() - 1);
    }
    found
}

/// Builds the programs, with the names by which `panicwatch/fuzz` finds them: `tables*` for the tables,
/// `types*` for type data.
fn build_programs(folder: &Path) -> Result<()> {
    let cache = paths::cache()?;
    for (nth, go) in toolchains().iter().enumerate() {
        // The second toolchain's program is position-independent, so its words are relocated.
        let mode = if nth == 0 { "-buildmode=exe" } else { "-buildmode=pie" };
        for (name, fixture, flags) in [
            ("tables", "inlined", [mode, "-trimpath"]),
            ("types", "efaces", ["-tags=netgo,osusergo", "-trimpath"]),
        ] {
            let mut build = Command::new(go);
            build
                .current_dir(paths::root().join("panicwatch/tests/fixtures/go").join(fixture))
                .env("GO111MODULE", "off")
                .env("GOTOOLCHAIN", "local")
                .env("GOFLAGS", "")
                .env("GOCACHE", cache.join("gocache"))
                .env_remove("GOROOT")
                .arg("build")
                .args(flags)
                .arg("-o")
                .arg(folder.join(format!("{name}-{nth}")))
                .arg(".");
            shell::run(&mut build)?;
        }
    }
    Ok(())
}

/// Summarizes libFuzzer's statistics in one line.
fn summary(log: &str) -> String {
    let stat = |name: &str| {
        log.lines().find_map(|line| {
            Some(line.strip_prefix("stat::")?.strip_prefix(name)?.trim_start_matches(':').trim())
        })
    };
    let runs = stat("number_of_executed_units").unwrap_or("?");
    let speed = stat("average_exec_per_sec").unwrap_or("?");
    let new = stat("new_units_added").unwrap_or("?");
    let memory = stat("peak_rss_mb").unwrap_or("?");
    format!("{runs} inputs, {speed} a second, {new} of them new; {memory} MB at most")
}

fn last_lines(text: &str, count: usize) -> impl Iterator<Item = &str> {
    let skip = text.lines().count().saturating_sub(count);
    text.lines().skip(skip)
}

#[cfg(test)]
mod tests {
    use super::{summary, targets};

    #[test]
    fn every_target_is_declared() {
        let manifest = std::fs::read_to_string(super::crate_root().join("Cargo.toml")).expect("the manifest");
        let targets = targets().expect("targets");
        assert!(targets.len() >= 7, "{targets:?}");
        for target in targets {
            assert!(manifest.contains(&format!("name = \"{target}\"\n")), "{target}");
            assert!(super::crate_root().join("corpus").join(&target).is_dir(), "{target} has no corpus");
        }
    }

    #[test]
    fn counts_are_read_from_the_log() {
        let log = "Done 20 runs\nstat::number_of_executed_units: 20\nstat::average_exec_per_sec:     2\n\
                   stat::new_units_added:          1\nstat::slowest_unit_time_sec:    0\nstat::peak_rss_mb:              33\n";
        assert_eq!(summary(log), "20 inputs, 2 a second, 1 of them new; 33 MB at most");
        assert_eq!(summary(""), "? inputs, ? a second, ? of them new; ? MB at most");
    }
}
