//! Prints what this machine supports, as text: `cargo run --example doctor`
use std::io::Write as _;

use panicwatch::{doctor, render::text::Style};

fn main() -> anyhow::Result<()> {
    let diagnosis = doctor::diagnose(&doctor::Facts::gather());
    std::io::stdout().write_all(doctor::text(&diagnosis, &Style::default()).as_bytes())?;
    Ok(())
}
