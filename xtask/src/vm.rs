//! A disposable virtual machine with its own kernel, for machines that do not allow BPF.
//!
//! `xtask/vm/vm-run` starts it (QEMU with KVM where available, else emulation); this module prepares the
//! files and the command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{host, paths, setup, shell};

/// Time limit for the live tests, seconds: emulated guests are about ten times slower than their host.
const LIVE_TIMEOUT_S: &str = "3600";

/// Returns a vm-run command line up to but excluding the kernel, or why the machine cannot run here.
fn vm_run() -> Result<Command> {
    if paths::on_path("python3").is_none() {
        bail!("python3 is missing");
    }
    if paths::on_path("qemu-system-x86_64").is_none()
        && paths::on_path("qemu-system-aarch64").is_none()
        && !(host::is_root() && paths::on_path("apt-get").is_some())
    {
        bail!("QEMU is missing: install the package qemu-system-x86 (qemu-system-arm on arm64)");
    }
    let mut command = Command::new("python3");
    command.arg(paths::root().join("xtask/vm/vm-run"));
    command.env("PANICWATCH_VM_CACHE", paths::cache()?.join("vm"));
    Ok(command)
}

/// Returns the command that runs a program in the guest, with files at the same paths as here.
pub(crate) fn program(kernel: &str, files: &[&Path], shell_line: &str) -> Result<Command> {
    let mut command = vm_run()?;
    command.arg(kernel);
    for file in files {
        let file = fs::canonicalize(file).with_context(|| file.display().to_string())?;
        command.arg(format!("{0}:{0}", file.display()));
    }
    command.arg("--").arg(shell_line);
    Ok(command)
}

/// Returns the command that runs a shell command line in a guest with systemd; `files` are in /test.
pub(crate) fn systemd(kernel: &str, files: &[PathBuf], shell_line: &str) -> Result<Command> {
    let mut command = vm_run()?;
    command.args(["--systemd", "--timeout", "900", kernel]).args(files).arg("--").arg(shell_line);
    Ok(command)
}

/// Returns the command that runs a shell command line in a guest with FUSE; `files` are in /test.
pub(crate) fn harm(kernel: &str, files: &[&Path], shell_line: &str) -> Result<Command> {
    let mut command = vm_run()?;
    command.args(["--memory", "2048", "--timeout", "900", "--module", "fuse", kernel]).args(files);
    command.arg("--").arg(shell_line);
    Ok(command)
}

/// Returns the command that runs the live tests in the guest.
///
/// No Go program is compiled in the guest, which would take hours: the programs compiled here are on a disk,
/// at the same paths.
pub(crate) fn live_tests(
    live: &Path,
    directory: &Path,
    kernel: &str,
    filter: Option<&str>,
) -> Result<Command> {
    let mut command = vm_run()?;
    let disk = guest_disk(live, directory)?;
    let mut line = String::from("mount -t ext4 /dev/disk1 /mnt");
    for folder in disk.folders {
        let folder = quoted(&folder);
        line += &format!(" && mkdir -p {folder} && mount -o bind /mnt{folder} {folder}");
    }
    line += &format!(
        " && cd {} && PANICWATCH_HOME={} CARGO_MANIFEST_DIR={0} {} --test-threads=2 {}",
        quoted(directory),
        quoted(&paths::cache()?),
        quoted(live),
        filter.map(|text| quoted(Path::new(text))).unwrap_or_default(),
    );
    command.args(["--timeout", LIVE_TIMEOUT_S, "--memory", "2048", "--disk"]).arg(&disk.image).arg(kernel);
    // vm-run copies the shared libraries of these two programs into the guest.
    for program in [live.to_path_buf(), panicwatch(live)?] {
        command.arg(format!("{0}:/test/.libs-of/{1}", program.display(), file_name(&program)));
    }
    command.arg("--").arg(line);
    Ok(command)
}

/// Parts of a Go toolchain that the tests use: the version, the command, the runtime's test programs.
const TOOLCHAIN_PARTS: [&str; 3] = ["VERSION", "bin/go", "src/runtime/testdata"];

/// A disk image and the folders on it, which have the same absolute paths as on this machine.
struct Disk {
    image: PathBuf,
    folders: Vec<PathBuf>,
}

fn guest_disk(live: &Path, directory: &Path) -> Result<Disk> {
    let work = paths::root().join("target/vm");
    let stage = work.join("disk");
    drop(fs::remove_dir_all(&stage));
    let mut folders = vec![directory.join("tests"), paths::root().join("target/tmp/live")];
    for folder in &folders {
        link_tree(folder, &stage)?;
    }
    for program in [live.to_path_buf(), panicwatch(live)?] {
        link_tree(&program, &stage)?;
        folders.push(program.parent().context("a program lies in a folder")?.to_path_buf());
    }
    let cache = paths::cache()?;
    for version in setup::GO_VERSIONS {
        let goroot = setup::go_root(&cache, version);
        for part in TOOLCHAIN_PARTS {
            link_tree(&goroot.join(part), &stage)?;
        }
    }
    folders.push(cache.join("go"));
    let debian_go = Path::new("/usr/lib/go-1.19");
    for part in TOOLCHAIN_PARTS.iter().filter(|part| debian_go.join(part).exists()) {
        link_tree(&debian_go.join(part), &stage)?;
    }
    if debian_go.exists() {
        folders.push(debian_go.to_path_buf());
    }
    // target/debug contains target/debug/deps: mount only the outer folder.
    folders.sort();
    folders.dedup_by(|inner, outer| inner.starts_with(&*outer));

    let image = work.join("live.ext4");
    drop(fs::remove_file(&image));
    let used = shell::capture(Command::new("du").args(["-smL"]).arg(&stage))?;
    let megabytes: u64 = used.split_whitespace().next().and_then(|text| text.parse().ok()).context("du")?;
    let mke2fs = ["/usr/sbin/mke2fs", "/sbin/mke2fs"].into_iter().find(|path| Path::new(path).exists());
    let mke2fs = mke2fs.context("mke2fs is missing: install the package e2fsprogs")?;
    let mut make = Command::new(mke2fs);
    make.args(["-q", "-t", "ext4", "-E", "root_owner=0:0", "-d"]).arg(&stage).arg(&image);
    shell::run(make.arg(format!("{}M", megabytes * 5 / 4 + 256)))?;
    Ok(Disk { image, folders })
}

/// Returns the command under test, which is next to the folder of the test programs.
fn panicwatch(live: &Path) -> Result<PathBuf> {
    let program = live.parent().and_then(Path::parent).context("no target directory")?.join("panicwatch");
    if !program.is_file() {
        bail!("{} is missing", program.display());
    }
    Ok(program)
}

/// Copies a file or folder below `stage`, at its absolute path; uses hard links where possible.
fn link_tree(from: &Path, stage: &Path) -> Result<()> {
    let from_resolved = fs::canonicalize(from).with_context(|| from.display().to_string())?;
    let to = stage.join(from.strip_prefix("/").unwrap_or(from));
    let parent = to.parent().context("a path has a parent")?;
    fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    let copy =
        |option: &str| shell::capture(Command::new("cp").arg(option).arg("-T").arg(&from_resolved).arg(&to));
    copy("-al").or_else(|_| copy("-a")).map(drop)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Quotes a path for the guest's shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
