//! Compares the imports that `init-trace` infers from code with `go list`: every inferred import must be
//! real.

mod support;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use panicwatch::{gobin::GoBinary, init_trace::imports_in_code, plan::init_plan};
use serde_json::Value;

/// Pairs of importing and imported package.
type Edges = BTreeSet<(String, String)>;

/// Go's own programs, which import many packages and are part of every toolchain.
const PROGRAMS: [(&str, &str); 2] = [("cmd/go", "bin/go"), ("cmd/compile", "pkg/tool/linux_amd64/compile")];

/// Returns the direct imports of the command `package` and of all its dependencies.
fn listed(go: &Path, package: &str) -> Edges {
    let output = Command::new(go)
        .env("GO111MODULE", "off")
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "")
        .env_remove("GOROOT")
        .args(["list", "-deps", "-json", package])
        .output()
        .expect("the go command starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut edges = Edges::new();
    for package in serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>() {
        let package = package.expect("a package");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let importer =
            if package["Name"] == "main" { "main".to_owned() } else { text(&package["ImportPath"]) };
        for import in package["Imports"].as_array().into_iter().flatten() {
            // Packages vendored into the standard library have another name in its sources.
            let mapped = &package["ImportMap"][text(import)];
            let imported = if mapped.is_string() { text(mapped) } else { text(import) };
            edges.insert((importer.clone(), imported));
        }
    }
    edges
}

fn inferred(program: &Path) -> Edges {
    let bin = panicwatch::gobin::open(program).expect("a Go program");
    let imports = imports_in_code(&bin);
    imports.edges().map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

#[test]
fn inferred_imports_are_true_ones() {
    for toolchain in
        support::toolchains().into_iter().filter(|toolchain| toolchain.version().has_init_task_list())
    {
        let root: PathBuf = toolchain.go.parent().and_then(Path::parent).expect("GOROOT").to_owned();
        for (package, path) in PROGRAMS {
            let program = root.join(path);
            if !program.exists() {
                println!(
                    "SKIPPED imports of {package}: go{} has no {}",
                    toolchain.release,
                    program.display()
                );
                continue;
            }
            let (found, real) = (inferred(&program), listed(&toolchain.go, package));
            let wrong: Vec<_> = found.difference(&real).collect();
            assert!(wrong.is_empty(), "go{} {package}: not imports: {wrong:?}", toolchain.release);
            // More than half of all imports show in the code; far fewer would mean that some kind is not
            // found.
            assert!(
                found.len() * 2 > real.len(),
                "go{} {package}: {} of {}",
                toolchain.release,
                found.len(),
                real.len()
            );
        }
    }
}

#[test]
fn damaged_tables_are_survived() {
    let Some(toolchain) = support::toolchains().pop() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let exe = dir.path().join("stacks");
    toolchain.build(&support::fixture("stacks"), &["-ldflags=-checklinkname=0"], &exe);
    let data = std::fs::read(&exe).expect("the binary");
    let bin = GoBinary::parse(Arc::new(data.clone())).expect("undamaged");
    let at = |vaddr| bin.file_offset(vaddr).expect("in the file") as usize;
    let whole = imports_in_code(&bin).edges().count();
    assert!(whole > 20, "{whole} edges");
    let ftab = at(bin.word(bin.moduledata().addr + 128).expect("ftab"));
    let gofunc = at(bin.moduledata().gofunc);
    let text = at(bin.text_start());
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize
    };
    let mut read = 0;
    for round in 0..240 {
        let mut damaged = data.clone();
        let start = [ftab, gofunc, text][round % 3];
        // Damages many places at once: a single one is mostly padding.
        for _ in 0..64 {
            damaged[start + next() % 0x8000] = next() as u8;
        }
        let Ok(bin) = GoBinary::parse(Arc::new(damaged)) else { continue };
        read += usize::from(imports_in_code(&bin).edges().count() > 0);
        let _ = init_plan(&bin);
    }
    assert!(read > 0, "every one was refused");
}
