//! `panicwatch trace PATTERN…`: shows calls of functions and their callers, live.

mod budget;
mod output;
mod target;

use std::{cell::RefCell, ffi::OsString, path::PathBuf, thread, time::Duration};

use anyhow::{Context, anyhow};
use clap::{Args as ClapArgs, ValueEnum};

use self::{output::Output, target::Target};
use super::common::{Exit, FAILED, say, sentence, unable, usage};
use crate::{
    go::pattern::Pattern,
    gobin::{CodeFrame, Func, GoBinary},
    plan::trace::{Tells, TracePlan, Wanted, is_named, trace_plan},
    probe::{links, trace::HitPrices},
    trace::{
        self, Options, Tracer,
        bias::Biases,
        filter::Condition,
        line::{Caller, Summary},
        record::Record,
        text,
        values::Values,
    },
    watch::{
        reader::Stop,
        tracing::{Reads, Tracing},
    },
};

/// Trace function calls live: time, goroutine, depth, arguments, results
///
/// A pattern is a glob of a function's full name (main.*, "net/http.(*conn).serve"), in which * matches any
/// text, or a regular expression between slashes (/^main\.(get|put)/). Unexported functions and those of the
/// standard library match too; inlined calls cannot be traced.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Functions to trace
    #[arg(required = true, value_name = "PATTERN")]
    patterns: Vec<String>,
    #[command(flatten)]
    target: target::TargetArgs,
    /// Only count the calls of each function, and print the counts at the end: cheaper
    #[arg(long, conflicts_with_all = [
        "args", "results", "stack", "exits", "duration", "min_duration", "conditions", "buffer",
    ])]
    count: bool,
    /// Show arguments with their values
    #[arg(long)]
    args: bool,
    /// Show results with their values; implies --exits
    #[arg(long)]
    results: bool,
    /// Show the callers
    #[arg(long)]
    stack: bool,
    /// Show returns, and calls that a panic unwinds; costs some thirty times as much as entries alone
    #[arg(long)]
    exits: bool,
    /// Show how long calls take; implies --exits
    #[arg(long)]
    duration: bool,
    /// Show only calls on this goroutine
    #[arg(long, value_name = "ID")]
    goroutine: Option<u64>,
    /// Show only calls that take at least this long (10us, 5ms, 1s), when they end; implies --exits
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    min_duration: Option<Duration>,
    /// Show only calls whose parameter NAME meets the condition NAME==VALUE; operators are == != < <= > >=
    /// contains; can be repeated
    #[arg(long = "where", value_name = "CONDITION", value_parser = Condition::parse)]
    conditions: Vec<Condition>,
    /// Detach from functions, the most expensive first, when tracing costs more than this percentage of one
    /// CPU
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    budget: Option<u32>,
    /// Write to FILE, as JSON lines unless --format says otherwise
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Output format [default: text, jsonl to a file]; perfetto is for ui.perfetto.dev
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Buffer for events that are not written yet, in megabytes: a power of two
    #[arg(long, value_name = "MB", default_value = "64", value_parser = megabytes)]
    buffer: u32,
    /// Print which functions would be traced, where and at what cost, and exit
    #[arg(long)]
    dry_run: bool,
    /// The program to start, and its arguments
    #[arg(last = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Jsonl,
    Perfetto,
}

impl Args {
    fn exits(&self) -> bool {
        self.exits || self.duration || self.results || self.min_duration.is_some()
    }

    fn arguments(&self) -> bool {
        self.args || !self.conditions.is_empty()
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return Err("write it as 10us, 5ms or 1s".to_owned()),
    };
    let seconds: f64 = number.parse().map_err(|_| "write it as 10us, 5ms or 1s".to_owned())?;
    Duration::try_from_secs_f64(seconds * factor).map_err(|error| error.to_string())
}

fn megabytes(text: &str) -> Result<u32, String> {
    let power = |n: &u32| n.is_power_of_two() && *n <= 1024;
    text.parse().ok().filter(power).ok_or_else(|| "must be a power of two, at most 1024".to_owned())
}

