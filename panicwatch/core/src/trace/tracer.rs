//! Converts records to lines: combines the call tree, the filters and the decoded values.

use std::rc::Rc;

use panicwatch_common::trace::{Hit, flag, kind};

use super::{
    filter::Condition,
    line::{Argument, Caller, Event, Line},
    record::{self, Record},
    tree::{Change, Tree},
};
use crate::plan::trace::TraceFunction;

/// Selects the lines to report.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Report returns and unwinding as well as entries.
    pub exits: bool,
    /// Report only calls that took at least this long, when they are over.
    pub min_duration_ns: Option<u64>,
    /// Report only calls whose arguments meet all of these conditions.
    pub conditions: Vec<Condition>,
}

/// Decodes the data of an entry into arguments, or of an exit (true) into results. `None`: unknown.
pub type Values<'a> = dyn FnMut(&Record<'_>, bool) -> Option<Vec<Argument>> + 'a;
/// Resolves the callers of a record.
pub type Callers<'a> = dyn FnMut(&Record<'_>) -> Vec<Caller> + 'a;
/// Receives the lines.
pub type Told<'a> = dyn FnMut(&Line<'_>) + 'a;

/// State of a call in progress.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// Whether it meets the conditions.
    told: bool,
    args: Option<Rc<Vec<Argument>>>,
    stack: Option<Rc<Vec<Caller>>>,
}

/// State of a tracing session.
pub struct Tracer<'a> {
    functions: &'a [TraceFunction],
    options: Options,
    values: Box<Values<'a>>,
    callers: Box<Callers<'a>>,
    tree: Tree<Seen>,
    changes: Vec<Change<Seen>>,
    /// Number of calls seen unwound.
    pub unwound: u64,
    /// Number of records that could not be parsed.
    pub damaged: u64,
}

