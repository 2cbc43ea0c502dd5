//! `panicwatch daemon`: watches all Go programs of a host, stores and exports their panics.

use std::{fs, net::ToSocketAddrs as _, path::PathBuf};

use anyhow::Context as _;
use clap::Args as ClapArgs;

use super::common::{Exit, Listed, print, sentence, unable};
use crate::{
    config::{Checked, Config},
    daemon::{self, Daemon, StartError, log},
};

/// Watch all Go programs of this host: store, export and show their panics
///
/// See docs/daemon.md.
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    /// Configuration file (TOML) [default: none, every key has its default]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and exit
    #[arg(long)]
    check: bool,
    /// Address to listen on instead of the configuration's; can be repeated
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    listen: Vec<String>,
    /// Directory of the incident store instead of the configuration's
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// Validates an address in the same way as `listen` in the configuration.
fn address(text: &str) -> Result<String, String> {
    match text.to_socket_addrs() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("write it as 127.0.0.1:9464 or [::1]:9464".to_owned()),
    }
}

/// Runs the daemon until it is asked to stop.
///
/// # Errors
/// Status 1 when the configuration is rejected or something it names cannot be used, 3 when the machine
/// cannot watch programs.
pub fn run(args: &Args) -> Result<i32, Exit> {
    if args.check {
        return check(args);
    }
    let config = load(args)?;
    log::install(&config.log);
    crate::doctor::requirements_for_run().map_err(unable)?;
    let of_reload = args.clone();
    let reload = move || load(&of_reload).map_err(|exit| on_one_line(&exit.error));
    let daemon = Daemon::start(config, Box::new(reload)).map_err(|error| match error {
        StartError::Probe(error) => unable(error),
        error => error.into(),
    })?;
    daemon.run()?;
    Ok(0)
}

/// Formats the error, its causes and its list of problems for the log.
fn on_one_line(error: &anyhow::Error) -> String {
    match error.downcast_ref::<Listed>() {
        Some(listed) => format!("{} {}", sentence(error), listed.problems.join("; ")),
        None => sentence(error),
    }
}

/// Reports every problem of the configuration, and of the files, directories and commands that it names.
fn check(args: &Args) -> Result<i32, Exit> {
    let mut checked = read(args)?;
    for (path, what) in daemon::check(&checked.config) {
        checked.add(&path, what);
    }
    refuse(&checked)?;
    let name = args.config.as_ref().map_or("the defaults".to_owned(), |path| path.display().to_string());
    print(&format!("{name}: valid\n"))?;
    Ok(0)
}

fn load(args: &Args) -> Result<Config, Exit> {
    let checked = read(args)?;
    refuse(&checked)?;
    Ok(checked.config)
}

/// Returns all problems as one error.
fn refuse(checked: &Checked) -> Result<(), Exit> {
    let lines: Vec<String> = checked.problems().iter().map(ToString::to_string).collect();
    if lines.is_empty() {
        return Ok(());
    }
    Err(Listed { what: "the configuration is rejected", problems: lines }.into())
}

/// Reads the configuration and applies the overrides of the command line.
fn read(args: &Args) -> Result<Checked, Exit> {
    let (text, name) = match &args.config {
        Some(path) => {
            let name = path.display().to_string();
            (fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?, name)
        }
        None => (String::new(), String::new()),
    };
    let env = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    let mut checked = Config::check(&text, &name, env);
    if !args.listen.is_empty() {
        checked.config.http.listen.clone_from(&args.listen);
    }
    if let Some(state) = &args.state {
        checked.config.store.path = state.display().to_string();
    }
    Ok(checked)
}
