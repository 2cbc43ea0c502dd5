//! Builds the document: adds names, files and depths to what was collected.
//!
//! Knows the binary and the incidents of the same process. Must not know how the document is displayed.

use std::collections::{BTreeSet, HashMap};

use panicwatch_common::binary::site;

use super::{
    Collected, DepthSource, End, Function, How, InitTrace, Package, Program as Traced, SCHEMA, Step, Stopped,
    TaskRun, calls, depth::Imports, tasks, variable,
};
use crate::{
    capture::{Program, correlate::exit_of},
    go::gobin::GoBinary,
    incident::{Exit, Incident, Missing, Outcome},
    plan::init_plan,
};

/// Names of the steps by site flag.
const STEPS: [(u32, &str); 6] = [
    (site::STEP_RT0, "runtime.rt0_go"),
    (site::STEP_SCHEDINIT, "runtime.schedinit"),
    (site::STEP_NEWPROC, "runtime.newproc"),
    (site::STEP_MSTART, "runtime.mstart"),
    (site::STEP_RUNTIME_MAIN, "runtime.main"),
    (site::STEP_MAIN, MAIN),
];
const MAIN: &str = "main.main";

/// Builds the document. `incidents` are those reported for the process in the meantime.
///
/// Scans the complete code of the binary, which takes some tenths of a second for a large one.
pub fn build(collected: &Collected, program: &Program, incidents: &[Incident]) -> InitTrace {
    let bias = program.view(&collected.first).bias;
    let bin = &program.bin;
    let mut missing = Vec::new();
    let mut packages: Vec<Package> = collected.tasks.iter().map(|run| package(bin, bias, run)).collect();
    let depth_source = depths(bin, bias, collected, &mut packages, &mut missing);
    let chain = chain(collected, &packages);
    let end = chain.last().filter(|step| step.what == MAIN).map(|step| step.time_ns);
    let total_ns = end.zip(chain.first()).map(|(end, first)| end.saturating_sub(first.time_ns));
    for left in init_plan(bin).left_out {
        missing.push(lack(left.name, format!("{}: {}; lost: {}", left.symbol, left.reason, left.lost)));
    }
    for (i, package) in packages.iter().enumerate() {
        if package.package.is_none() {
            let what = format!("packages[{i}].package");
            missing.push(lack(&what, "its init task is not in the binary: it may belong to a plugin"));
        }
    }
    if collected.lost > 0 {
        let records = if collected.lost == 1 { "record was" } else { "records were" };
        let reason = format!("{} {records} lost: the event ring was full", collected.lost);
        missing.push(lack("packages", reason));
    }
    if total_ns.is_none() {
        missing.push(lack("total_ns", "main.main was not reached"));
    }
    if collected.exec_ns.is_none() {
        missing.push(lack("exec_ns", "the kernel's exec event was not seen"));
    }
    InitTrace {
        schema: SCHEMA,
        program: Traced {
            pid: collected.first.head.tgid,
            exe: program.path.to_string_lossy().into_owned(),
            go_version: bin.version().raw.clone(),
        },
        exec_ns: collected.exec_ns,
        stopped: stopped(collected, program, bias, &packages, &chain, incidents),
        chain,
        packages,
        total_ns,
        depth_source,
        missing,
    }
}

fn lack(what: &str, reason: impl Into<String>) -> Missing {
    Missing { what: what.to_owned(), reason: reason.into() }
}

fn package(bin: &GoBinary, bias: u64, run: &TaskRun) -> Package {
    let task = run.task.wrapping_sub(bias);
    let functions = run.functions.iter().map(|call| {
        let func = tasks::function(bin, task, call.index).and_then(|entry| bin.find_func(entry));
        let (function, file, line) = func
            .map(tasks::describe)
            .map_or((None, None, None), |(name, file, line)| (Some(name), file, line));
        let duration_ns = call.end_ns.map(|end| end.saturating_sub(call.start_ns));
        Function { function, file, line, start_ns: call.start_ns, duration_ns }
    });
    Package {
        package: tasks::package(bin, task),
        start_ns: run.start_ns,
        duration_ns: run.end_ns.map(|end| end.saturating_sub(run.start_ns)),
        depth: None,
        imports: Vec::new(),
        runtime: false,
        functions: functions.collect(),
    }
}

/// Returns the observed steps, with the start of package main's initialization between them. Except for
/// recursion, each step happens once: only the first occurrence counts.
fn chain(collected: &Collected, packages: &[Package]) -> Vec<Step> {
    let seen = |flag| collected.steps.iter().find(|(step, _)| *step == flag).map(|(_, time_ns)| *time_ns);
    let step = |what: &str, time_ns| Step { what: what.to_owned(), time_ns };
    let mut chain: Vec<Step> =
        STEPS.iter().filter_map(|&(flag, what)| Some(step(what, seen(flag)?))).collect();
    let main = packages.iter().find(|package| package.package.as_deref() == Some("main"));
    chain.extend(main.map(|package| step("main.init", package.start_ns)));
    chain.sort_by_key(|step| step.time_ns);
    chain
}

