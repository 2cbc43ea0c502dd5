//! `panicwatch completions` and `panicwatch man`, generated from the definitions of the commands so that they
//! cannot diverge.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args as ClapArgs, Command};
use clap_complete::Shell;

use super::{
    common::{Exit, print_own},
    manual,
};

/// Print a shell's completion script
#[derive(Debug, ClapArgs)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Print the manual page
#[derive(Debug, ClapArgs)]
pub struct ManArgs {
    /// Write a page for each command into this existing directory instead
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// Prints the shell completions of `command`.
///
/// # Errors
/// When standard output cannot be written to.
pub fn completions(mut command: Command, args: &CompletionsArgs) -> Result<i32, Exit> {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    print_own(&script)?;
    Ok(0)
}

/// Prints or writes the manual pages of `command`.
///
/// # Errors
/// When standard output, or a file in the directory, cannot be written to.
pub fn man(command: Command, args: &ManArgs) -> Result<i32, Exit> {
    match &args.dir {
        Some(dir) => manual::write_pages(command, dir)
            .with_context(|| format!("cannot write manual pages to {}", dir.display()))?,
        None => {
            let page = manual::page(command, "").context("cannot render the manual page")?;
            print_own(&page)?;
        }
    }
    Ok(0)
}
