//! `panicwatch symbolize`: resolves addresses to functions, lines and instructions.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::fd::AsFd,
    path::PathBuf,
};

use anyhow::{Context, anyhow};
use clap::{Args as ClapArgs, ValueEnum};

use super::common::{Exit, pid, unable, unreadable, usage};
use crate::{
    gobin::{GoBinary, dwarf},
    host::procfs,
    mappings,
    symbolize::{
        self, Answer, Lookup, Resolved, Symbolizer,
        answer::{self, RaisedBy, Wanted},
        batch::Batch,
        input::Lines,
        kernel::{Kernel, KernelError},
        request::{self, Request},
        sources::SourceFiles,
        vmlinux,
    },
};

/// Resolve addresses to functions and lines, including inlined calls
///
/// An address is hexadecimal (0x47e2d3, 47e2d3, as in tracebacks and core dumps), a function with an offset
/// (main.f+0x28), or an offset from the start of the file's mapping (app+0x7e2d3). Without any, they are read
/// from standard input, one a line.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The binary, unless --pid or --kernel is given; then the addresses
    #[arg(value_name = "BINARY] [ADDRESS")]
    words: Vec<String>,
    /// Resolve addresses of this running process
    #[arg(long, value_name = "PID", value_parser = pid(), conflicts_with_all = ["kernel", "load_address"])]
    pid: Option<u32>,
    /// Resolve addresses of the running kernel
    #[arg(long, conflicts_with_all = ["asm", "raised_by", "load_address"])]
    kernel: bool,
    /// A kernel image with debug information, for files and lines
    #[arg(long, value_name = "FILE", requires = "kernel")]
    vmlinux: Option<PathBuf>,
    /// The lowest address at which a position-independent program was mapped, in hexadecimal
    #[arg(long, value_name = "ADDRESS")]
    load_address: Option<String>,
    /// Treat the addresses as return addresses, as in tracebacks: resolve the calls before them
    #[arg(long = "return")]
    returns: bool,
    /// Print the instructions around each address
    #[arg(long)]
    asm: bool,
    /// Print what raises a panic there, and what it compares; for a function without an offset, everywhere in
    /// it
    #[arg(long)]
    raised_by: bool,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One line per frame.
    Text,
    /// One JSON object per line.
    Json,
}

