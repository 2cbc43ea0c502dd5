//! Facts of `inspect`, compared with other tools' output for the same file.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use panicwatch::gobin::{self, tables};
use serde_json::Value;

use crate::{
    address, json,
    support::{Toolchain, fixture, toolchains},
    tool,
};

const MODES: [(&str, &[&str]); 7] = [
    ("default", &[]),
    ("stripped", &["-ldflags=-s -w"]),
    ("unoptimised", &["-gcflags=all=-N -l"]),
    ("trimpath", &["-trimpath", "-tags=netgo,osusergo"]),
    ("pie", &["-buildmode=pie"]),
    ("external", &["-ldflags=-linkmode=external"]),
    ("external pie stripped", &["-buildmode=pie", "-ldflags=-linkmode=external -s -w"]),
];

#[test]
fn every_fact_as_the_tools_have_it() {
    let dir = tempfile::tempdir().expect("a directory");
    for toolchain in toolchains() {
        let mut inlined = BTreeMap::new();
        for (mode, flags) in MODES {
            let exe = dir.path().join("program");
            toolchain.build(&fixture("stacks"), flags, &exe);
            let what = format!("go{} {mode}", toolchain.release);
            let facts = json(&exe);
            assert_eq!(facts["watchable"], true, "{what}: {}", facts["cannot_be_watched"]);
            let compared = compare_build(&toolchain, &exe, &facts, &what);
            let sections = compare_sections(&exe, &facts, &what);
            compare_notes(&toolchain, &exe, &facts, &what);
            let probes = if mode.contains("stripped") {
                0
            } else {
                compare_functions(&toolchain, &exe, &facts, &what);
                compare_probes(&toolchain, &exe, &facts, &what)
            };
            assert!(probes >= 12 || mode.contains("stripped"), "{what}: {probes}");
            compare_layout(&facts, mode, &what);
            inlined.insert(mode, facts["inlined_calls"].as_u64().expect("a number"));
            println!("{what}: {compared} build facts, {sections} sections, {probes} probes");
        }
        assert_eq!(inlined["unoptimised"], 0, "nothing is inlined with all=-l");
        assert_eq!(inlined["default"], inlined["stripped"]);
        assert!(inlined["default"] > 1000, "{inlined:?}");
    }
}

/// A module with dependencies in a version-controlled checkout: everything that build information can
/// contain.
#[test]
fn modules_replacements_and_the_revision() {
    let dir = tempfile::tempdir().expect("a directory");
    let main = module_in_a_checkout(dir.path());
    for toolchain in toolchains() {
        let exe = dir.path().join("program");
        let env = [("GO111MODULE", "on"), ("GOPROXY", "off"), ("GOFLAGS", "-mod=mod")];
        let flags = ["-ldflags=-X 'main.who=a \"b\" c'"];
        toolchain.build_with(&env, &main.join("cmd/server"), &flags, &exe);
        let what = format!("go{} module", toolchain.release);
        let facts = json(&exe);
        compare_build(&toolchain, &exe, &facts, &what);
        assert_eq!(facts["main_package"], "example.com/shop/cmd/server", "{what}");
        assert_eq!(facts["module"], "example.com/shop", "{what}");
        assert_eq!(facts["dependencies"][0]["path"], "example.com/dep", "{what}");
        assert_eq!(facts["dependencies"][0]["version"], "v1.2.3", "{what}");
        assert_eq!(facts["dependencies"][0]["replaced_by"]["path"], "../dep", "{what}");
        assert_eq!(facts["settings"]["-ldflags"], "-X 'main.who=a \"b\" c'", "{what}");
        if facts["vcs"].is_null() {
            println!("SKIPPED {what}, revision: no git");
            continue;
        }
        let head = tool("git", &["-C", &main.to_string_lossy(), "rev-parse", "HEAD"]).expect("git");
        assert_eq!(facts["vcs"]["revision"], head.trim(), "{what}");
        assert_eq!(facts["vcs"]["modified"], false, "{what}");
    }
}

fn module_in_a_checkout(dir: &Path) -> PathBuf {
    let main = dir.join("shop");
    let write = |path: &str, text: &str| {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(path, text).expect("written");
    };
    write("dep/go.mod", "module example.com/dep\n\ngo 1.19\n");
    write("dep/dep.go", "package dep\n\nfunc Price() int { return 1 }\n");
    let module = "module example.com/shop\n\ngo 1.19\n\nrequire example.com/dep v1.2.3\n\nreplace example.com/dep => ../dep\n";
    write("shop/go.mod", module);
    let code = "package main\n\nimport \"example.com/dep\"\n\nvar who string\n\nfunc main() { println(who, dep.Price()) }\n";
    write("shop/cmd/server/main.go", code);
    for args in [
        &["init", "-q"][..],
        &["add", "."],
        &["-c", "user.name=n", "-c", "user.email=n@example.com", "commit", "-qm", "first"],
    ] {
        let path = main.to_string_lossy().into_owned();
        let _ = tool("git", &[&["-C", path.as_str()], args].concat());
    }
    main
}

