//! Which source decides the layout of the runtime's structs, and the messages about binaries that cannot be
//! watched.

use std::{fs, path::Path, sync::Arc};

use panicwatch::{
    escape::is_unsafe,
    gobin::{Error, GoBinary, LayoutSource, SharedBytes, dwarf},
    inspect,
    render::text::Style,
};

use crate::{
    BUILD_INFO, json, patch, run,
    support::{Toolchain, fixture, toolchains},
};

/// Builds a program with Go 1.24, whose g has another layout than Go 1.25's.
fn program(dir: &Path, flags: &[&str]) -> Option<Vec<u8>> {
    let toolchain: Toolchain = toolchains().into_iter().find(|t| t.version().minor() == 24)?;
    let exe = dir.join("program");
    toolchain.build(&fixture("early"), flags, &exe);
    Some(fs::read(exe).expect("it reads"))
}

/// Returns the same program with another version string of the same length.
fn renamed(bytes: &[u8], version: &str) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    patch(&mut bytes, BUILD_INFO, b"go1.24.11", version.as_bytes());
    bytes
}

#[test]
fn debug_information_decides_for_all_but_plain_releases() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(bytes) = program(dir.path(), &[]) else {
        println!("SKIPPED policy: no Go 1.24");
        return;
    };
    let open = |version: &str| {
        let bytes: SharedBytes = Arc::new(renamed(&bytes, version));
        dwarf::open_bytes(bytes)
    };
    let plain = open("go1.24.11").expect("opens");
    assert_eq!((plain.layout_source(), plain.layout().g.goid), (LayoutSource::Table, 160));
    // Not a plain release, but the debug information agrees: the table's row is used.
    let vendor = open("go1.24-xx").expect("opens");
    assert_eq!((vendor.layout_source(), vendor.layout().g.goid), (LayoutSource::Table, 160));
    // The table would have 152.
    for other in ["go1.25-xx", "go1.25rc1", "go1.25 X:", "go1.25 xx"] {
        let bin = open(other).unwrap_or_else(|e| panic!("{other}: {e}"));
        assert_eq!((bin.layout_source(), bin.layout().g.goid), (LayoutSource::Dwarf, 160), "{other}");
    }
    // The debug information of a plain release is not read: the table decides, or the program is rejected.
    match open("go1.25.11") {
        Ok(bin) => assert_eq!((bin.layout_source(), bin.layout().g.goid), (LayoutSource::Table, 152)),
        Err(error) => assert!(matches!(error, Error::Malformed { .. }), "{error}"),
    }

    let exe = dir.path().join("vendor");
    fs::write(&exe, renamed(&bytes, "go1.25-xx")).expect("written");
    let facts = json(&exe);
    assert_eq!(facts["layout_source"], "dwarf");
    let differences = facts["layout"]["differences"].as_array().expect("a list");
    let goid = differences.iter().find(|d| d["struct"] == "runtime.g" && d["field"] == "goid").expect("goid");
    assert_eq!((goid["table"].as_u64(), goid["dwarf"].as_u64()), (Some(152), Some(160)));
    assert!(facts["notes"].to_string().contains("go1.25-xx"), "{}", facts["notes"]);
}

#[test]
fn a_release_whose_function_marks_are_others_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(bytes) = program(dir.path(), &[]) else {
        println!("SKIPPED policy: no Go 1.24");
        return;
    };
    // The table has no row for Go 1.20; the nearest is Go 1.19's, which numbers the functions differently
    // from Go 1.24.
    let renamed: SharedBytes = Arc::new(renamed(&bytes, "go1.20-xx"));
    let error = dwarf::open_bytes(renamed).map(|bin| bin.layout_source()).expect_err("refused");
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}

/// Checks that `inspect` describes the program as far as possible, with status 0, and reports why it cannot
/// be watched.
fn refused(path: &Path, bytes: &[u8], reason: &str) -> serde_json::Value {
    fs::write(path, bytes).expect("written");
    let facts = json(path);
    assert_eq!(facts["watchable"], false);
    let why = facts["cannot_be_watched"].as_str().expect("a reason");
    assert!(why.contains(reason), "{reason:?} is not in {why:?}");
    let text = String::from_utf8(run(&[&path.to_string_lossy()]).stdout).expect("UTF-8");
    assert!(text.contains("cannot be watched: "), "{text}");
    facts
}

