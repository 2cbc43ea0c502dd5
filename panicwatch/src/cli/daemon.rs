//! `panicwatch daemon`: watches all Go processes of a host.

use std::sync::Arc;

use clap::Args as ClapArgs;

use super::{
    common::{Exit, print, say, unable},
    signals,
};
use crate::{
    recorder,
    watch::session::{Input, Output, Scope, Session},
};

/// Watch all Go programs of this host
#[derive(Debug, ClapArgs)]
pub struct Args {}

/// Runs it.
///
/// # Errors
/// 3.
pub fn run(_args: &Args) -> Result<i32, Exit> {
    crate::doctor::requirements_for_run().map_err(unable)?;
    let scope = Scope::Host { select: Arc::new(|_| Ok(())), hold: false };
    let mut session = Session::start(scope, &recorder::Options::default()).map_err(unable)?;
    let sender = session.sender();
    signals::on_stop(session.gate(), move || {
        let _ = sender.send(Input::Stop);
    })?;
    let census = session.census();
    loop {
        match session.wait() {
            Output::Incident(incident) => print(&format!(
                "{} {} {:?} {:?} {:?} {:?}\n",
                incident.process.pid,
                incident.process.exe.as_deref().unwrap_or("?"),
                incident.outcome,
                incident.message,
                incident.process.args,
                incident.missing.len(),
            ))?,
            Output::Note(note) | Output::Aside(note) => say(&note),
            Output::Counted(counted) => super::common::say_counted(&counted),
            Output::Init(..) => {}
            Output::Tick => {
                let known = census.as_ref().map(|c| c.known()).unwrap_or_default();
                say(&format!("{} processes, {} records", known.len(), session.records()));
            }
            Output::ChildExited(_) | Output::Stopped => return Ok(0),
        }
    }
}