/// Compares with `go version -m`.
fn compare_build(toolchain: &Toolchain, exe: &Path, facts: &Value, what: &str) -> usize {
    let path = exe.to_string_lossy();
    let go = toolchain.go.to_string_lossy();
    let text = tool(&go, &["version", "-m", &path]).expect("go runs");
    let mut lines = text.lines();
    let version = lines.next().and_then(|line| line.rsplit_once(": ")).expect("a version").1;
    assert_eq!(facts["go_version"], version, "{what}");
    let (mut package, mut module, mut deps) = (Value::Null, Value::Null, Vec::new());
    let mut settings = serde_json::Map::new();
    let field = |text: Option<&str>| text.filter(|t| !t.is_empty()).map_or(Value::Null, Value::from);
    let mut compared = 1;
    for line in lines {
        // An older go command ends a replacement with an empty line.
        if line.trim().is_empty() {
            continue;
        }
        compared += 1;
        let (kind, rest) = line.trim_start_matches('\t').split_once('\t').expect("a kind");
        let mut words = rest.split('\t');
        let mut next = || field(words.next());
        match kind {
            "path" => package = rest.into(),
            "mod" => module = serde_json::json!([next(), next(), next()]),
            "dep" => deps.push(
                serde_json::json!({"path": next(), "version": next(), "sum": next(), "replaced_by": null}),
            ),
            "=>" => {
                deps.last_mut().expect("a dep")["replaced_by"] =
                    serde_json::json!({"path": next(), "version": next(), "sum": next()});
            }
            "build" => {
                let (name, value) = rest.split_once('=').expect("a setting");
                settings.insert(name.to_owned(), unquoted(value).into());
            }
            other => panic!("{what}: {other}"),
        }
    }
    assert_eq!(facts["main_package"], package, "{what}");
    if module.is_null() {
        assert_eq!(facts["module"], Value::Null, "{what}");
    } else {
        let ours = serde_json::json!([facts["module"], facts["module_version"], facts["module_sum"]]);
        assert_eq!(ours, module, "{what}");
    }
    assert_eq!(facts["dependencies"], Value::from(deps), "{what}");
    assert!(settings.len() >= 4, "{what}: {settings:?}");
    assert_eq!(facts["settings"], Value::from(settings), "{what}");
    compared
}

/// Undoes strconv.Quote; for these texts, JSON has the same syntax.
fn unquoted(value: &str) -> String {
    if value.starts_with('"') { serde_json::from_str(value).expect("quoted") } else { value.to_owned() }
}

/// Compares with `readelf -SW`.
fn compare_sections(exe: &Path, facts: &Value, what: &str) -> usize {
    let path = exe.to_string_lossy();
    let Some(text) = tool("readelf", &["-SW", &path]) else { return 0 };
    let hex = |text: &str| u64::from_str_radix(text, 16).expect("hex");
    let mut theirs = Vec::new();
    for line in text.lines() {
        let Some((_, rest)) = line.trim_start().strip_prefix('[').and_then(|l| l.split_once("] ")) else {
            continue;
        };
        let mut words: Vec<&str> = rest.split_whitespace().collect();
        if words.first().is_none_or(|name| *name == "NULL" || *name == "Name") {
            continue;
        }
        // Name, type, address, offset, size, entry size, then the flags, if there are any, and three numbers.
        let flags = if words.len() > 9 { words.remove(6) } else { "" };
        let flags: String = flags.chars().filter(|c| "WAXMSILGTC".contains(*c)).collect();
        theirs.push((
            words[0].to_owned(),
            words[1].to_owned(),
            hex(words[2]),
            hex(words[3]),
            hex(words[4]),
            flags,
        ));
    }
    let sections = facts["sections"].as_array().expect("sections");
    let text = |s: &Value, name: &str| s[name].as_str().expect("text").to_owned();
    let number = |s: &Value, name: &str| s[name].as_u64().expect("a number");
    let ours: Vec<_> = sections
        .iter()
        .map(|s| {
            // A section type that is specific to one machine.
            let kind = text(s, "kind").replace("0x70000001", "X86_64_UNWIND");
            (
                text(s, "name"),
                kind,
                address(&s["address"]),
                number(s, "offset"),
                number(s, "size"),
                text(s, "flags"),
            )
        })
        .collect();
    assert_eq!(ours, theirs, "{what}");
    let has = |name: &str| theirs.iter().any(|s| s.0 == name);
    assert_eq!(facts["symbol_table"], has(".symtab"), "{what}");
    assert_eq!(facts["dwarf"], has(".debug_info") || has(".zdebug_info"), "{what}");
    assert_eq!(facts["file_size"], fs::metadata(exe).expect("a file").len());
    theirs.len()
}

