//! Checks panicwatch's assumptions about the Go runtime against the runtimes themselves: every offset of the
//! layout table against the debug information of a program built with that release, wait reasons and FuncIDs
//! against its source.

mod support;

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Instant};

use panicwatch::{
    go::release::Release,
    gobin::{FuncIds, GoBinary, GoVersion, LayoutSource, RuntimeLayout, SharedBytes, dwarf},
};

/// Returns the names of the `const` block whose first line contains `first`, in order, each with the text of
/// its `//` comment.
fn constants(source: &str, first: &str) -> Vec<(String, String)> {
    source
        .lines()
        .skip_while(|line| !line.contains(first))
        .take_while(|line| line.trim() != ")")
        .filter_map(|line| {
            let (code, comment) = line.split_once("//").unwrap_or((line, ""));
            Some((code.split_whitespace().next()?.to_owned(), comment.trim().to_owned()))
        })
        .collect()
}

/// Parses a table such as `waitReasonStrings` into a map from name to text.
fn strings(source: &str, table: &str) -> BTreeMap<String, String> {
    source
        .lines()
        .skip_while(|line| !line.starts_with(&format!("var {table} ")))
        .skip(1)
        .take_while(|line| *line != "}")
        .filter_map(|line| {
            let (name, text) = line.trim().split_once(':')?;
            Some((name.to_owned(), text.trim().trim_matches(['"', ',']).to_owned()))
        })
        .collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn check_wait_reasons(runtime: &Path, layout: &RuntimeLayout, wrong: &mut Vec<String>) -> usize {
    let source = read(&runtime.join("runtime2.go"));
    let texts = strings(&source, "waitReasonStrings");
    let names = constants(&source, "waitReasonZero ");
    let go: Vec<&str> = names.iter().map(|(name, _)| texts.get(name).map_or("?", String::as_str)).collect();
    assert!(go.len() > 25, "wait reasons parse: {go:?}");
    if go != layout.wait_reasons {
        wrong.push(format!("wait reasons\n  Go:    {go:?}\n  table: {:?}", layout.wait_reasons));
    }
    go.len()
}

fn check_stw_reasons(runtime: &Path, layout: &RuntimeLayout, wrong: &mut Vec<String>) -> usize {
    let source = read(&runtime.join("proc.go"));
    let texts = strings(&source, "stwReasonStrings");
    let names = constants(&source, "stwUnknown ");
    let go: Vec<&str> = names.iter().map(|(name, _)| texts.get(name).map_or("?", String::as_str)).collect();
    assert_eq!(
        !go.is_empty(),
        layout.release.has_stop_the_world_reason(),
        "reasons for stopping the world parse: {go:?}"
    );
    if go != layout.stw_reasons {
        wrong.push(format!("stop-the-world reasons\n  Go:    {go:?}\n  table: {:?}", layout.stw_reasons));
    }
    go.len()
}

fn check_func_ids(src: &Path, release: Release, ids: FuncIds, wrong: &mut Vec<String>) -> usize {
    let file = if release.func_ids_are_in_abi() { "internal/abi/symtab.go" } else { "runtime/symtab.go" };
    let names = constants(&read(&src.join(file)), "uncID = iota");
    assert!(names.len() > 20, "FuncIDs parse: {names:?}");
    for (i, (name, _)) in names.iter().enumerate() {
        let go = name
            .to_lowercase()
            .replacen("funcid", "", 1)
            .replace('_', "")
            .replace("runfinq", "runfinalizers");
        let own = format!("{:?}", ids.get(i as u8)).to_lowercase();
        if go != own {
            wrong.push(format!("FuncID {i} is {name}, in the table {own}"));
        }
    }
    let next = ids.get(names.len() as u8);
    if !format!("{next:?}").starts_with("Unknown") {
        wrong.push(format!("FuncID {} exists in the table only: {next:?}", names.len()));
    }
    names.len()
}

#[test]
fn the_layout_table_is_what_the_runtimes_are() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (mut wrong, mut checked) = (Vec::new(), 0);
    println!(
        "{:<10} {:>7} {:>12} {:>11} {:>8} {:>9} {:>6}",
        "release", "offsets", "wait reasons", "STW reasons", "FuncIDs", "DWARF ms", "wrong"
    );
    for toolchain in support::toolchains() {
        let exe = dir.path().join(toolchain.release);
        toolchain.build(&support::fixture("efaces"), &["-tags=netgo,osusergo"], &exe);
        let bytes = fs::read(&exe).expect("binary reads");
        let version = GoVersion::parse(&format!("go{}", toolchain.release)).expect("a version");
        let table = RuntimeLayout::for_version(&version).expect("every release tested has a row");
        let start = Instant::now();
        let found = dwarf::check(&bytes, &table).expect("debug information reads");
        let took = start.elapsed().as_millis();

        let mut own: Vec<String> = found.differences.iter().map(|d| format!("{d:?}")).collect();
        own.extend(found.absent.iter().map(|name| format!("{name} is not in the debug information")));
        let src = toolchain.go.ancestors().nth(2).expect("go is in GOROOT/bin").join("src");
        let reasons = check_wait_reasons(&src.join("runtime"), &table, &mut own);
        let stops = check_stw_reasons(&src.join("runtime"), &table, &mut own);
        let ids = check_func_ids(&src, toolchain.version(), table.func_ids, &mut own);
        println!(
            "{:<10} {:>7} {reasons:>12} {stops:>11} {ids:>8} {took:>9} {:>6}",
            toolchain.release,
            found.compared,
            own.len()
        );
        checked += 1;
        wrong.extend(own.into_iter().map(|w| format!("go{}: {w}", toolchain.release)));
    }
    println!("{checked} releases checked");
    assert!(checked > 0, "no Go toolchain found: nothing was checked");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn debug_information_wins_over_the_table() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let Some(toolchain) = support::toolchains().pop() else {
        println!("SKIPPED: no Go toolchain");
        return;
    };
    let exe = dir.path().join("program");
    toolchain.build(&support::fixture("lines"), &[], &exe);
    let bytes = fs::read(&exe).expect("binary reads");
    let right = panicwatch::gobin::open(&exe).expect("a Go binary").layout().clone();
    let mut table = right.clone();
    table.g.goid += 8;
    table.panic.link = 0;
    table.uncommon_after.map = 8;
    let found = dwarf::check(&bytes, &table).expect("debug information reads");
    assert_eq!(found.layout, right);
    assert_eq!(found.differences.len(), 3, "{:?}", found.differences);

    for flags in ["-ldflags=-w", "-ldflags=-s"] {
        toolchain.build(&support::fixture("lines"), &[flags], &exe);
        let stripped = dwarf::check(&fs::read(&exe).expect("binary reads"), &table);
        assert!(matches!(stripped, Err(dwarf::DwarfError::None)), "{flags}: {stripped:?}");
    }
    toolchain.build(&support::fixture("lines"), &["-ldflags=-compressdwarf=false"], &exe);
    let plain =
        dwarf::check(&fs::read(&exe).expect("binary reads"), &table).expect("debug information reads");
    assert_eq!(plain.layout, right);
}

