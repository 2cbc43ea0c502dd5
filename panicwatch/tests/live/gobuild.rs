//! Builds Go programs once and caches them, keyed by toolchain, flags, environment and source bytes.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError},
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::toolchain::{self, Toolchain};

/// A set of build flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flavour {
    /// Name in test names.
    pub(crate) name: &'static str,
    /// Arguments of `go build`.
    pub(crate) flags: &'static [&'static str],
}

/// `go build` without any flags.
pub(crate) const DEFAULT: Flavour = Flavour { name: "default", flags: &[] };
/// Every flavour in which the suite builds its own programs.
pub(crate) const FLAVOURS: [Flavour; 5] = [
    DEFAULT,
    Flavour { name: "stripped", flags: &["-ldflags=-s -w"] },
    Flavour { name: "noopt", flags: &["-gcflags=all=-N -l"] },
    Flavour { name: "pie", flags: &["-buildmode=pie"] },
    Flavour { name: "trimpath", flags: &["-trimpath"] },
];

type Slot = Arc<OnceLock<Result<PathBuf, String>>>;

static SLOTS: LazyLock<Mutex<HashMap<String, Slot>>> = LazyLock::new(Mutex::default);
/// Allows one build at a time: a single `go build` already uses every core.
static BUILDING: Mutex<()> = Mutex::new(());

/// Returns the program built from the directory `source`.
pub(crate) fn build(
    toolchain: &Toolchain,
    source: &Path,
    flavour: Flavour,
    env: &[(&str, &str)],
) -> Result<PathBuf> {
    let key = key(toolchain, source, flavour, env)?;
    let slot = SLOTS.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default().clone();
    slot.get_or_init(|| make(toolchain, source, flavour, env, &key).map_err(|e| format!("{e:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}

/// Returns the `go` command of this toolchain, offline, with the suite's own build cache.
pub(crate) fn go(toolchain: &Toolchain) -> Command {
    let mut command = Command::new(toolchain.root.join("bin/go"));
    command
        .env("GOROOT", &toolchain.root)
        .env("GO111MODULE", "off")
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "")
        .env("GOCACHE", toolchain::home().join("gocache"));
    command
}

fn make(
    toolchain: &Toolchain,
    source: &Path,
    flavour: Flavour,
    env: &[(&str, &str)],
    key: &str,
) -> Result<PathBuf> {
    let name = source.file_name().context("a source directory has a name")?;
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("live").join(key);
    let out = dir.join(name);
    if out.exists() {
        return Ok(out);
    }
    let _one = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    fs::create_dir_all(&dir)?;
    let partial = dir.join("building");
    // Built in place: testprog imports packages that only code in GOROOT may import.
    let done = go(toolchain)
        .arg("build")
        .args(flavour.flags)
        .arg("-o")
        .arg(&partial)
        .arg(".")
        .envs(env.iter().copied())
        .current_dir(source)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running go build in {}", source.display()))?;
    if !done.status.success() {
        bail!(
            "go build {:?} in {}: {}",
            flavour.flags,
            source.display(),
            String::from_utf8_lossy(&done.stderr)
        );
    }
    fs::rename(&partial, &out)?;
    Ok(out)
}

fn key(toolchain: &Toolchain, source: &Path, flavour: Flavour, env: &[(&str, &str)]) -> Result<String> {
    let mut hash = Sha256::new();
    let version = fs::read(toolchain.root.join("VERSION")).unwrap_or_default();
    hash.update(format!("{} {:?} {env:?} {}\n", toolchain.name, flavour.flags, source.display()));
    hash.update(version);
    // The suite's own programs share a package and a module file in the parent directory.
    let beside = source.with_file_name("truth");
    let mut files = vec![];
    list(source, &mut files)?;
    if beside.is_dir() {
        list(&beside, &mut files)?;
        files.push(source.with_file_name("go.mod"));
    }
    files.sort();
    for file in files {
        hash.update(file.as_os_str().as_encoded_bytes());
        hash.update(fs::read(&file)?);
    }
    Ok(hash.finalize().iter().take(10).map(|b| format!("{b:02x}")).collect())
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in dir.read_dir().with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
