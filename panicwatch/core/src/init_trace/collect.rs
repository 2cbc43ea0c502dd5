//! Selects the events of one process's initialization from all events.
//!
//! Follows the first process that starts to run Go code: the program itself, or the first Go program that a
//! script starts. Knows addresses and times; must not know names.

use std::collections::HashMap;

use panicwatch_common::{binary::site, event::kind};

use crate::capture::event::{Body, Event};

/// Maximum number of steps and function calls kept; more than any program has.
const MAX_RUNS: usize = 1 << 17;

/// The collected events of one initialization.
#[derive(Debug, Clone)]
pub struct Collected {
    /// The first event: identifies the process, the row of the binary, and through it the load address.
    pub first: Event,
    /// Time of the exec of the process's image.
    pub exec_ns: Option<u64>,
    /// Site flag and time of each step, in the order seen.
    pub steps: Vec<(u32, u64)>,
    /// Packages in the order they began.
    pub tasks: Vec<TaskRun>,
    /// How the initialization ended.
    pub end: End,
    /// When it ended; `None` when events ceased.
    pub end_ns: Option<u64>,
    /// Number of records of the process that were lost, if any: steps, packages or functions may be missing.
    pub lost: u32,
}

/// Initialization of one package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRun {
    /// Run-time address of the task.
    pub task: u64,
    /// Time at which its first function was about to be called.
    pub start_ns: u64,
    /// Its functions, in the order they were called.
    pub functions: Vec<FunctionRun>,
    /// Time at which the last one had returned.
    pub end_ns: Option<u64>,
}

/// One call of an init function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionRun {
    /// Index of the function in its task.
    pub index: u64,
    /// Time at which it was about to be called.
    pub start_ns: u64,
    /// Time at which it had returned.
    pub end_ns: Option<u64>,
}

/// How the initialization ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// main.main was reached.
    MainReached,
    /// The process ended, with this wait status if known.
    ProcessEnded(Option<u32>),
    /// The process executed another program.
    Executed,
    /// The events ceased before `main.main` was reached.
    Lost,
}

/// Collects events until main.main is reached or the process ends.
#[derive(Debug, Default)]
pub struct Collector {
    /// Exec time of the current image of each process that has not been selected yet.
    execs: HashMap<u32, u64>,
    found: Option<Collected>,
    runs: usize,
    done: bool,
}

impl Collector {
    /// Returns a collector without events.
    pub fn new() -> Collector {
        Collector::default()
    }

    /// Processes one event; returns true when it ends the initialization.
    pub fn push(&mut self, event: &Event) -> bool {
        if self.done {
            return false;
        }
        let head = &event.head;
        let ours = self.found.as_ref().is_some_and(|found| found.first.head.tgid == head.tgid);
        match head.kind {
            kind::EXEC if !ours => {
                self.execs.insert(head.tgid, head.time_ns);
            }
            kind::EXEC => self.end(End::Executed, head.time_ns),
            kind::PROCESS_EXIT if ours => {
                let status = match &event.body {
                    Body::Process(process) => process.wait_status,
                    _ => None,
                };
                self.end(End::ProcessEnded(status), head.time_ns);
            }
            kind::PROCESS_EXIT => {
                self.execs.remove(&head.tgid);
            }
            kind::INIT_STEP | kind::INIT_TASK if ours || self.found.is_none() => self.moment(event),
            _ => {}
        }
        self.done
    }

    /// Notes that `lost` records of process `pid` were lost since its start.
    pub fn lost(&mut self, pid: u32, lost: u32) {
        if let Some(found) = self.found.as_mut().filter(|found| found.first.head.tgid == pid) {
            found.lost = found.lost.max(lost);
        }
    }

    /// Returns the process whose initialization is collected, once a Go program has started.
    pub fn pid(&self) -> Option<u32> {
        self.found.as_ref().map(|found| found.first.head.tgid)
    }

    /// Returns the collected events, complete or not; `None` when no Go program was seen to start.
    pub fn take(&mut self) -> Option<Collected> {
        self.done = true;
        self.found.take()
    }

    fn end(&mut self, end: End, time_ns: u64) {
        if let Some(found) = &mut self.found {
            (found.end, found.end_ns) = (end, Some(time_ns));
        }
        self.done = true;
    }

    fn moment(&mut self, event: &Event) {
        let head = &event.head;
        let found = self.found.get_or_insert_with(|| Collected {
            first: event.clone(),
            exec_ns: self.execs.remove(&head.tgid),
            steps: Vec::new(),
            tasks: Vec::new(),
            end: End::Lost,
            end_ns: None,
            lost: 0,
        });
        self.execs.clear();
        if self.runs >= MAX_RUNS {
            return;
        }
        self.runs += 1;
        let (Body::Point(point), kind::INIT_TASK) = (&event.body, head.kind) else {
            let step = head.site & site::STEP;
            found.steps.push((step, head.time_ns));
            if step == site::STEP_MAIN {
                self.end(End::MainReached, head.time_ns);
            }
            return;
        };
        let [task, index, calls, ..] = point.args;
        found.task(task, index, calls != 0, head.time_ns);
    }
}

impl Collected {
    /// Tasks nest: up to Go 1.20 through their dependencies, later when an init function opens a plugin.
    fn task(&mut self, task: u64, index: u64, calls: bool, time_ns: u64) {
        let open = self.tasks.iter_mut().rev().find(|run| run.end_ns.is_none() && run.task == task);
        if let Some(run) = open {
            if let Some(function) = run.functions.last_mut() {
                function.end_ns = Some(time_ns);
            }
            if !calls {
                run.end_ns = Some(time_ns);
                return;
            }
            run.functions.push(FunctionRun { index, start_ns: time_ns, end_ns: None });
        } else if calls {
            let functions = vec![FunctionRun { index, start_ns: time_ns, end_ns: None }];
            self.tasks.push(TaskRun { task, start_ns: time_ns, functions, end_ns: None });
        }
    }
}