#[test]
fn a_release_without_a_row_is_read_by_its_debug_information() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let Some(toolchain) = support::toolchains().pop() else {
        println!("SKIPPED: no Go toolchain");
        return;
    };
    let exe = dir.path().join("program");
    let raised = format!("go1.{}", toolchain.version().minor() + 1);
    // The linker records the release in one place; it is overwritten by the next release, in a string of the
    // same length.
    let next = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let old = format!("go{}", toolchain.release);
        let new = format!("{raised}{}", &old[raised.len()..]);
        let from = bytes.windows(16).position(|w| w.starts_with(b"\xff Go buildinf:")).expect("build info");
        let at = from + bytes[from..].windows(old.len()).position(|w| w == old.as_bytes()).expect("version");
        bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
        bytes
    };
    toolchain.build(&support::fixture("efaces"), &["-tags=netgo,osusergo"], &exe);
    let bytes: SharedBytes = Arc::new(next(&fs::read(&exe).expect("binary reads")));
    assert!(GoBinary::parse(bytes.clone()).is_err(), "the table has no row for it");
    let binary = dwarf::parse(bytes).expect("debug information gives the layout");
    let known = panicwatch::gobin::open(&exe).expect("a Go binary");
    assert_eq!(binary.layout_source(), LayoutSource::Dwarf);
    assert_eq!((&binary.layout().g, &binary.layout().m), (&known.layout().g, &known.layout().m));
    assert_eq!(binary.function_count(), known.function_count());
    assert_eq!(
        dwarf::parse(Arc::new(fs::read(&exe).expect("reads"))).expect("parses").layout_source(),
        LayoutSource::Table
    );

    toolchain.build(&support::fixture("lines"), &["-ldflags=-w"], &exe);
    let stripped: SharedBytes = Arc::new(next(&fs::read(&exe).expect("binary reads")));
    assert!(dwarf::parse(stripped).is_err(), "nothing gives the layout");
}

#[test]
fn damaged_debug_information_is_an_error_or_finds_less() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let Some(toolchain) = support::toolchains().pop() else {
        println!("SKIPPED: no Go toolchain");
        return;
    };
    let exe = dir.path().join("program");
    toolchain.build(&support::fixture("lines"), &["-ldflags=-compressdwarf=false"], &exe);
    let bytes = fs::read(&exe).expect("binary reads");
    let table = panicwatch::gobin::open(&exe).expect("a Go binary").layout().clone();
    assert_eq!(dwarf::check(&bytes, &table).expect("debug information reads").layout, table);
    let (mut refused, mut read) = (0, 0);
    for i in 0..64_u64 {
        let mut damaged = bytes.clone();
        // Damages every 257th byte of one of 64 parts, but not the headers.
        let part = damaged.len() / 64;
        let from = (part * i as usize).max(4096);
        for at in (from..(from + part).min(damaged.len())).step_by(257) {
            damaged[at] = damaged[at].wrapping_mul(31).wrapping_add(i as u8 + 1);
        }
        match dwarf::check(&damaged, &table) {
            Ok(_) => read += 1,
            Err(_) => refused += 1,
        }
        let cut = bytes.len() / 64 * i as usize;
        let _ = dwarf::check(&bytes[..cut], &table);
    }
    println!("{refused} refused, {read} read");
    assert!(refused > 0 && read > 0, "the damage reaches the debug information, and not always all of it");
}
