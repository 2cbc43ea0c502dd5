//! Arguments and results, compared with what the program itself prints with package fmt.

use anyhow::{Context, Result, ensure};
use panicwatch_common::trace::STACK_FRAMES;
use serde_json::Value;

use super::{Built, Traced};

const STRIPPED: &str = "stripped";

/// Parses the arguments that the program printed: function name and texts.
fn said(stdout: &str) -> Vec<(&str, Vec<&str>)> {
    let calls = stdout.lines().filter_map(|line| line.strip_prefix("CALL "));
    calls
        .filter_map(|line| line.split_once('|'))
        .map(|(name, texts)| (name, texts.split('|').collect()))
        .collect()
}

/// Returns the values of a line, or the reasons why they are missing.
fn values(line: &Value, which: &str) -> Result<Vec<String>> {
    let all = line[which].as_array().with_context(|| format!("no {which}: {line}"))?;
    let text = |a: &Value| match (a["value"].as_str(), a["reason"].as_str()) {
        (Some(value), _) => value.to_owned(),
        (None, reason) => format!("<{}>", reason.unwrap_or("no reason")),
    };
    Ok(all.iter().map(text).collect())
}

pub(super) fn arguments(built: &Built) -> Result<()> {
    let run = Traced::run(&["main.*", "strings.ToUpper", "--args"], &built.path, &[])?;
    if built.flavour.name == STRIPPED {
        let line = run.of("entry", "main.numbers").next().context("main.numbers was not seen")?;
        ensure!(line["args"].is_null(), "{line}");
        ensure!(
            run.output.stderr.contains("no debug information"),
            "the reason is not told: {}",
            run.output.stderr
        );
        return Ok(());
    }
    let mut seen = 0;
    for (name, wanted) in said(&run.output.stdout) {
        let function = match name {
            "recurse" => continue,
            "upper" => "strings.ToUpper".to_owned(),
            "grow" => "main.(*Tree).grow".to_owned(),
            name => format!("main.{name}"),
        };
        let nth = said(&run.output.stdout).iter().filter(|(n, _)| *n == name).position(|(_, w)| *w == wanted);
        let line =
            run.of("entry", &function).nth(nth.unwrap_or(0)).with_context(|| format!("no {function}"))?;
        let ours = values(line, "args")?;
        let (ours, wanted): (Vec<String>, Vec<&str>) = match name {
            "grow" => (ours[1..].to_vec(), wanted),
            "upper" => (ours, vec!["\"standard\""]),
            _ => (ours, wanted),
        };
        ensure!(ours.len() == wanted.len(), "{name}: {ours:?}, Go says {wanted:?}");
        for (ours, go) in ours.iter().zip(&wanted) {
            // Before Go 1.22, unused parameters are missing from the debug information; their values are
            // unknown but never wrong.
            let unknown =
                !built.release.dwarf_has_all_parameters() && ours.contains("has no location for it");
            ensure!(ours == go || unknown, "{name}: {ours}, Go says {go}");
            seen += usize::from(!unknown);
        }
    }
    ensure!(seen >= 20, "only {seen} values were compared");
    pointers(&run)
}

/// Checks the values that pointers point to, on the heap and on a stack that moves.
fn pointers(run: &Traced) -> Result<()> {
    let grow = run.of("entry", "main.(*Tree).grow").next().context("no grow")?;
    let tree = &values(grow, "args")?[0];
    let wanted =
        "&{Name:\"big\" At:&{X:1 Y:2} Sizes:map[2 entries] Err:nil List:[1 2] Nick:\"n\" Ratio:1.5 ok:true}";
    ensure!(tree == wanted, "{tree}");
    for (i, line) in run.of("entry", "main.recurse").enumerate() {
        let args = values(line, "args")?;
        let wanted = [(100 - i).to_string(), format!("&{{X:{i} Y:9}}")];
        ensure!(args == wanted, "call {i} of recurse: {args:?}");
    }
    Ok(())
}

pub(super) fn results(built: &Built) -> Result<()> {
    let run = Traced::run(&["main.*", "strings.ToUpper", "--results"], &built.path, &[])?;
    if built.flavour.name == STRIPPED {
        ensure!(run.output.stderr.contains("no debug information"), "{}", run.output.stderr);
        return Ok(());
    }
    for (function, nth, wanted) in [
        ("main.numbers", 0, &["41"][..]),
        ("main.composite", 0, &["{X:-2 Y:1}"]),
        ("main.faces", 1, &["nil"]),
        ("main.many", 0, &["11", "\"on the stack\""]),
        ("main.(*Tree).grow", 0, &["3", "*errors.errorString(\"too big\")"]),
        ("main.recurse", 100, &["101"]),
        ("strings.ToUpper", 0, &["\"STANDARD\""]),
    ] {
        let line = run.of("exit", function).nth(nth).with_context(|| format!("{function} did not return"))?;
        let ours = values(line, "results")?;
        ensure!(ours == wanted, "{function} gave {ours:?}, not {wanted:?}");
    }
    Ok(())
}

pub(super) fn conditions(built: &Built) -> Result<()> {
    let run = Traced::run(&["main.*", "--where", "n<3"], &built.path, &[])?;
    let told: Vec<&Value> = run.of("entry", "main.recurse").collect();
    ensure!(told.len() == 3, "{} calls with n<3", told.len());
    ensure!(run.count("main.recurse", "entries") == 101, "the others are counted: {}", run.summary);
    let run = Traced::run(&["main.*", "--where", "err contains outer"], &built.path, &[])?;
    let told: Vec<&str> = run.events.iter().filter_map(|line| line["function"].as_str()).collect();
    ensure!(told == ["main.faces"], "{told:?}");
    Ok(())
}

/// Checks callers and their lines, on a moved stack too, and that of many callers the innermost are kept.
pub(super) fn callers(built: &Built) -> Result<()> {
    let run = Traced::run(&["main.recurse", "main.numbers", "--stack"], &built.path, &[])?;
    let names = |line: &Value| -> Vec<String> {
        let all = line["stack"].as_array().map_or(&[][..], Vec::as_slice);
        all.iter().filter_map(|caller| caller["function"].as_str().map(str::to_owned)).collect()
    };
    let numbers = run.of("entry", "main.numbers").next().context("no numbers")?;
    ensure!(names(numbers).starts_with(&["main.main".to_owned(), "runtime.main".to_owned()]), "{numbers}");
    let line = numbers["stack"][0]["line"].as_u64();
    ensure!(line.is_some_and(|line| line > 80), "{numbers}");
    let mut calls = 0;
    for (i, line) in run.of("entry", "main.recurse").enumerate() {
        let names = names(line);
        let recursions = names.iter().take_while(|name| *name == "main.recurse").count();
        ensure!(recursions == i.min(STACK_FRAMES), "call {i}: {names:?}");
        let outermost = names.get(i).map(String::as_str);
        ensure!(outermost == (i < STACK_FRAMES).then_some("main.main"), "call {i}: {names:?}");
        calls += 1;
    }
    ensure!(calls > STACK_FRAMES, "{calls} calls");
    Ok(())
}
