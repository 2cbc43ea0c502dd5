//! Prints the fingerprint of incidents read from JSON files, and the basis it is computed from:
//! `cargo run --example fingerprint -- FILE…`

use std::io::Write as _;

use panicwatch::{fingerprint, incident::Incident};

fn main() -> anyhow::Result<()> {
    for file in std::env::args().skip(1) {
        let incident: Incident = serde_json::from_slice(&std::fs::read(file)?)?;
        let basis = fingerprint::basis(&incident).join("; ");
        writeln!(std::io::stdout(), "{} {basis}", fingerprint::fingerprint(&incident))?;
    }
    Ok(())
}
