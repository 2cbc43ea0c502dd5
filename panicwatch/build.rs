//! Compiles `panicwatch-ebpf` for the BPF target and writes the object to `OUT_DIR/panicwatch.bpf.o`.
//!
//! Sources of the object, in order of preference: the file named by `PANICWATCH_EBPF_OBJECT`; a rustup
//! nightly with rust-src (`-Z build-std=core`); the rustc of Debian's `rustc-web`, which has a `core` for
//! BPF. The last two need `bpf-linker`. `cargo xtask setup` installs what is missing.
//!
//! Checking needs none of them: without a toolchain the object is empty, and code generation fails in
//! `ebpf_object.rs`, which the library includes. `cargo check`, `clippy`, `doc` and rust-analyzer succeed,
//! and `cargo build` prints what to do.
#![expect(clippy::print_stderr, reason = "cargo shows a failed build script's standard error")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// Debian's rustc (package rustc-web), with its full path because rustup's rustc is first on PATH.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Returns the code that the library includes in addition to the object. A `const` block of a generic
/// function is evaluated during code generation, not during checking: that is the difference between
/// `cargo check` and `cargo build`.
fn witness(body: &str) -> String {
    let expect = "clippy::extra_unused_type_parameters, reason = \"generic, so as to be evaluated late\"";
    format!("#[expect({expect})]\nconst fn object_is_built<T>() {{{body}}}\n")
}
const MISSING: &str =
    r#" const { panic!("the eBPF programs cannot be compiled here: run `cargo xtask setup`") } "#;
const PRESENT: &str = "";

fn main() {
    let out_dir = PathBuf::from(var("OUT_DIR"));
    let manifest_dir = PathBuf::from(var("CARGO_MANIFEST_DIR"));
    let workspace = manifest_dir.parent().unwrap_or(&manifest_dir).to_path_buf();
    let object = out_dir.join("panicwatch.bpf.o");

    println!("cargo::rerun-if-changed=build.rs");
    for name in ["PANICWATCH_EBPF_OBJECT", "PANICWATCH_HOME"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    if let Some(given) = env::var_os("PANICWATCH_EBPF_OBJECT").filter(|value| !value.is_empty()) {
        let given = PathBuf::from(given);
        println!("cargo::rerun-if-changed={}", given.display());
        copy(&given, &object);
        write(&out_dir.join("ebpf_object.rs"), &witness(PRESENT));
        return;
    }
    for source in ["panicwatch-ebpf/src", "panicwatch-ebpf/Cargo.toml", "panicwatch-common/src"]
        .into_iter()
        .chain(["panicwatch-common/Cargo.toml", "Cargo.toml", "Cargo.lock"])
    {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }

    // clippy runs this script separately (cargo keeps artifacts built with the wrapper apart).
    println!("cargo::rerun-if-env-changed=RUSTC_WORKSPACE_WRAPPER");
    let checking = env::var("RUSTC_WORKSPACE_WRAPPER").is_ok_and(|path| path.contains("clippy-driver"));
    let possible = !checking && workspace.join("panicwatch-ebpf").is_dir();
    let toolchains = if possible { toolchains() } else { Vec::new() };
    if toolchains.is_empty() {
        write(&object, "");
        write(&out_dir.join("ebpf_object.rs"), &witness(MISSING));
        return;
    }
    for (nth, toolchain) in toolchains.iter().enumerate() {
        let target_dir = out_dir.join(format!("ebpf-{}", toolchain.name));
        match toolchain.build(&workspace, &target_dir) {
            Ok(built) => {
                copy(&built, &object);
                write(&out_dir.join("ebpf_object.rs"), &witness(PRESENT));
                return;
            }
            Err(reason) if nth + 1 < toolchains.len() => {
                println!("cargo::warning={}: {reason}; trying the next toolchain", toolchain.name);
            }
            Err(reason) => fail(&format!("panicwatch-ebpf, {}: {reason}", toolchain.name)),
        }
    }
}

/// A toolchain that can compile for BPF.
struct Toolchain {
    name: &'static str,
    rustc: PathBuf,
    cargo: PathBuf,
    /// Whether `core` is built from rust-src; otherwise it comes with the compiler.
    build_std: bool,
    linker: PathBuf,
}

impl Toolchain {
    /// Compiles the crate; returns the path of the object, or why compilation failed.
    fn build(&self, workspace: &Path, target_dir: &Path) -> Result<PathBuf, String> {
        let endian = if var("CARGO_CFG_TARGET_ENDIAN") == "big" { "bpfeb" } else { "bpfel" };
        let target = format!("{endian}-unknown-none");
        let rustflags = [
            // The full path, so that PATH does not matter.
            format!("-Clinker={}", self.linker.display()),
            // aya-ebpf selects the layout of pt_regs by this value.
            format!("--cfg=bpf_target_arch=\"{}\"", var("CARGO_CFG_TARGET_ARCH")),
            // BTF is generated from debug info.
            "-Cdebuginfo=2".to_owned(),
            "-Clink-arg=--btf".to_owned(),
            // CPU v3 (Linux 4.14) compares only with a constant on the right: verifiers before 6.8 learn
            // nothing from a comparison with the constant on the left.
            "-Ctarget-cpu=v3".to_owned(),
        ];
        let mut cargo = Command::new(&self.cargo);
        cargo.current_dir(workspace);
        for (name, _) in env::vars_os() {
            if is_outer_cargo(&name.to_string_lossy()) {
                cargo.env_remove(name);
            }
        }
        cargo
            .args(["build", "--release", "--package", "panicwatch-ebpf", "--bin", "panicwatch-ebpf"])
            .args(["--target", &target, "--target-dir"])
            .arg(target_dir)
            .args(self.build_std.then_some(["-Z", "build-std=core"]).into_iter().flatten())
            .env("RUSTC", &self.rustc)
            .env("CARGO_ENCODED_RUSTFLAGS", rustflags.join("\x1f"));
        if !self.build_std {
            // aya-ebpf needs one unstable feature, which this rustc also has although it is a stable release.
            cargo.env("RUSTC_BOOTSTRAP", "1");
        }
        // Standard output is reserved for directives to cargo.
        let output = cargo.output().map_err(|error| format!("{}: {error}", self.cargo.display()))?;
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            return Err(format!("cargo build failed ({})", output.status));
        }
        Ok(target_dir.join(target).join("release/panicwatch-ebpf"))
    }
}

