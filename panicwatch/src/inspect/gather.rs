//! Determines the facts from the bytes of a binary. Does no I/O; does not depend on how the facts are
//! rendered.

use std::fmt::Write as _;

use super::{
    facts::{Dependency, Difference, Inspection, Layout, Probe, ProcessFacts, Replacement, Section, Vcs},
    meaning,
};
use crate::{
    gobin::{self, BuildInfo, Error, GoBinary, GoFile, GoVersion, LayoutSource, Module, SharedBytes, dwarf},
    incident::Addr,
    plan::{ProbePlan, plan},
    probe::attach,
};

/// Returns the facts about the binary `bytes`; `path` is its name in reports. `in_process` returns the facts
/// about a process, given the binary if it could be read.
///
/// A Go program that cannot be watched is described as far as possible.
///
/// # Errors
/// When it is not a Go program, or its build information is damaged.
pub fn inspect(
    bytes: SharedBytes,
    path: &str,
    in_process: impl FnOnce(Option<&GoBinary>) -> Option<ProcessFacts>,
) -> Result<Inspection, Error> {
    let file = GoFile::parse(bytes.clone())?;
    let bin = dwarf::open_bytes(bytes.clone());
    let mut facts = of_file(&file, path, (*bytes).as_ref().len() as u64);
    facts.layout = layout(&bytes, file.version(), bin.as_ref().ok());
    facts.layout_source = facts.layout.source;
    match &bin {
        Ok(bin) => add_binary(&mut facts, bin),
        Err(error) => {
            facts.cgo = file.has_symbol("crosscall2").then_some(true);
            facts.cannot_be_watched = Some(error.to_string());
        }
    }
    facts.watchable = facts.cannot_be_watched.is_none();
    facts.process = in_process(bin.as_ref().ok());
    facts.costs = meaning::costs(&facts, file.version());
    facts.notes = meaning::notes(&facts);
    Ok(facts)
}

/// Returns the facts that every Go file has.
fn of_file(file: &GoFile, path: &str, file_size: u64) -> Inspection {
    let info = file.build_info();
    let vcs = vcs(&info);
    let main = info.main.unwrap_or_default();
    Inspection {
        path: path.to_owned(),
        file_size,
        go_version: file.version().raw.clone(),
        watchable: false,
        cannot_be_watched: None,
        main_package: info.path,
        module: some(main.path),
        module_version: some(main.version),
        module_sum: main.sum,
        module_replaced_by: main.replaced_by.map(|m| replacement(*m)),
        dependencies: info.deps.into_iter().map(dependency).collect(),
        settings: info.settings,
        vcs,
        arch: file.arch().map(str::to_owned),
        pie: file.is_pie(),
        cgo: None,
        build_id: file.gnu_build_id(),
        go_build_id: file.go_build_id(),
        symbol_table: file.has_symtab(),
        dwarf: file.has_dwarf(),
        pclntab: false,
        sections: file.sections().iter().map(section).collect(),
        text_start: None,
        functions: None,
        inlined_calls: None,
        layout_source: None,
        layout: Layout {
            source: None,
            compared: 0,
            differences: Vec::new(),
            absent: Vec::new(),
            not_compared: None,
        },
        probes: Vec::new(),
        costs: Vec::new(),
        notes: Vec::new(),
        process: None,
    }
}

/// Adds the facts from the tables of a readable binary.
fn add_binary(facts: &mut Inspection, bin: &GoBinary) {
    facts.pclntab = true;
    facts.cgo = Some(bin.uses_cgo());
    facts.text_start = Some(Addr(bin.text_start()));
    facts.functions = Some(bin.function_count());
    facts.inlined_calls = bin.inlined_call_count();
    let plan = plan(bin);
    facts.cannot_be_watched = attach::obstacle(bin, &plan);
    facts.probes = probes(&plan);
}

/// Lists the plan: first the probe sites in the order of the panic path, then the probes left out.
pub fn probes(plan: &ProbePlan) -> Vec<Probe> {
    let placed = plan.sites.iter().map(|site| Probe {
        name: site.name,
        symbol: site.symbol.clone(),
        address: Some(Addr(site.address)),
        offset: Some(site.offset),
        file_offset: Some(site.file_offset),
        instruction: Some(site.instruction.clone()),
        bytes: Some(hex(&site.bytes)),
        price: Some(site.price.as_str()),
        placed: true,
        reason: None,
        lost: None,
        why: Some(site.why),
    });
    let left_out = plan.left_out.iter().map(|left| Probe {
        name: left.name,
        symbol: left.symbol.clone(),
        address: None,
        offset: None,
        file_offset: None,
        instruction: None,
        bytes: None,
        price: None,
        placed: false,
        reason: Some(left.reason.clone()),
        lost: Some(left.lost),
        why: None,
    });
    placed.chain(left_out).collect()
}

/// Returns the source of the structs' layout. Table and debug information are compared whenever both exist,
/// whichever is used.
fn layout(bytes: &SharedBytes, version: &GoVersion, bin: Option<&GoBinary>) -> Layout {
    let source = bin.map(|bin| match bin.layout_source() {
        LayoutSource::Table => "table",
        LayoutSource::Dwarf => "dwarf",
    });
    let (checked, not_compared) = match dwarf::compare((**bytes).as_ref(), version) {
        Some(Ok(checked)) => (Some(checked), None),
        Some(Err(error)) => (None, Some(error.to_string())),
        None => (None, Some("the table has no row near this release".to_owned())),
    };
    let Some(checked) = checked else {
        return Layout { source, compared: 0, differences: Vec::new(), absent: Vec::new(), not_compared };
    };
    let differences = checked.differences.into_iter().map(|d| Difference {
        go_type: d.go_type,
        field: d.path,
        table: d.table,
        dwarf: d.dwarf,
    });
    Layout {
        source,
        compared: checked.compared,
        differences: differences.collect(),
        absent: checked.absent,
        not_compared,
    }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn dependency(module: Module) -> Dependency {
    Dependency {
        path: module.path,
        version: some(module.version),
        sum: module.sum,
        replaced_by: module.replaced_by.map(|m| replacement(*m)),
    }
}

fn replacement(module: Module) -> Replacement {
    Replacement { path: module.path, version: some(module.version), sum: module.sum }
}

/// Returns the VCS facts. <https://github.com/golang/go/blob/go1.24.11/src/cmd/go/internal/load/pkg.go>
/// setBuildInfo
fn vcs(info: &BuildInfo) -> Option<Vcs> {
    let get = |name| info.setting(name).map(str::to_owned);
    let modified = match info.setting("vcs.modified") {
        Some("true") => Some(true),
        Some("false") => Some(false),
        _ => None,
    };
    let vcs = Vcs { system: get("vcs"), revision: get("vcs.revision"), time: get("vcs.time"), modified };
    (vcs.system.is_some() || vcs.revision.is_some()).then_some(vcs)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn section(section: &gobin::Section) -> Section {
    Section {
        name: section.name.clone(),
        kind: section.kind_name(),
        flags: section.flag_letters(),
        address: Addr(section.addr),
        offset: section.offset,
        size: section.size,
    }
}