/// Compares with `readelf -n` and `go tool buildid`.
fn compare_notes(toolchain: &Toolchain, exe: &Path, facts: &Value, what: &str) {
    let path = exe.to_string_lossy();
    let id = tool(&toolchain.go.to_string_lossy(), &["tool", "buildid", &path]).expect("go runs");
    assert_eq!(facts["go_build_id"], id.trim(), "{what}");
    let Some(text) = tool("readelf", &["-nW", &path]) else { return };
    let gnu = text.lines().find_map(|line| line.trim().split_once("Build ID: ")).map(|(_, id)| id.trim());
    assert_eq!(facts["build_id"].as_str(), gnu, "{what}");
}

/// Compares functions with `go tool nm`, and the number of inlined calls with the table's value at every
/// program counter.
fn compare_functions(toolchain: &Toolchain, exe: &Path, facts: &Value, what: &str) {
    let path = exe.to_string_lossy();
    let text = tool(&toolchain.go.to_string_lossy(), &["tool", "nm", &path]).expect("go runs");
    let symbol = |name: &str| {
        let line = text.lines().find(|line| line.split_whitespace().nth(2) == Some(name));
        line.map(|l| u64::from_str_radix(l.split_whitespace().next().expect("a word"), 16).expect("hex"))
    };
    assert_eq!(Some(address(&facts["text_start"])), symbol("runtime.text"), "{what}");
    assert_eq!(facts["cgo"], symbol("crosscall2").is_some(), "{what}");
    let bin = gobin::open(exe).expect("a Go binary");
    assert_eq!(facts["functions"], bin.functions().count(), "{what}");
    let calls: i64 = bin
        .functions()
        .map(|f| {
            let index = |pc| f.pcdata(tables::PCDATA_INL_TREE, pc);
            // Every instruction of an inlined call has the call's index, so the highest index is the last
            // call.
            (f.entry()..f.end()).filter_map(index).max().map_or(0, |last| i64::from(last) + 1)
        })
        .sum();
    assert_eq!(facts["inlined_calls"], calls, "{what}");
}

/// Compares with `go tool objdump`: each probe is at the start of an instruction with these bytes.
fn compare_probes(toolchain: &Toolchain, exe: &Path, facts: &Value, what: &str) -> usize {
    let path = exe.to_string_lossy();
    let go = toolchain.go.to_string_lossy();
    let text = tool(&go, &["tool", "objdump", "-s", r"^runtime\.", &path]).expect("go runs");
    let mut instructions = BTreeMap::new();
    let mut functions = BTreeMap::new();
    let mut function = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("TEXT ") {
            function = name.split('(').next().map(str::to_owned);
            continue;
        }
        let mut words = line.split_whitespace().skip(1);
        let (Some(at), Some(bytes)) = (words.next(), words.next()) else { continue };
        let at = u64::from_str_radix(at.trim_start_matches("0x"), 16).expect("hex");
        if let Some(name) = function.take() {
            functions.insert(at, name);
        }
        instructions.insert(at, bytes.to_owned());
    }
    let probes = facts["probes"].as_array().expect("probes");
    let placed: Vec<_> = probes.iter().filter(|p| p["placed"] == true).collect();
    for probe in &placed {
        let at = address(&probe["address"]);
        assert_eq!(probe["bytes"].as_str(), instructions.get(&at).map(String::as_str), "{what}: {probe}");
        let entry = at - probe["offset"].as_u64().expect("a number");
        let name = functions.get(&entry).unwrap_or_else(|| panic!("{what}: no function at {entry:#x}"));
        assert!(name.starts_with(probe["symbol"].as_str().expect("text")), "{what}: {name}, {probe}");
    }
    placed.len()
}

fn compare_layout(facts: &Value, mode: &str, what: &str) {
    assert_eq!(facts["layout_source"], "table", "{what}");
    assert_eq!(facts["layout"]["differences"], serde_json::json!([]), "{what}");
    let compared = facts["layout"]["compared"].as_u64().expect("a number");
    assert_eq!(compared > 90, !mode.contains("stripped"), "{what}: {compared}");
    assert_eq!(facts["layout"]["not_compared"].is_string(), mode.contains("stripped"), "{what}");
}