/// Traces until Ctrl-C, or until the process ends; returns the exit status of a program that was started
/// here.
///
/// # Errors
/// Status 1 when no function matches or the target cannot be read, 2 for invalid patterns and conditions, 3
/// when the machine cannot trace.
pub fn run(args: &Args) -> Result<i32, Exit> {
    let patterns: Result<Vec<Pattern>, _> = args.patterns.iter().map(|text| Pattern::parse(text)).collect();
    let patterns = patterns.map_err(usage)?;
    if args.format == Some(Format::Perfetto) && args.output.is_none() {
        return Err(usage(anyhow!(
            "--format perfetto is binary: cannot write it to a terminal; name a file with -o FILE"
        )));
    }
    if args.format == Some(Format::Perfetto) && args.count {
        return Err(usage(anyhow!(
            "--format perfetto needs the calls, which --count does not record; leave out one of the two"
        )));
    }
    let target = Target::find(&args.target, &args.command)?;
    let bin = crate::watch::armory::open(&target.file).with_context(|| target.shown.display().to_string())?;
    let wanted = Wanted { exits: args.exits(), arguments: args.arguments() };
    let plan = plan(&bin, &patterns, wanted)?;
    if !args.conditions.is_empty() {
        let (values, _) =
            Values::read(&bin, &plan.functions).context("cannot read the arguments that --where needs")?;
        let parameters = values.parameters();
        args.conditions.iter().try_for_each(|condition| condition.check(&parameters)).map_err(usage)?;
    }
    if args.dry_run {
        return output::dry_run(&plan).map(|()| 0).map_err(Exit::from);
    }
    crate::doctor::requirements_for_run().map_err(unable)?;
    let (mut values, reads) = reads(args, &bin, &plan)?;
    let output = Output::open(args, &target)?;
    let buffer = args.buffer << 20;
    let whom = target.whom(args.goroutine);
    let mut tracing = Tracing::load(&bin, &plan, args.exits(), whom, &reads, buffer).map_err(unable)?;
    links::take_notes().iter().for_each(|note| say(note));
    tell_price(&plan, args, tracing.prices());
    tracing.attach(&plan, (&target.file, target.shown.as_path())).map_err(unable)?;
    for (function, reason) in tracing.refused() {
        if let Some(function) = plan.functions.get(*function as usize) {
            say(&format!("{} is traced only in part: {reason}", function.name));
        }
    }
    let stop = Stop::new()?;
    end_without_helper(&stop, target.is_started()).map_err(unable)?;
    let running = target.start(&mut tracing, &stop)?;
    match follow(args, &bin, &plan, values.as_mut(), &mut tracing, &stop, output) {
        // The exit status is that of the program, which has ended.
        Err(exit) if target.is_started() => say(&sentence(&exit.error)),
        followed => followed?,
    }
    if links::has_ended() && !target.is_started() {
        return Ok(i32::from(FAILED));
    }
    Ok(running.status())
}

/// Reports the end of the helper that holds the probes, and then requests `stop`: nothing is traced any more.
/// A program that trace has started continues, and trace waits for its end.
fn end_without_helper(stop: &Stop, is_started: bool) -> anyhow::Result<()> {
    let (holder, stop) = (links::holder()?, stop.try_clone()?);
    thread::spawn(move || {
        holder.wait_for_end();
        say("the process that holds the probes was killed: nothing is traced any more; restart panicwatch");
        if !is_started {
            stop.request();
        }
    });
    Ok(())
}

/// Plans the probes of the matching functions; an error when no function can be traced.
fn plan(bin: &GoBinary, patterns: &[Pattern], wanted: Wanted) -> Result<TracePlan, Exit> {
    let select = |func: &Func<'_>| is_named(func, patterns);
    let plan = trace_plan(bin, &select, wanted);
    if !plan.functions.is_empty() {
        return Ok(plan);
    }
    let texts: Vec<&str> = patterns.iter().map(Pattern::text).collect();
    let error = match plan.refused.first() {
        Some((name, reason)) => anyhow!("{name} cannot be traced: {reason}"),
        None => anyhow!(
            "no function of the program matches {}; names include the full package path, and the binary has no \
             function for one inlined at every call (go build -gcflags=-l keeps them)",
            texts.join(" or ")
        ),
    };
    Err(error.into())
}

/// Reports the expected overhead before tracing starts.
fn tell_price(plan: &TracePlan, args: &Args, HitPrices { emulated_ns, stepped_ns }: HitPrices) {
    let cost = |(emulated, stepped): (usize, usize)| match (emulated, stepped) {
        (0, 0) => "no sites".to_owned(),
        (_, 0) => format!("{emulated} sites at about {emulated_ns} ns per hit"),
        (0, _) => format!("{stepped} sites at about {stepped_ns} ns per hit"),
        _ => format!(
            "{emulated} sites at about {emulated_ns} ns per hit and {stepped} at about {stepped_ns} ns, where the \
             kernel must single-step the instruction"
        ),
    };
    let entries = cost(plan.prices(|tells| tells == Tells::Entry));
    let functions = plan.functions.len();
    let mut text = format!("tracing {functions} functions: entries on {entries}");
    if args.exits() {
        text += &format!("; exits on {}", cost(plan.prices(|tells| tells != Tells::Entry)));
    }
    say(&text);
    const FEW: usize = 5;
    for (name, reason) in plan.refused.iter().take(FEW) {
        say(&format!("{name} is not traced: {reason}"));
    }
    if plan.refused.len() > FEW {
        say(&format!("{} more functions are not traced; --dry-run lists them", plan.refused.len() - FEW));
    }
    let missing = plan.functions.iter().filter_map(|f| Some((&f.name, f.exits_missing?)));
    for (name, reason) in missing.clone().take(FEW) {
        say(&format!("returns of {name} are not seen: {reason}"));
    }
    if missing.clone().count() > FEW {
        say(&format!("returns of {} more functions are not seen", missing.count() - FEW));
    }
}

