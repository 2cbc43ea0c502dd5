//! The `panicwatch` command: parses, dispatches, turns errors into exit statuses.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use panicwatch::cli::{
    attach,
    common::{say_error, say_usage},
    daemon, doctor, generated, init_trace, inspect, run, show, symbolize, top, trace,
};
use panicwatch::{helper, watch};

/// A flight recorder for Go panics: watches Go programs from outside, without changing them
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Attach(attach::Args),
    Daemon(daemon::Args),
    Trace(trace::Args),
    InitTrace(init_trace::Args),
    Inspect(inspect::Args),
    Symbolize(symbolize::Args),
    Show(show::Args),
    Top(top::Args),
    Doctor(doctor::Args),
    Completions(generated::CompletionsArgs),
    Man(generated::ManArgs),
}

fn main() -> ExitCode {
    if let Some(status) = helper::dispatch(watch::helpers::serve) {
        return status;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(say_usage(&error, |args| Cli::try_parse_from(args).map(drop))),
    };
    let result = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Attach(args) => attach::run(&args),
        Command::Daemon(args) => daemon::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::InitTrace(args) => init_trace::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Symbolize(args) => symbolize::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => generated::completions(Cli::command(), &args),
        Command::Man(args) => generated::man(Cli::command(), &args),
    };
    match result {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Err(exit) => {
            say_error(&exit.error);
            ExitCode::from(exit.status)
        }
    }
}

#[cfg(test)]
mod tests {
    use panicwatch::cli::manual::sections;

    use super::*;

    /// Splits a line as a shell does, with single quotes only, up to a pipe or redirection.
    fn words(line: &str) -> Vec<String> {
        let quoted = line.split('\'').enumerate();
        let parts = quoted.flat_map(|(i, part)| match i % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        });
        parts.take_while(|word| !["|", "<", ">"].contains(&word.as_str())).collect()
    }

    #[test]
    fn every_command_has_its_sections_and_every_example_parses() {
        for command in Cli::command().get_subcommands() {
            let sections = sections::of(command.get_name());
            let sections = sections.unwrap_or_else(|| panic!("{} has no sections", command.get_name()));
            assert!(!sections.examples.is_empty() && !sections.exit_status.is_empty(), "{sections:?}");
        }
        for line in sections::examples() {
            Cli::try_parse_from(words(line)).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
}