#[test]
fn what_cannot_be_watched_is_described_all_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(bytes) = program(dir.path(), &["-ldflags=-w"]) else {
        println!("SKIPPED refused binaries: no Go 1.24");
        return;
    };
    let path = dir.path().join("odd");
    let facts = refused(&path, &renamed(&bytes, "go1.20.11"), "unsupported Go release");
    assert_eq!(facts["go_version"], "go1.20.11");
    assert_eq!(facts["arch"], "amd64");
    assert_eq!(facts["settings"]["GOOS"], "linux");
    assert_eq!((&facts["functions"], &facts["layout_source"]), (&().into(), &().into()));
    assert_eq!(facts["probes"], serde_json::json!([]));

    let mut damaged = bytes.clone();
    let magic: &[u8] = &[0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8];
    let tables: Vec<_> =
        (0..damaged.len() / 8).map(|i| 8 * i).filter(|at| damaged[*at..].starts_with(magic)).collect();
    for at in tables {
        damaged[at + 8..at + 16].fill(0xff);
    }
    let facts = refused(&path, &damaged, "malformed pclntab");
    assert_eq!((&facts["pclntab"], &facts["go_version"]), (&false.into(), &"go1.24.11".into()));

    let mut other = bytes.clone();
    other[18..20].copy_from_slice(&243_u16.to_le_bytes());
    assert_eq!(refused(&path, &other, "ELF machine")["arch"], "riscv64");
}

/// Programs with bytes changed at random: described or rejected, and with safe text only.
#[test]
fn damaged_programs_are_described_or_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(bytes) = program(dir.path(), &["-ldflags=-compressdwarf=false"]) else {
        println!("SKIPPED damaged programs: no Go 1.24");
        return;
    };
    // Not a plain release, so that the debug information is read too.
    let bytes = renamed(&bytes, "go1.24-xx");
    let (mut described, mut watchable) = (0, 0);
    let mut state = 1_u64;
    let mut random = |below: usize| {
        // Knuth's constants for MMIX.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for i in 0..300 {
        let mut damaged = bytes.clone();
        // Damages headers and the tables at the start of segments more often than their size warrants.
        let reach = [512, 8192, damaged.len()][i % 3];
        for _ in 0..=i / 20 {
            let at = random(reach);
            damaged[at] = random(256) as u8;
        }
        let Ok(facts) = inspect::inspect(Arc::new(damaged), "damaged", |_| None) else { continue };
        described += 1;
        watchable += usize::from(facts.watchable);
        let text = inspect::text(&facts, &Style::default());
        assert!(!text.chars().any(|c| c != '\n' && is_unsafe(c)), "{text}");
        assert!(text.contains(if facts.watchable { "can be watched" } else { "cannot be watched" }));
        inspect::json(&facts).expect("JSON");
    }
    println!("{described} of 300 described, {watchable} can be watched");
    assert!(described > watchable && watchable > 0 && described < 300, "{described}, {watchable}");
}

/// Build information of Go 1.17 and earlier points to two strings; a Go 1.24 program is given such build
/// information.
#[test]
fn build_information_of_old_releases() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(mut bytes) = program(dir.path(), &[]) else {
        println!("SKIPPED old build information: no Go 1.24");
        return;
    };
    let bin = GoBinary::parse(Arc::new(bytes.clone())).expect("a Go binary");
    let section = bin.sections().iter().find(|s| s.name == ".go.buildinfo").expect("a section").clone();
    let module = b"0123456789abcdefpath\texample.com/old\nbuild\tk=v\n0123456789abcdef";
    let mut blob = BUILD_INFO.to_vec();
    blob.extend([8, 0]);
    let strings = section.addr + 64;
    for word in [section.addr + 32, section.addr + 48, strings, 8, strings + 8, module.len() as u64] {
        blob.extend(word.to_le_bytes());
    }
    blob.extend(b"go1.17.5");
    blob.extend(module);
    assert!(blob.len() as u64 <= section.size, "{} of {}", blob.len(), section.size);
    let at = section.offset as usize;
    bytes[at..at + blob.len()].copy_from_slice(&blob);
    let facts = refused(&dir.path().join("old"), &bytes, "unsupported Go release");
    assert_eq!(facts["go_version"], "go1.17.5");
    assert_eq!(facts["main_package"], "example.com/old");
    assert_eq!(facts["settings"], serde_json::json!({"k": "v"}));
}

#[test]
fn arm64_programs_are_described() {
    let dir = tempfile::tempdir().expect("a directory");
    let exe = dir.path().join("arm64");
    let all = toolchains();
    for toolchain in all.iter().take(1).chain(all.last()) {
        let env = [("GOARCH", "arm64"), ("CGO_ENABLED", "0")];
        toolchain.build_with(&env, &fixture("early"), &[], &exe);
        let bytes = fs::read(&exe).expect("it reads");
        let facts = refused(&exe, &bytes, "arm64");
        assert_eq!(facts["arch"], "arm64");
        assert!(facts["functions"].as_u64().is_some_and(|n| n > 500), "{}", facts["functions"]);
        let probe = &facts["probes"][0];
        assert_eq!((&probe["placed"], &probe["lost"]), (&false.into(), &"everything".into()));
    }
}
