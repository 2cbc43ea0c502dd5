//! Exports the trace for Perfetto: steps as instants, packages as slices that contain their functions.

use super::{InitTrace, Package};
use crate::{
    incident::base_name,
    render::export::perfetto::{Annotation, Builder, Track, Value},
};

/// Returns the file's bytes. `realtime_offset_ns`: CLOCK_REALTIME minus CLOCK_MONOTONIC, if known.
pub fn encode(trace: &InitTrace, realtime_offset_ns: Option<i128>) -> Vec<u8> {
    let mut builder = Builder::new(realtime_offset_ns);
    let pid = trace.program.pid;
    let name = base_name(&trace.program.exe).unwrap_or(&trace.program.exe);
    let process = builder.process(pid, name);
    let steps = builder.track(process, "start");
    let packages = builder.track(process, "package initialization");
    if let Some(exec) = trace.exec_ns {
        builder.instant(steps, exec, "start", "exec", []);
    }
    for step in &trace.chain {
        builder.instant(steps, step.time_ns, "start", &step.what, []);
    }
    for package in &trace.packages {
        slice(&mut builder, packages, package);
    }
    if let Some(stopped) = &trace.stopped {
        let facts = [
            text("at", &Some(stopped.at.clone())),
            text("variable", &stopped.variable),
            text("message", &stopped.message),
        ];
        let time_ns = stopped.time_ns.unwrap_or(trace.origin_ns());
        builder.instant(steps, time_ns, "start", "stopped", facts.into_iter().flatten());
    }
    builder.finish()
}

fn text(name: &'static str, value: &Option<String>) -> Option<Annotation> {
    value.as_ref().map(|value| (name, Value::Text(value.clone())))
}

/// Adds a package's slice. A slice without an end extends to the end of the trace.
fn slice(builder: &mut Builder, track: Track, package: &Package) {
    let name = package.package.as_deref().unwrap_or("(not in the binary)");
    let depth = package.depth.map(|depth| ("depth", Value::Uint(depth.into())));
    let facts = depth.into_iter().chain([("runtime", Value::Bool(package.runtime))]);
    builder.begin(track, package.start_ns, "init", name, facts);
    let end = |start: u64, duration: Option<u64>| Some(start.saturating_add(duration?));
    let package_end = end(package.start_ns, package.duration_ns);
    for function in &package.functions {
        let name = function.function.as_deref().unwrap_or("(not in the binary)");
        let line = function.line.map(|line| ("line", Value::Uint(line.into())));
        let facts = text("file", &function.file).into_iter().chain(line);
        builder.begin(track, function.start_ns, "init", name, facts);
        // If the function's own end was lost, it ended with the package at the latest: slices must nest.
        if let Some(end) = end(function.start_ns, function.duration_ns).or(package_end) {
            builder.end(track, end);
        }
    }
    if let Some(end) = package_end {
        builder.end(track, end);
    }
}
