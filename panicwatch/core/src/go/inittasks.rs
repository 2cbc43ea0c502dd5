//! Determines which package is being initialized, from the init tasks laid out by the linker and the state
//! that the runtime keeps in them.
//!
//! Knows the binary and captured memory. Must not know stacks: the caller decides from the frames whether a
//! goroutine is inside an init function; this module shows that `main.main` has not started yet.
//!
//! From Go 1.21 on the linker sorts the tasks into one list
//! (<https://github.com/golang/go/blob/go1.24.11/src/runtime/proc.go> doInit1). In earlier releases each task
//! initialized its dependencies first (<https://github.com/golang/go/blob/go1.19.8/src/runtime/proc.go>
//! doInit).

use crate::go::{
    gobin::{
        GoBinary,
        offsets::{INIT_TASK_DONE, INIT_TASK_RUNNING},
    },
    memory::Memory,
};

/// Maximum number of tasks, of functions of a task, and of dependencies of a task; larger counts are
/// rejected.
const MAX: u64 = 1 << 16;
/// Maximum depth of the chain of imports followed up to Go 1.20; `MAX_STEPS` limits the tasks visited on the
/// way.
const MAX_DEPTH: usize = 4096;
const MAX_STEPS: u64 = 1 << 18;
/// Maximum total length of the function names of one task, in bytes.
const MAX_NAMES: usize = 1 << 20;

/// The initialization of one package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Import path of the package.
    pub package: String,
    /// Its init functions in the order they run (`main.init`, `main.init.0`), named as Go prints them.
    pub functions: Vec<String>,
}

/// Progress of the initialization of the program's packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The package whose init functions are running.
    pub running: Option<Task>,
    /// Number of completed tasks, and of all tasks; `None` up to Go 1.20, which has no task list.
    pub done: Option<(u64, u64)>,
}

/// Reads the progress from the `memory` of a process that runs `binary` with load bias `bias`. The runtime's
/// own packages are initialized separately and are not included.
///
/// # Errors
/// Returns a sentence suitable as a reason in `missing`.
pub fn progress(memory: &dyn Memory, binary: &GoBinary, bias: u64) -> Result<Progress, String> {
    let reader = Reader { memory, binary, bias };
    match binary.moduledata().inittasks {
        Some((list, count)) => reader.list(list.wrapping_add(bias), count),
        None => reader.tree(),
    }
}

struct Reader<'a> {
    memory: &'a dyn Memory,
    binary: &'a GoBinary,
    bias: u64,
}

