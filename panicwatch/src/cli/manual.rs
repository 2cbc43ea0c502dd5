//! The manual pages: clap's definitions, and the sections that these cannot hold: examples, exit status,
//! files and environment.
//!
//! [`sections`] has the texts; a test parses every example with the definitions of the commands.

pub mod sections;

use std::{fs, io, path::Path};

use clap::Command;
use clap_mangen::{
    Man,
    roff::{Inline, Roff, bold, roman},
};
use sections::Sections;

/// Returns the manual page of `command` in roff. `name` is the command's, such as "run"; empty for panicwatch
/// itself.
///
/// # Errors
/// Never in practice: the page is built in memory.
pub fn page(command: Command, name: &str) -> io::Result<Vec<u8>> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let has_options = command.get_arguments().any(|argument| !argument.is_hide_set());
    let has_commands = command.get_subcommands().any(|command| !command.is_hide_set());
    let has_version = command.get_version().is_some();
    let page = Man::new(command).source(concat!("panicwatch ", env!("CARGO_PKG_VERSION")));
    let mut out = Vec::new();
    page.render_title(&mut out)?;
    page.render_name_section(&mut out)?;
    page.render_synopsis_section(&mut out)?;
    page.render_description_section(&mut out)?;
    if has_options {
        page.render_options_section(&mut out)?;
    }
    if has_commands {
        page.render_subcommands_section(&mut out)?;
    }
    if let Some(sections) = sections::of(name) {
        own_sections(sections).to_writer(&mut out)?;
    }
    if has_version {
        page.render_version_section(&mut out)?;
    }
    Ok(out)
}

/// Writes the page of panicwatch and one for each command into `dir`.
///
/// # Errors
/// When a file cannot be written.
pub fn write_pages(command: Command, dir: &Path) -> io::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    for own in command.get_subcommands().filter(|own| !own.is_hide_set()) {
        let name = own.get_name().to_owned();
        fs::write(dir.join(format!("panicwatch-{name}.1")), page(own.clone(), &name)?)?;
    }
    fs::write(dir.join("panicwatch.1"), page(command, "")?)
}

fn own_sections(sections: &Sections) -> Roff {
    let mut roff = Roff::default();
    roff.control("SH", ["EXAMPLES"]);
    for (line, what) in sections.examples {
        roff.control("TP", []);
        roff.text([bold(*line)]);
        roff.text([roman(*what)]);
    }
    for (heading, entries, none) in [
        ("EXIT STATUS", sections.exit_status, ""),
        ("FILES", sections.files, "Only those named on the command line."),
        ("ENVIRONMENT", sections.environment, "No variable affects this command."),
    ] {
        roff.control("SH", [heading]);
        if entries.is_empty() {
            roff.text([roman(none)]);
        }
        entries.iter().for_each(|(what, text)| entry(&mut roff, what, text));
    }
    roff
}

/// Appends a tagged paragraph.
fn entry(roff: &mut Roff, what: &'static str, text: &'static str) {
    let tag: Inline = bold(what);
    roff.control("TP", []);
    roff.text([tag]);
    roff.text([roman(text)]);
}