/// Returns the toolchains on this machine that can compile for BPF, best first. Registers the paths that were
/// searched with cargo, so that the script runs again when one appears or changes.
fn toolchains() -> Vec<Toolchain> {
    let Some(linker) = bpf_linker() else { return Vec::new() };
    println!("cargo::rerun-if-changed={}", linker.display());
    println!("cargo::rerun-if-changed={DEBIAN_RUSTC}");
    let mut found = Vec::new();
    if let Some(root) = nightly_with_rust_src() {
        found.push(Toolchain {
            name: "nightly",
            rustc: root.join("bin/rustc"),
            cargo: root.join("bin/cargo"),
            build_std: true,
            linker: linker.clone(),
        });
    }
    if debian_rustc_has_bpf() {
        found.push(Toolchain {
            name: "debian",
            rustc: PathBuf::from(DEBIAN_RUSTC),
            cargo: PathBuf::from(var("CARGO")),
            build_std: false,
            linker,
        });
    }
    found
}

/// Returns bpf-linker from where `cargo xtask setup` installs it, else from PATH.
fn bpf_linker() -> Option<PathBuf> {
    let home = match env::var_os("PANICWATCH_HOME").filter(|value| !value.is_empty()) {
        Some(home) => Some(PathBuf::from(home)),
        None => env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/panicwatch")),
    };
    let ours = home.map(|home| home.join("tools/bin/bpf-linker"));
    if let Some(path) = &ours {
        // While the file is missing, cargo runs this script at every build.
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let on_path = env::var_os("PATH")
        .map(|path| env::split_paths(&path).map(|dir| dir.join("bpf-linker")).collect::<Vec<_>>())
        .unwrap_or_default();
    ours.into_iter().chain(on_path).find(|path| path.is_file())
}

/// Returns the root of a rustup nightly that has the source of `core`. Listing toolchains installs nothing.
fn nightly_with_rust_src() -> Option<PathBuf> {
    let output = Command::new("rustup").args(["toolchain", "list", "-v"]).output().ok()?;
    let listing = String::from_utf8(output.stdout).ok()?;
    listing
        .lines()
        .filter(|line| line.starts_with("nightly-"))
        .filter_map(|line| line.find('/').map(|at| PathBuf::from(line[at..].trim())))
        .find(|root| root.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file())
}

fn debian_rustc_has_bpf() -> bool {
    let sysroot =
        Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"]).env_remove("LD_LIBRARY_PATH").output();
    sysroot.is_ok_and(|output| {
        let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        output.status.success() && sysroot.join("lib/rustlib/bpfel-unknown-none/lib").is_dir()
    })
}

/// Reports whether a variable describes the outer build and would mislead the inner one. The user's own
/// settings (`CARGO_HOME`, `CARGO_NET_*`, `CARGO_HTTP_*`, registries) are kept.
fn is_outer_cargo(name: &str) -> bool {
    const PREFIXES: &[&str] = &[
        "CARGO_BUILD_",
        "CARGO_CFG_",
        "CARGO_FEATURE_",
        "CARGO_MANIFEST_",
        "CARGO_PKG_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
        "CLIPPY_",
        "DEP_",
        "RUSTC",
        "RUSTDOC",
    ];
    const NAMES: &[&str] = &[
        "CARGO",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_INCREMENTAL",
        "CARGO_MAKEFLAGS",
        "CARGO_PRIMARY_PACKAGE",
        "DEBUG",
        "HOST",
        "LD_LIBRARY_PATH",
        "MAKEFLAGS",
        "MFLAGS",
        "NUM_JOBS",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "TARGET",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || NAMES.contains(&name)
}

fn var(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| fail(&format!("{name}: {error}")))
}

fn copy(from: &Path, to: &Path) {
    // Not fs::copy: a copy of a read-only file would be read-only, so the next run could not replace it.
    if let Err(error) = fs::read(from).and_then(|bytes| fs::write(to, bytes)) {
        fail(&format!("cannot copy {} to {}: {error}", from.display(), to.display()));
    }
}

fn write(path: &Path, text: &str) {
    if let Err(error) = fs::write(path, text) {
        fail(&format!("cannot write {}: {error}", path.display()));
    }
}

fn fail(reason: &str) -> ! {
    eprintln!("error: {reason}");
    exit(1)
}
