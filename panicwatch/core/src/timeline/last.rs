//! The last steps of the panicking goroutine before the raise, as text.
//!
//! A call and its return are one step, as are switching out and in again, and waiting and continuing; so are
//! consecutive page faults, consecutive entries of one function, and consecutive losses of the CPU to the
//! same thread.

use super::Input;
use crate::{
    incident::timeline::{
        Last,
        event::{Event, What},
    },
    render::text::Nanos,
};

/// Most steps that are listed.
const LAST: usize = 12;

/// A step that later events may complete.
struct Step {
    time_ns: u64,
    what: What,
    name: Option<String>,
    words: String,
    /// Time away from the CPU, and the CPU it continued on.
    back: Option<(u64, String)>,
    times: u64,
}

impl Step {
    fn new(event: &Event) -> Self {
        Self {
            time_ns: event.time_ns,
            what: event.what,
            name: event.name.clone(),
            words: event.words.clone(),
            back: None,
            times: 1,
        }
    }

    fn is_like(&self, other: &Step) -> bool {
        (self.what, &self.words) == (other.what, &other.words)
    }

    fn told(self) -> Last {
        let words = match (self.back, self.times) {
            (Some((ns, cpu)), 1) => format!("{}, back after {}{cpu}", self.words, Nanos(ns)),
            (Some((ns, _)), n) => format!("{}, {n} times in a row, {} in total", self.words, Nanos(ns)),
            (None, 1) => self.words,
            (None, n) => format!("{} ({n} in a row)", self.words),
        };
        Last { time_ns: self.time_ns, words }
    }
}

/// Returns the last steps of these events, which are in order of time and not after the raise.
pub(super) fn last(input: &Input<'_>, before: &[&Event]) -> Vec<Last> {
    let mut steps: Vec<Step> = Vec::new();
    for event in before {
        if event.goroutine == input.goroutine {
            step(&mut steps, event);
        } else if event.other_goroutine == input.goroutine {
            let words = match (event.what, event.goroutine) {
                (What::GoCreate, Some(id)) => format!("created goroutine {id}"),
                (What::GoReady, Some(id)) => format!("made goroutine {id} runnable"),
                _ => continue,
            };
            steps.push(Step { words, ..Step::new(event) });
        }
    }
    let skip = steps.len().saturating_sub(LAST);
    steps.into_iter().skip(skip).map(Step::told).collect()
}

fn step(steps: &mut Vec<Step>, event: &Event) {
    let told = match event.what {
        What::SyscallExit => returned(steps, event),
        What::SwitchIn => back(steps, event),
        What::GoRun => goes_on(steps, event),
        What::PageFault | What::Function => {
            let again = steps.last_mut().filter(|s| s.what == event.what && s.name == event.name);
            again.map(|step| step.times += 1).is_some()
        }
        What::Raise | What::End | What::SignalSent => true,
        _ => false,
    };
    if !told {
        steps.push(Step::new(event));
    }
}

/// Returns the last step of these kinds, if it is of the first kind.
fn open<'a>(steps: &'a mut [Step], kinds: &[What]) -> Option<(usize, &'a mut Step)> {
    let (i, step) = steps.iter_mut().enumerate().rev().find(|(_, step)| kinds.contains(&step.what))?;
    (step.what == kinds[0]).then_some((i, step))
}

fn returned(steps: &mut [Step], event: &Event) -> bool {
    let Some((_, step)) = open(steps, &[What::SyscallEnter, What::SyscallExit]) else { return false };
    if step.name != event.name {
        return false;
    }
    let after = Nanos(event.time_ns.saturating_sub(step.time_ns));
    (step.words, step.what) = (format!("{} after {after}", event.words), What::SyscallExit);
    true
}

fn back(steps: &mut Vec<Step>, event: &Event) -> bool {
    let Some((i, step)) = open(steps, &[What::SwitchOut, What::SwitchIn]) else { return false };
    let cpu = event.cpu.map_or_else(String::new, |cpu| format!(" on CPU {cpu}"));
    let ns = event.time_ns.saturating_sub(step.time_ns);
    (step.back, step.what) = (Some((ns, cpu)), What::SwitchIn);
    if i + 1 == steps.len()
        && let [.., first, again] = steps.as_mut_slice()
        && first.is_like(again)
        && let Some((total, _)) = &mut first.back
    {
        *total = total.saturating_add(ns);
        first.times += 1;
        steps.pop();
    }
    true
}

fn goes_on(steps: &mut [Step], event: &Event) -> bool {
    let kinds = [What::GoPark, What::GoYield, What::GoRun];
    let Some((i, _)) = steps.iter().enumerate().rev().find(|(_, step)| kinds.contains(&step.what)) else {
        return false;
    };
    let step = &mut steps[i];
    if step.what == What::GoRun {
        return false;
    }
    let after = Nanos(event.time_ns.saturating_sub(step.time_ns));
    (step.words, step.what) = (format!("{}, running again after {after}", step.words), What::GoRun);
    true
}