impl Reader<'_> {
    fn list(&self, list: u64, count: u64) -> Result<Progress, String> {
        if count > MAX {
            return Err(format!("{count} init tasks"));
        }
        let (mut running, mut done) = (None, 0);
        for i in 0..count {
            let task = self.word(list.wrapping_add(8 * i))?;
            match self.state(task)? {
                // Only one task runs at a time; reading only the first keeps a damaged list cheap.
                INIT_TASK_RUNNING if running.is_none() => {
                    let layout = &self.binary.layout().init_task;
                    let nfns = u64::from(self.u32(task.wrapping_add(layout.nfns.into()))?);
                    running = Some(self.task(task.wrapping_add(layout.size.into()), nfns)?);
                }
                INIT_TASK_DONE => done += 1,
                _ => {}
            }
        }
        Ok(Progress { running, done: Some((done, count)) })
    }

    /// Reads the progress up to Go 1.20: {state, ndeps, nfns uintptr; deps [ndeps]*initTask; fns [nfns]}. A
    /// task is marked running while its dependencies run, so the innermost running task is the current one.
    fn tree(&self) -> Result<Progress, String> {
        let layout = &self.binary.layout().init_task;
        let (root, _) = self.binary.symbol("main..inittask").ok_or(
            "up to Go 1.20 the init tasks are found by a symbol, and the binary has no symbol table",
        )?;
        let mut task = root.wrapping_add(self.bias);
        if self.state(task)? != INIT_TASK_RUNNING {
            return Ok(Progress { running: None, done: None });
        }
        let ndeps_at = layout.ndeps.ok_or("an init task of this release has no list of dependencies")?;
        let mut left = MAX_STEPS;
        'deeper: for _ in 0..MAX_DEPTH {
            let ndeps = self.word(task.wrapping_add(ndeps_at.into()))?;
            if ndeps > MAX {
                return Err(format!("an init task with {ndeps} dependencies"));
            }
            let deps = task.wrapping_add(layout.size.into());
            for i in 0..ndeps {
                left = left.checked_sub(1).ok_or("the init tasks have too many dependencies")?;
                let dep = self.word(deps.wrapping_add(8 * i))?;
                if self.state(dep)? == INIT_TASK_RUNNING {
                    task = dep;
                    continue 'deeper;
                }
            }
            let nfns = self.word(task.wrapping_add(layout.nfns.into()))?;
            let running = Some(self.task(deps.wrapping_add(8 * ndeps), nfns)?);
            return Ok(Progress { running, done: None });
        }
        Err("the init tasks depend on each other in a cycle".to_owned())
    }

    /// Reads the task whose function addresses start at `fns`.
    fn task(&self, fns: u64, nfns: u64) -> Result<Task, String> {
        if nfns > MAX {
            return Err(format!("an init task with {nfns} functions"));
        }
        let mut total = 0;
        let functions: Vec<String> = (0..nfns)
            .map(|i| {
                let pc = self.word(fns.wrapping_add(8 * i))?;
                let func = self.binary.find_func(pc.wrapping_sub(self.bias));
                let name = func.ok_or_else(|| format!("no function at {pc:#x}"))?.display_name().into_owned();
                total += name.len();
                if total > MAX_NAMES {
                    return Err(format!("an init task whose {nfns} functions have names that are too long"));
                }
                Ok(name)
            })
            .collect::<Result<_, _>>()?;
        let first = functions.first().ok_or("an init task without functions")?;
        Ok(Task { package: package_of(first), functions })
    }

    fn state(&self, task: u64) -> Result<u32, String> {
        self.u32(task.wrapping_add(self.binary.layout().init_task.state.into()))
    }

    fn word(&self, at: u64) -> Result<u64, String> {
        self.memory.u64(at).ok_or_else(|| unread(at))
    }

    fn u32(&self, at: u64) -> Result<u32, String> {
        self.memory.u32(at).ok_or_else(|| unread(at))
    }
}

fn unread(at: u64) -> String {
    format!("memory at {at:#x} (init tasks) was not captured")
}

/// Returns the import path in a function's name: `gopkg.in/yaml%2ev3.init.0` → `gopkg.in/yaml.v3`.
///
/// The linker escapes dots in the last element, and quotes, blanks, `%`, control characters and non-ASCII
/// anywhere:
/// <https://github.com/golang/go/blob/go1.24.11/src/cmd/internal/objabi/path.go> PathToPrefix
pub fn package_of(function: &str) -> String {
    // Type arguments may contain slashes and dots.
    let plain = function.split('[').next().unwrap_or(function);
    let last = plain.rfind('/').map_or(0, |slash| slash + 1);
    let end = plain[last..].find('.').map_or(plain.len(), |dot| last + dot);
    let mut out = Vec::new();
    let mut rest = &plain.as_bytes()[..end];
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = (byte == b'%')
            .then(|| str::from_utf8(tail.get(..2)?).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok()))
            .flatten();
        out.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::package_of;

    #[test]
    fn packages_of_functions() {
        for (function, package) in [
            ("main.init.0", "main"),
            ("example.com/a.b/c.init", "example.com/a.b/c"),
            ("gopkg.in/yaml%2ev3.init.0.func1", "gopkg.in/yaml.v3"),
            ("main.F[example.com/x.T]", "main"),
            ("a%zz%", "a%zz%"),
            ("", ""),
        ] {
            assert_eq!(package_of(function), package, "{function}");
        }
    }
}