/// Resolves the addresses; for an address that cannot be resolved, the reason is printed in its place.
///
/// # Errors
/// Status 1 when the binary or process does not exist or is not Go, 3 without the required permissions.
pub fn run(args: &Args) -> Result<i32, Exit> {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let done = if args.kernel { of_kernel(args, &mut out) } else { of_binary(args, &mut out) };
    let flushed = done.and_then(|()| out.flush().map_err(Exit::from));
    match flushed {
        // The reader has closed the pipe, such as head or a pager.
        Err(exit) if is_broken_pipe(&exit.error) => Ok(0),
        Err(exit) => Err(exit),
        Ok(()) => Ok(0),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

fn of_kernel(args: &Args, out: &mut dyn Write) -> Result<(), Exit> {
    let kallsyms = fs::read_to_string("/proc/kallsyms").context("cannot read the kernel's symbols")?;
    // A kernel without loadable modules has no such file.
    let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
    let mut kernel = Kernel::parse(&kallsyms, &modules).map_err(|error| match error {
        KernelError::Hidden => unable(error),
        error => error.into(),
    })?;
    if let Some(path) = &args.vmlinux {
        kernel = vmlinux::add(kernel, path)?;
    }
    let lookup = args.lookup();
    each_request(&args.words, "vmlinux", out, &mut |text, request, out| {
        let resolved = match request.and_then(|r| kernel.locate(&r).map_err(|e| e.to_string())) {
            Ok(address) => kernel.resolve(address, lookup),
            Err(reason) => return args.refuse(text, &reason, out),
        };
        args.answer(&Answer::from(resolved), out)
    })
}

fn of_binary(args: &Args, out: &mut dyn Write) -> Result<(), Exit> {
    // Wrong usage is reported before any file is read.
    let loaded_at = args.loaded_at()?;
    let (path, shown, words) = args.binary()?;
    let bin = dwarf::open(&path).map_err(|error| anyhow!("{}: {error}", shown.display()))?;
    let name = shown.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let symbolizer = Symbolizer::new(&bin, args.bias(&bin, loaded_at)?);
    let plain = args.format == Format::Text && !args.asm && !args.raised_by;
    if plain {
        return in_batches(args, &symbolizer, words, &name, out);
    }
    let mut source = SourceFiles::default();
    each_request(words, &name, out, &mut |text, request, out| {
        // A function without an offset stands for all of it.
        let whole = matches!(request, Ok(Request::Function { offset: 0, .. }));
        let address = match request.and_then(|r| symbolizer.locate(&r).map_err(|e| e.to_string())) {
            Ok(address) => address,
            Err(reason) => return args.refuse(text, &reason, out),
        };
        let raised_by = match (args.raised_by, whole) {
            (false, _) => RaisedBy::Nothing,
            (true, false) => RaisedBy::Here,
            (true, true) => RaisedBy::Everywhere,
        };
        let wanted = Wanted { listing: args.asm, raised_by };
        let answer = answer::give(&symbolizer, address, args.lookup(), wanted);
        match args.format {
            Format::Text => {
                Ok(out.write_all(answer.text(&mut |file, line| source.line(file, line)).as_bytes())?)
            }
            Format::Json => args.answer(&answer, out),
        }
    })
}

/// Resolves addresses to text in batches, for very large inputs.
fn in_batches(
    args: &Args,
    symbolizer: &Symbolizer<'_>,
    words: &[String],
    name: &str,
    out: &mut dyn Write,
) -> Result<(), Exit> {
    let mut batch = Batch::new(symbolizer, args.lookup(), symbolize::threads());
    let other = |text: &str| {
        let refuse = |reason: &dyn std::fmt::Display| answer::refusal(text, reason);
        let request = request::parse(text, name).map_err(|reason| refuse(&reason))?;
        symbolizer.locate(&request).map_err(|reason| refuse(&reason))
    };
    let read = |line: &[u8]| request::plain(line).map_or_else(|| other(&String::from_utf8_lossy(line)), Ok);
    if !words.is_empty() {
        for word in words {
            match read(word.as_bytes()) {
                Ok(address) => batch.push(address),
                Err(said) => batch.say(said),
            }
        }
        return Ok(batch.write(out)?);
    }
    let mut lines = stdin_lines()?;
    while let Some(block) = lines.next_block()? {
        batch.read_lines(block, &read);
        batch.write(out)?;
        out.flush()?;
    }
    Ok(())
}

/// Handles one request, or the error for a text that is not a request.
type EachRequest<'a> = dyn FnMut(&str, Result<Request, String>, &mut dyn Write) -> Result<(), Exit> + 'a;

fn each_request(
    words: &[String],
    name: &str,
    out: &mut dyn Write,
    each: &mut EachRequest<'_>,
) -> Result<(), Exit> {
    let mut one = |text: &str, out: &mut dyn Write| {
        each(text, request::parse(text, name).map_err(|e| e.to_string()), out)
    };
    if !words.is_empty() {
        return words.iter().try_for_each(|word| one(word, out));
    }
    let mut lines = stdin_lines()?;
    while let Some(block) = lines.next_block()? {
        for line in block.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            one(&String::from_utf8_lossy(line), out)?;
        }
        // The input may be interactive.
        out.flush()?;
    }
    Ok(())
}

fn stdin_lines() -> io::Result<Lines> {
    // A descriptor of its own, because poll cannot see data that io::stdin has buffered.
    Ok(Lines::new(File::from(io::stdin().as_fd().try_clone_to_owned()?)))
}

impl Args {
    fn lookup(&self) -> Lookup {
        if self.returns { Lookup::Return } else { Lookup::Exact }
    }

    /// Returns the file to read, its name for messages, and the arguments that are addresses.
    fn binary(&self) -> Result<(PathBuf, PathBuf, &[String]), Exit> {
        if let Some(pid) = self.pid {
            let exe = procfs::executable(pid).map_err(|error| unreadable(pid, error))?;
            return Ok((exe.link, exe.shown, &self.words));
        }
        match self.words.split_first() {
            Some((binary, _)) if binary.is_empty() => Err(usage(anyhow!("BINARY is empty: name a file"))),
            Some((binary, words)) => Ok((binary.into(), binary.into(), words)),
            None => Err(usage(anyhow!("name a binary, or give --pid or --kernel"))),
        }
    }

    /// Parses the address given with --load-address.
    fn loaded_at(&self) -> Result<Option<u64>, Exit> {
        let parsed = |text: &String| match request::parse(text, "") {
            Ok(Request::Address(address)) => Ok(address),
            _ => Err(usage(anyhow!("--load-address {text:?} is not a hexadecimal address"))),
        };
        self.load_address.as_ref().map(parsed).transpose()
    }

    /// Returns the load bias: run-time address minus link-time address.
    fn bias(&self, bin: &GoBinary, loaded_at: Option<u64>) -> Result<u64, Exit> {
        if let Some(pid) = self.pid {
            let find = || Ok(mappings::load_bias(bin, &procfs::maps(pid)?, &procfs::executable(pid)?.file));
            let bias = find().map_err(|error| unreadable(pid, error))?;
            return bias.ok_or_else(|| anyhow!("process {pid} does not map its executable").into());
        }
        Ok(loaded_at.map_or(0, |address| address.wrapping_sub(bin.lowest_address())))
    }

    /// Writes one answer.
    fn answer(&self, answer: &Answer, out: &mut dyn Write) -> Result<(), Exit> {
        let text = match self.format {
            Format::Text => {
                let mut source = SourceFiles::default();
                answer.text(&mut |file, line| source.line(file, line))
            }
            Format::Json => crate::json::to_string(answer).context("cannot encode an answer as JSON")? + "\n",
        };
        Ok(out.write_all(text.as_bytes())?)
    }

    /// Writes that a request could not be resolved, and why.
    fn refuse(&self, text: &str, reason: &str, out: &mut dyn Write) -> Result<(), Exit> {
        let line = match self.format {
            Format::Text => answer::refusal(text, &reason),
            Format::Json => {
                let mut answer = serde_json::json!(Resolved::unknown(0, &reason));
                answer["address"] = text.into();
                crate::json::safe(format!("{answer}\n"))
            }
        };
        Ok(out.write_all(line.as_bytes())?)
    }
}
