//! Destination and format of the lines.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
};

use anyhow::Context;

use super::{Args, Format, target::Target};
use crate::{
    cli::common::{print, say},
    clock,
    plan::{
        Price,
        trace::{Tells, TracePlan},
    },
    trace::{
        line::{Line, Summary},
        perfetto::Perfetto,
        text,
    },
};

enum Shape {
    Text { origin_ns: u64 },
    Jsonl,
    Perfetto(Box<Perfetto>),
}

/// Writes the lines.
pub(super) struct Output {
    to: BufWriter<Box<dyn Write>>,
    shape: Shape,
    /// The first error; nothing is written after it.
    failed: Option<io::Error>,
    /// Lines that exceeded the size limit of the Perfetto trace.
    left_out: u64,
    /// Whether the program was started here: tracing then continues when nothing more can be written, so as
    /// not to abandon it.
    goes_on: bool,
}

impl Output {
    /// # Errors
    /// When the file cannot be created.
    pub(super) fn open(args: &Args, target: &Target) -> anyhow::Result<Output> {
        let to: Box<dyn Write> = match &args.output {
            Some(path) => {
                Box::new(File::create(path).with_context(|| format!("cannot write to {}", path.display()))?)
            }
            // Standard output belongs to the program.
            None if target.is_started() => Box::new(io::stderr()),
            None => Box::new(io::stdout()),
        };
        let default = if args.output.is_some() { Format::Jsonl } else { Format::Text };
        let shape = match args.format.unwrap_or(default) {
            Format::Text => Shape::Text { origin_ns: clock::monotonic_ns() },
            Format::Jsonl => Shape::Jsonl,
            Format::Perfetto => {
                let name = target.shown.file_name().unwrap_or_default().to_string_lossy();
                let offset = clock::measure().offset_ns;
                Shape::Perfetto(Box::new(Perfetto::new(&name, args.exits(), Some(offset))))
            }
        };
        let (to, goes_on) = (BufWriter::with_capacity(1 << 16, to), target.is_started());
        Ok(Output { to, shape, failed: None, left_out: 0, goes_on })
    }

    /// Writes one event.
    pub(super) fn line(&mut self, line: &Line<'_>) {
        if self.failed.is_some() {
            return;
        }
        let written = match &mut self.shape {
            Shape::Text { origin_ns } => self.to.write_all(text::line(line, *origin_ns).as_bytes()),
            Shape::Jsonl => json(&mut self.to, line),
            Shape::Perfetto(perfetto) => {
                self.left_out += u64::from(!perfetto.push(line));
                Ok(())
            }
        };
        self.has_written(written);
    }

    /// Flushes the output; returns false when tracing should end because nothing more can be written.
    pub(super) fn flush(&mut self) -> bool {
        if self.failed.is_none() {
            let written = self.to.flush();
            self.has_written(written);
        }
        self.failed.is_none() || self.goes_on
    }

    fn has_written(&mut self, written: io::Result<()>) {
        let Err(error) = written else { return };
        if self.goes_on && error.kind() != io::ErrorKind::BrokenPipe {
            say(&format!(
                "cannot write the trace: {error}; the program continues, and its calls are counted until it exits"
            ));
        }
        self.failed = Some(error);
    }

    /// Finishes the output; with `count` the text output is the table of counts.
    ///
    /// # Errors
    /// When the output could not be written; a closed pipe is not an error.
    pub(super) fn finish(mut self, summary: &Summary, count: bool) -> anyhow::Result<()> {
        if self.goes_on && self.failed.is_some() {
            // It was reported when it occurred.
            return Ok(());
        }
        let written = match (self.failed.take(), self.shape) {
            (Some(error), _) => Err(error),
            (None, Shape::Text { .. }) if count => self.to.write_all(text::counts(summary).as_bytes()),
            (None, Shape::Text { .. }) => Ok(()),
            (None, Shape::Jsonl) => json(&mut self.to, summary),
            (None, Shape::Perfetto(perfetto)) => self.to.write_all(&perfetto.finish()),
        };
        if self.left_out > 0 {
            say(&format!("the Perfetto trace reached its size limit: {} events are left out", self.left_out));
        }
        match written.and_then(|()| self.to.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result.context("cannot write the trace"),
        }
    }
}

fn json(to: &mut impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    let text = crate::json::to_string(value).map_err(io::Error::from)?;
    to.write_all((text + "\n").as_bytes())
}

/// Prints the functions, their probe sites, and the functions that cannot be traced.
pub(super) fn dry_run(plan: &TracePlan) -> anyhow::Result<()> {
    let mut out = String::new();
    for (number, function) in (0..).zip(&plan.functions) {
        let own = || plan.sites.iter().filter(move |site| site.function == number);
        let price = |price| if price == Price::Emulated { "emulated" } else { "stepped" };
        let entry = own().find(|site| site.tells == Tells::Entry);
        let at = entry.map(|site| format!("+{:#x} {}", site.address - function.entry, price(site.price)));
        out += &format!("{}  {}", crate::escape::one_line(&function.name), at.unwrap_or_default());
        let exits = own().filter(|site| site.tells != Tells::Entry).count();
        if exits > 0 {
            out += &format!(", {exits} exits");
        }
        if let Some(reason) = function.exits_missing {
            out += &format!(", returns are not seen: {reason}");
        }
        out.push('\n');
    }
    for (name, reason) in &plan.refused {
        out += &format!("{}  not traced: {reason}\n", crate::escape::one_line(name));
    }
    print(&out)
}
