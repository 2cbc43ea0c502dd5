//! `panicwatch doctor`: reports what this machine supports, the consequences of what is missing, and the
//! remedy.

use clap::{Args as ClapArgs, ValueEnum};

use super::common::{Exit, print, stdout_style};
use crate::doctor::{Facts, diagnose, json, text};

/// Check what this machine allows, and print the remedy for what it does not
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Examines the machine; returns status 3 when panics cannot be watched here.
///
/// # Errors
/// When standard output cannot be written to; a closed pipe is not an error.
pub fn run(args: &Args) -> Result<i32, Exit> {
    let mut facts = Facts::gather();
    facts.clean_up();
    let diagnosis = diagnose(&facts);
    let mut output = match args.format {
        Format::Text => text(&diagnosis, &stdout_style()),
        Format::Json => json(&diagnosis)?,
    };
    if !output.ends_with('\n') {
        output.push('\n');
    }
    print(&output)?;
    Ok(if diagnosis.requirements().is_ok() { 0 } else { 3 })
}
