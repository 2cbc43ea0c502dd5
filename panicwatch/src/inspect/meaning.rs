//! Consequences of the build for a report, in sentences: of absent data, and of inlining and optimization.
//!
//! Computed from the facts alone. Every sentence makes a claim about panicwatch's reports, which must be true
//! of the code.

use super::facts::Inspection;
use crate::gobin::{GoVersion, dwarf};

/// Returns the consequences of each thing that is absent.
pub(super) fn costs(facts: &Inspection, version: &GoVersion) -> Vec<String> {
    let mut costs = Vec::new();
    let readable = facts.pclntab;
    if !facts.symbol_table {
        let c = if facts.cgo == Some(true) { "; C functions have no names at all" } else { "" };
        costs.push(format!(
            "no symbol table (-ldflags=-s, or strip): reports lose nothing, because functions, files and lines come \
             from the \
             pclntab; nm and debuggers find no names{c}"
        ));
    }
    if readable {
        costs.extend(layout(facts, version));
    }
    if facts.sections.is_empty() {
        costs.push(
            "no section headers: reports lose nothing, the tables were found by their contents".to_owned(),
        );
    }
    if facts.module.is_none() {
        costs.push(
            "no main module in the build information (a GOPATH build, go build FILE.go, or one of Go's own tools): a \
             report treats every package outside the standard library as the program's own"
                .to_owned(),
        );
    }
    if facts.vcs.is_none() {
        costs.push(
            "no VCS revision (built outside a checkout, or with -buildvcs=false): incidents cannot name the commit"
                .to_owned(),
        );
    }
    if facts.build_id.is_none() && facts.go_build_id.is_none() {
        costs.push(
            "no build id: incidents cannot tell this build from another of the same version".to_owned(),
        );
    }
    costs
}

fn layout(facts: &Inspection, version: &GoVersion) -> Option<String> {
    let differences = facts.layout.differences.len();
    if facts.layout_source == Some("table") && differences > 0 {
        return Some(format!(
            "the debug information disagrees with panicwatch's table on {differences} offsets, and the table is used because \
             {} names a plain release: if its runtime was changed, what a report says of goroutines and panics may be wrong",
            facts.go_version
        ));
    }
    let why = facts.layout.not_compared.as_ref()?;
    let why = if facts.dwarf { why } else { "no debug information (-ldflags=-w or -s, or strip)" };
    Some(if dwarf::table_suffices(version) {
        format!(
            "{why}: the layout of the runtime's structs is that of the table for {}, unchecked; lines, stacks and values \
             need no debug information",
            version.release
        )
    } else {
        format!(
            "{why}: the layout of the runtime's structs is that of the table for {}, although {} is not a plain \
             release; if its structs differ, what a report says of goroutines and panics is wrong",
            version.release, facts.go_version
        )
    })
}

/// Returns the consequences of the build settings.
pub(super) fn notes(facts: &Inspection) -> Vec<String> {
    let mut notes = Vec::new();
    if facts.layout_source == Some("dwarf") {
        notes.push(format!(
            "{}: the layout of the runtime's structs is that of the binary's own debug information",
            facts.go_version
        ));
    }
    if let Some(calls) = facts.inlined_calls.filter(|calls| *calls > 0) {
        notes.push(format!(
            "{calls} calls are inlined: a report shows each as a frame of its own, marked inlined, but it has no place on the \
             stack and no arguments of its own"
        ));
    }
    if let Some(flags) = facts.setting("-gcflags").map(GcFlags::parse) {
        notes.extend(flags.notes());
    }
    if facts.setting("-trimpath") == Some("true") {
        notes.push(
            "-trimpath: files are named by module and version (example.com/m@v1.2.3/x.go), not by their paths at \
             build time; the go command does not record -ldflags then"
                .to_owned(),
        );
    }
    if facts.pie {
        notes.push(
            "position independent: run-time addresses are these plus a load bias that differs in each run"
                .to_owned(),
        );
    }
    if facts.cgo == Some(true) {
        notes.push(
            "cgo: stacks show Go's frames, as Go's own traceback does; C frames are missing".to_owned(),
        );
    }
    if facts.vcs.as_ref().is_some_and(|vcs| vcs.modified == Some(true)) {
        notes.push(
            "the checkout had uncommitted changes: the revision alone does not identify the source"
                .to_owned(),
        );
    }
    notes
}

/// The parts of -gcflags that affect a report.
#[derive(Debug, PartialEq, Eq)]
struct GcFlags {
    /// Whether the pattern is "all=", which includes the standard library and the runtime.
    all: bool,
    /// -N
    unoptimised: bool,
    /// -l
    not_inlined: bool,
}

impl GcFlags {
    /// Parses "[pattern=]flag flag …": <https://pkg.go.dev/cmd/go#hdr-Compile_packages_and_dependencies>
    fn parse(text: &str) -> Self {
        let (pattern, flags) = match text.split_once('=') {
            Some((pattern, flags)) if !pattern.starts_with('-') => (pattern, flags),
            _ => ("", text),
        };
        let has = |flag| flags.split_ascii_whitespace().any(|word| word == flag);
        Self { all: pattern == "all", unoptimised: has("-N"), not_inlined: has("-l") }
    }

    fn notes(&self) -> Vec<String> {
        let whose = if self.all { "the whole program" } else { "the packages named to go build" };
        let mut notes = Vec::new();
        if self.unoptimised {
            // The compiler never applies -N to the runtime, which contains the probe sites:
            // https://github.com/golang/go/blob/go1.24.11/src/cmd/compile/internal/base/flag.go
            let whose = if self.all { "the whole program but its runtime" } else { whose };
            notes.push(format!(
                "-N: {whose} is not optimized: the instructions of a report follow the source line by line, and the program is \
                 slower than one that is"
            ));
        }
        if self.not_inlined {
            notes.push(format!("-l: nothing is inlined in {whose}: every call is a frame on the stack"));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiler_flags_as_go_build_takes_them() {
        let parse = |text| {
            let flags = GcFlags::parse(text);
            (flags.all, flags.unoptimised, flags.not_inlined)
        };
        assert_eq!(parse("-N -l"), (false, true, true));
        assert_eq!(parse("all=-N -l"), (true, true, true));
        assert_eq!(parse("./...=-l"), (false, false, true));
        assert_eq!(parse("-d=checkptr=1 -N"), (false, true, false));
        assert_eq!(parse("-lang=go1.20"), (false, false, false));
    }
}
