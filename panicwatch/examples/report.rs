//! Prints the terminal report of incidents read from JSON files:
//! `cargo run --example report -- [--color] [--width N] [--full] FILE…`

use std::io::Write as _;

use panicwatch::{
    incident::Incident,
    render::{report, text::Style},
};

fn main() -> anyhow::Result<()> {
    let mut style = Style::default();
    let mut full = false;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--color" => style.color = true,
            "--full" => full = true,
            "--width" => style.width = args.next().unwrap_or_default().parse()?,
            file => {
                let incident: Incident = serde_json::from_slice(&std::fs::read(file)?)?;
                let text =
                    if full { report::full(&incident, &style) } else { report::render(&incident, &style) };
                std::io::stdout().write_all(text.as_bytes())?;
            }
        }
    }
    Ok(())
}