/// Returns what to read at every hit, and the type information to decode it.
fn reads<'a>(args: &Args, bin: &'a GoBinary, plan: &TracePlan) -> Result<(Option<Values<'a>>, Reads), Exit> {
    let mut reads = Reads { count_only: args.count, stack: args.stack, ..Reads::default() };
    if !args.arguments() && !args.results {
        return Ok((None, reads));
    }
    let (values, lists) = match Values::read(bin, &plan.functions) {
        Ok(read) => read,
        Err(error) if args.conditions.is_empty() => {
            say(&format!("arguments and results are not shown: {error}"));
            return Ok((None, reads));
        }
        Err(error) => {
            return Err(anyhow!(error).context("cannot read the arguments that --where needs").into());
        }
    };
    let unknown = values.unknown();
    if unknown > 0 {
        say(&format!("the debug information lacks the parameters of {unknown} functions, usually assembly"));
    }
    reads.entries = args.arguments().then_some(lists.entries);
    reads.exits = args.results.then_some(lists.exits);
    Ok((Some(values), reads))
}

/// Returns the callers at these link-time return addresses.
fn callers(bin: &GoBinary, addresses: impl Iterator<Item = u64>) -> Vec<Caller> {
    let frames = addresses.flat_map(|address| bin.frames(address, false));
    let caller = |frame: CodeFrame<'_>| Caller {
        function: frame.function.into_owned(),
        file: frame.file.map(|file| file.into_owned()),
        line: frame.line,
    };
    frames.map(caller).collect()
}

fn follow(
    args: &Args,
    bin: &GoBinary,
    plan: &TracePlan,
    mut values: Option<&mut Values<'_>>,
    tracing: &mut Tracing,
    stop: &Stop,
    mut output: Output,
) -> Result<(), Exit> {
    let options = Options {
        exits: args.exits(),
        min_duration_ns: args.min_duration.map(|least| u64::try_from(least.as_nanos()).unwrap_or(u64::MAX)),
        conditions: args.conditions.clone(),
    };
    let biases = RefCell::new(Biases::new(bin, &plan.functions));
    let (wants_args, wants_results) = (args.arguments(), args.results);
    let decode = |record: &Record<'_>, at_exit: bool| {
        // Called for entries even without arguments, so that the bias is known at the exits.
        let bias = biases.borrow_mut().of(record);
        let values = values.as_mut().filter(|_| if at_exit { wants_results } else { wants_args })?;
        values.decode(&record.hit, at_exit, &record.data?, bias)
    };
    let callers = |record: &Record<'_>| match biases.borrow_mut().of(record) {
        Some(bias) => callers(bin, record.callers().map(|address| address.wrapping_sub(bias))),
        None => Vec::new(),
    };
    let mut tracer = Tracer::new(&plan.functions, options, Box::new(decode), Box::new(callers));
    let mut budget = args.budget.map(|percent| budget::Budget::new(percent, plan, tracing.prices()));
    tracing.run(stop, &mut |tracing, record| match record {
        Some(record) => tracer.push(record, &mut |line| output.line(line)),
        None => {
            if let Some(budget) = &mut budget {
                budget.check(tracing);
            }
            if !output.flush() {
                stop.request();
            }
        }
    });
    let summary = summary(plan, tracing, tracer.unwound).map_err(unable)?;
    if tracer.damaged > 0 {
        say(&format!("{} events could not be read", tracer.damaged));
    }
    let written = output.finish(&summary, args.count);
    if !args.count {
        text::summary(&summary, args.exits()).lines().for_each(say);
    }
    Ok(written?)
}

fn summary(
    plan: &TracePlan,
    tracing: &mut Tracing,
    unwound: u64,
) -> Result<Summary, crate::probe::error::ProbeError> {
    let mut summary = Summary { summary: true, unwound, ..Summary::default() };
    for (function, counts) in plan.functions.iter().zip(tracing.counts()?) {
        let lost = counts.lost_entries + counts.lost_exits;
        summary.entries += counts.entries;
        summary.exits += counts.exits;
        summary.lost += lost;
        if counts.entries + counts.exits > 0 {
            let (function, entries, exits) = (function.name.clone(), counts.entries, counts.exits);
            summary.functions.push(trace::line::FunctionCount { function, entries, exits, lost });
        }
    }
    Ok(summary)
}