fn depths(
    bin: &GoBinary,
    bias: u64,
    collected: &Collected,
    packages: &mut [Package],
    missing: &mut Vec<Missing>,
) -> DepthSource {
    let link = |run: &TaskRun| run.task.wrapping_sub(bias);
    mark_runtime(packages);
    if bin.moduledata().inittasks.is_some() {
        let imports = plausible(calls::imports(bin), packages);
        let depths = imports.depths();
        for package in packages.iter_mut() {
            package.depth = package.package.as_deref().and_then(|name| depths.get(name).copied());
        }
        name_imports(packages, &imports);
        for (i, package) in packages.iter().enumerate() {
            if package.depth.is_none() {
                let reason = "no call in the code proves a chain of imports from package main";
                missing.push(lack(&format!("packages[{i}].depth"), reason));
            }
        }
        return DepthSource::Calls;
    }
    let graph = match tasks::graph(bin) {
        Ok(graph) => graph,
        Err(reason) => {
            missing.push(lack("packages[].depth", reason));
            return DepthSource::InitTasks;
        }
    };
    for (i, (package, run)) in packages.iter_mut().zip(&collected.tasks).enumerate() {
        package.depth = graph.depths.get(&link(run)).copied();
        if package.depth.is_none() {
            let reason = "initialized for the runtime, and no package reachable from main depends on it";
            missing.push(lack(&format!("packages[{i}].depth"), reason));
        }
    }
    name_imports(packages, &graph.imports);
    DepthSource::InitTasks
}

/// Marks the runtime's packages. The runtime initializes them before all others, and its own package last,
/// because that one imports the rest. <https://github.com/golang/go/blob/go1.24.11/src/runtime/proc.go#L201>
/// (runtime_inittasks)
fn mark_runtime(packages: &mut [Package]) {
    let last = packages.iter().position(|package| package.package.as_deref() == Some("runtime"));
    for package in packages.iter_mut().take(last.map_or(0, |last| last + 1)) {
        package.runtime = true;
    }
}

/// Removes implausible edges: an imported package is initialized before its importer; otherwise //go:linkname
/// was used.
fn plausible(mut imports: Imports, packages: &[Package]) -> Imports {
    let places: HashMap<&str, usize> =
        packages.iter().enumerate().filter_map(|(i, p)| Some((p.package.as_deref()?, i))).collect();
    imports.retain(|importer, imported| match (places.get(importer), places.get(imported)) {
        (Some(importer), Some(imported)) => imported < importer,
        _ => true,
    });
    imports
}

fn name_imports(packages: &mut [Package], imports: &Imports) {
    let listed: BTreeSet<String> = packages.iter().filter_map(|package| package.package.clone()).collect();
    for package in packages {
        let Some(name) = &package.package else { continue };
        package.imports = imports.of(name).filter(|name| listed.contains(*name)).map(str::to_owned).collect();
    }
}

/// Returns where initialization stopped: the function that was running, else the last step.
fn stopped(
    collected: &Collected,
    program: &Program,
    bias: u64,
    packages: &[Package],
    chain: &[Step],
    incidents: &[Incident],
) -> Option<Stopped> {
    let (how, code) = match collected.end {
        End::MainReached => return None,
        End::Executed => (How::Executed, None),
        End::Lost | End::ProcessEnded(None) => (How::Unknown, None),
        End::ProcessEnded(Some(status)) => match exit_of(status) {
            Exit { signal: Some(signal), .. } => (How::Killed, Some(signal)),
            Exit { code, .. } => (How::Exited, code),
        },
    };
    // The innermost open task: up to Go 1.20 the tasks that depend on it are not open yet.
    let package = packages.iter().rev().find(|package| package.duration_ns.is_none());
    let function = package.and_then(|package| package.functions.last());
    let pid = collected.first.head.tgid;
    let ours = |i: &&Incident| i.process.pid == pid && i.outcome != Outcome::Recovered;
    let incident = incidents.iter().rev().find(ours);
    let name = function.and_then(|function| function.function.clone());
    let mut stopped = Stopped {
        how: if incident.is_some_and(|i| i.outcome == Outcome::Fatal) { How::Died } else { how },
        code,
        time_ns: collected.end_ns,
        at: name.clone().or(chain.last().map(|step| step.what.clone())).unwrap_or_default(),
        package: package.and_then(|package| package.package.clone()),
        variable: None,
        file: function.and_then(|function| function.file.clone()),
        line: function.and_then(|function| function.line),
        message: incident.and_then(|incident| incident.message.clone()),
        incident: incident.map(|incident| incident.id.clone()),
        function: name,
    };
    if let Some(incident) = incident {
        statement(&mut stopped, incident, program, bias);
    }
    Some(stopped)
}

/// Sets the statement of the init function that was running, from the stack of the incident.
fn statement(stopped: &mut Stopped, incident: &Incident, program: &Program, bias: u64) {
    let Some(name) = &stopped.function else { return };
    let Some(frame) = incident.stack.iter().rev().find(|frame| frame.function == *name) else { return };
    (stopped.file, stopped.line) = (frame.file.clone(), frame.line);
    // Names of user-written init functions end in a number.
    if let (true, Some(line)) = (name.ends_with(".init"), frame.line) {
        // A caller's program counter is after its call, which can be the function's last instruction.
        let pc = frame.pc.0.wrapping_sub(bias).wrapping_sub(1);
        let names = variable::initialised_by(&program.bin, pc, line);
        stopped.variable = (!names.is_empty()).then(|| names.join(", "));
    }
}