impl<'a> Tracer<'a> {
    /// Returns a tracer; records refer to `functions` by index.
    pub fn new(
        functions: &'a [TraceFunction],
        options: Options,
        values: Box<Values<'a>>,
        callers: Box<Callers<'a>>,
    ) -> Tracer<'a> {
        let (tree, changes) = (Tree::default(), Vec::new());
        Tracer { functions, options, values, callers, tree, changes, unwound: 0, damaged: 0 }
    }

    /// Processes one record, and passes the resulting lines to `told`.
    pub fn push(&mut self, bytes: &[u8], told: &mut Told<'_>) {
        let Some(record) = record::parse(bytes) else {
            self.damaged += 1;
            return;
        };
        let hit = record.hit;
        let seen = if hit.kind == kind::ENTRY { self.entry(&record) } else { Seen::default() };
        let mut changes = std::mem::take(&mut self.changes);
        self.tree.push(&hit, seen.clone(), &mut changes);
        for change in changes.drain(..) {
            match change {
                Change::Entered { depth } => {
                    if seen.told && self.options.min_duration_ns.is_none() {
                        self.tell(&hit, Event::Entry, hit.function, depth, &seen, None, None, told);
                    }
                }
                Change::Returned { function, depth, began } => {
                    if self.options.exits {
                        self.returned(&record, function, depth, began, told);
                    }
                }
                Change::Unwound { function, depth, began: (since, seen) } => {
                    self.unwound += 1;
                    let took = hit.time_ns.saturating_sub(since);
                    if self.options.exits && seen.told && self.long_enough(Some(took)) {
                        self.tell(&hit, Event::Unwound, function, depth, &seen, None, Some(took), told);
                    }
                }
                Change::Over => {}
            }
        }
        self.changes = changes;
    }

    fn entry(&mut self, record: &Record<'_>) -> Seen {
        let args = (self.values)(record, false);
        let holds = |condition: &Condition| args.as_ref().is_some_and(|args| condition.holds(args));
        let told = self.options.conditions.iter().all(holds);
        let stack = (told && record.stack.is_some()).then(|| Rc::new((self.callers)(record)));
        Seen { told, args: args.map(Rc::new), stack }
    }

    fn long_enough(&self, took: Option<u64>) -> bool {
        self.options.min_duration_ns.is_none_or(|least| took.is_some_and(|took| took >= least))
    }

    fn returned(
        &mut self,
        record: &Record<'_>,
        function: u32,
        depth: usize,
        began: Option<(u64, Seen)>,
        told: &mut Told<'_>,
    ) {
        let took = began.as_ref().map(|(since, _)| record.hit.time_ns.saturating_sub(*since));
        // Without its entry, it is unknown whether a call meets a condition.
        let no_conditions = Seen { told: self.options.conditions.is_empty(), ..Seen::default() };
        let seen = began.map_or(no_conditions, |(_, seen)| seen);
        if !seen.told || !self.long_enough(took) {
            return;
        }
        let results = (self.values)(record, true);
        self.tell(&record.hit, Event::Exit, function, depth, &seen, results.as_deref(), took, told);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a line")]
    fn tell(
        &self,
        hit: &Hit,
        event: Event,
        function: u32,
        depth: usize,
        seen: &Seen,
        results: Option<&[Argument]>,
        duration_ns: Option<u64>,
        told: &mut Told<'_>,
    ) {
        let own = self.functions.get(function as usize);
        told(&Line {
            time_ns: hit.time_ns,
            event,
            pid: hit.tgid,
            thread: hit.tid,
            goroutine: match hit.flags {
                flags if flags & flag::NO_GOROUTINE != 0 => None,
                flags if flags & flag::SYSTEM_STACK != 0 => Some(0),
                _ => Some(hit.goid),
            },
            depth,
            function: own.map_or("", |function| &function.name),
            file: own.and_then(|function| function.file.as_deref()),
            line: own.and_then(|function| function.line),
            args: seen.args.as_ref().map(|args| args.as_slice()),
            results,
            duration_ns,
            stack: seen.stack.as_ref().map(|stack| stack.as_slice()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(kind: u8, depth: u32, time_ns: u64) -> Vec<u8> {
        let mut out = time_ns.to_le_bytes().to_vec();
        out.extend(7u64.to_le_bytes());
        for half in [1u32, 2, 0, depth] {
            out.extend(half.to_le_bytes());
        }
        out.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
        out
    }

    fn function() -> TraceFunction {
        TraceFunction {
            symbol: "main.f".to_owned(),
            name: "main.f".to_owned(),
            entry: 0,
            file: None,
            line: Some(3),
            exits_missing: None,
            overwritten: 0,
            site: 0,
        }
    }

    fn told(options: Options, records: &[Vec<u8>]) -> Vec<(Event, usize, Option<u64>)> {
        let functions = [function()];
        let mut tracer = Tracer::new(&functions, options, Box::new(|_, _| None), Box::new(|_| Vec::new()));
        let mut lines = Vec::new();
        for record in records {
            tracer.push(record, &mut |line| lines.push((line.event, line.depth, line.duration_ns)));
        }
        assert_eq!(tracer.damaged, 0);
        lines
    }

    #[test]
    fn short_calls_are_left_out() {
        let records = [
            bytes(kind::ENTRY, 100, 0),
            bytes(kind::ENTRY, 200, 10),
            bytes(kind::EXIT, 200, 20),
            bytes(kind::EXIT, 100, 1000),
        ];
        let all = Options { exits: true, ..Options::default() };
        let (entry, exit) = (Event::Entry, Event::Exit);
        assert_eq!(
            told(all.clone(), &records),
            [(entry, 0, None), (entry, 1, None), (exit, 1, Some(10)), (exit, 0, Some(1000))]
        );
        let long = Options { min_duration_ns: Some(500), ..all };
        assert_eq!(told(long, &records), [(exit, 0, Some(1000))]);
        assert_eq!(told(Options::default(), &records), [(entry, 0, None), (entry, 1, None)]);
    }

    #[test]
    fn a_condition_on_what_is_not_known_tells_nothing() {
        let conditions = vec![Condition::parse("a==1").expect("a condition")];
        let options = Options { exits: true, conditions, ..Options::default() };
        assert_eq!(told(options, &[bytes(kind::ENTRY, 100, 0), bytes(kind::EXIT, 100, 10)]), []);
    }
}
