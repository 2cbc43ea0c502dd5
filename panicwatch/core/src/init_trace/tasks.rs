//! The init tasks as stored in the file: their functions, and up to Go 1.20 their dependencies.
//!
//! Knows the binary. Must not know the process: only the state of a task ever changes.

use std::collections::BTreeMap;

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, Register};

use super::depth::Imports;
use crate::go::{
    gobin::{Arch, Func, GoBinary, Inlining},
    inittasks::package_of,
};

/// Maximum number of tasks, and of functions or dependencies of a task.
const MAX: u64 = 1 << 16;
/// Maximum number of bytes of runtime.main that are decoded.
const MAX_CODE: u64 = 64 << 10;

/// Returns the entry of function `index` of the task at link-time address `task`.
pub(super) fn function(bin: &GoBinary, task: u64, index: u64) -> Option<u64> {
    let layout = &bin.layout().init_task;
    let deps = match layout.ndeps {
        Some(offset) => bin.word(task.checked_add(offset.into())?)?,
        None => 0,
    };
    (deps <= MAX && index <= MAX).then_some(())?;
    bin.word(task.checked_add(u64::from(layout.size) + 8 * (deps + index))?)
}

/// Returns the package of the task, which is that of its first function.
pub(super) fn package(bin: &GoBinary, task: u64) -> Option<String> {
    let func = bin.find_func(function(bin, task, 0)?)?;
    Some(package_of(&func.name())).filter(|package| !package.is_empty())
}

/// The import graph up to Go 1.20.
pub(super) struct Graph {
    /// Minimum number of imports from main, by task.
    pub(super) depths: BTreeMap<u64, u32>,
    /// Imports of each named package.
    pub(super) imports: Imports,
}

/// Reads the graph from the init tasks.
///
/// # Errors
/// Returns a sentence suitable as a reason in `missing`.
pub(super) fn graph(bin: &GoBinary) -> Result<Graph, String> {
    let roots = roots(bin);
    let [_runtime, .., main] = roots.as_slice() else {
        return Err("runtime.main does not call runtime.doInit as expected".to_owned());
    };
    let mut graph = Graph { depths: walk(bin, *main), imports: Imports::default() };
    for &task in graph.depths.keys() {
        let Some(importer) = (if task == *main { Some("main".to_owned()) } else { package(bin, task) })
        else {
            continue;
        };
        for dep in deps(bin, task) {
            if let Some(imported) = package(bin, dep) {
                graph.imports.add(&importer, &imported);
            }
        }
    }
    Ok(graph)
}

/// Returns the arguments of runtime.main's calls of doInit: the runtime's task, then the main package's.
/// <https://github.com/golang/go/blob/go1.19.8/src/runtime/proc.go> main
fn roots(bin: &GoBinary) -> Vec<u64> {
    let code = (bin.arch() == Arch::Amd64).then(|| {
        let func = bin.function("runtime.main")?;
        let callee = bin.function("runtime.doInit")?.entry();
        let end = func.end().min(func.entry().saturating_add(MAX_CODE));
        let decoder = Decoder::with_ip(64, bin.code(func.entry(), end)?, func.entry(), DecoderOptions::NONE);
        Some((callee, decoder.into_iter().collect::<Vec<Instruction>>()))
    });
    let Some((callee, code)) = code.flatten() else { return Vec::new() };
    let calls = |i: &Instruction| i.is_call_near() && i.near_branch_target() == callee;
    let argument = |at: usize| {
        let lea = code[..at].iter().rev().take(3).find(|i| i.mnemonic() == Mnemonic::Lea)?;
        (lea.op0_register() == Register::RAX && lea.is_ip_rel_memory_operand())
            .then(|| lea.ip_rel_memory_address())
    };
    (0..code.len()).filter(|&i| calls(&code[i])).filter_map(argument).collect()
}

fn deps(bin: &GoBinary, task: u64) -> Vec<u64> {
    let layout = &bin.layout().init_task;
    let count = layout.ndeps.and_then(|offset| bin.word(task.checked_add(offset.into())?)).unwrap_or(0);
    let first = task.saturating_add(layout.size.into());
    (0..count.min(MAX)).map_while(|i| bin.word(first.checked_add(8 * i)?)).collect()
}

/// Returns every task that `root` depends on, with the minimum number of steps to it.
fn walk(bin: &GoBinary, root: u64) -> BTreeMap<u64, u32> {
    let mut depths = BTreeMap::from([(root, 0)]);
    let mut level = vec![root];
    for depth in 1.. {
        let mut next = Vec::new();
        for dep in level.iter().flat_map(|&task| deps(bin, task)) {
            if (depths.len() as u64) < MAX && !depths.contains_key(&dep) {
                depths.insert(dep, depth);
                next.push(dep);
            }
        }
        if next.is_empty() {
            break;
        }
        level = next;
    }
    depths
}

/// Returns the name as Go prints it, and the position of the first statement: the initialization of variables
/// begins with compiler-generated code.
pub(super) fn describe(func: Func<'_>) -> (String, Option<String>, Option<u32>) {
    let name = func.display_name().into_owned();
    let inlining = Inlining::of(&func);
    let own = func_code(&func).into_iter().filter(|i| inlining.innermost(i.ip() - func.entry()).is_none());
    let place = own.filter_map(|instruction| func.file_line(instruction.ip()));
    let place = place.into_iter().find(|(file, _)| file != "<autogenerated>");
    match place {
        Some((file, line)) => (name, Some(file.into_owned()), Some(line)),
        None => (name, None, None),
    }
}

/// Returns the first instructions of a function.
fn func_code(func: &Func<'_>) -> Vec<Instruction> {
    const MAX: usize = 64;
    let code = func.code().unwrap_or_default();
    Decoder::with_ip(64, code, func.entry(), DecoderOptions::NONE).into_iter().take(MAX).collect()
}
