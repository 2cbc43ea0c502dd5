//! Where `run` and `attach` write incidents. A destination that cannot be written to never ends the watching: the first failure is
//! reported, the incidents that are lost are counted.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom, Write},
    path::Path,
};

use anyhow::Context as _;

use super::common::{Format, say};
use crate::{incident::Incident, report};

/// A destination of incidents.
pub struct Sink {
    to: To,
    format: Format,
    style: report::Style,
    lost: u64,
}

/// Where the bytes go.
enum To {
    Stderr,
    File(OutputFile),
}

impl Sink {
    /// Writes to standard error.
    pub(super) fn stderr(format: Format, style: report::Style) -> Sink {
        Sink { to: To::Stderr, format, style, lost: 0 }
    }

    /// Writes to a new file at `path`.
    ///
    /// # Errors
    /// When it cannot be created.
    pub(super) fn file(path: &Path, format: Format, style: report::Style) -> anyhow::Result<Sink> {
        Ok(Sink { to: To::File(OutputFile::create(path)?), format, style, lost: 0 })
    }

    /// Writes one incident, or counts it as lost. A closed pipe is not an error: its reader wants no more.
    pub fn write(&mut self, incident: &Incident) {
        let written = self.render(incident).and_then(|text| match &mut self.to {
            To::Stderr => io::stderr().write_all(text.as_bytes()),
            To::File(file) => file.write(text.as_bytes()),
        });
        match written {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => {
                if self.lost == 0 {
                    say(&format!(
                        "cannot write an incident: {error}; watching continues, incidents that cannot be written are \
                         counted"
                    ));
                }
                self.lost += 1;
            }
        }
    }

    fn render(&self, incident: &Incident) -> io::Result<String> {
        Ok(match self.format {
            // The program may have left the terminal's last line unfinished.
            Format::Text => format!("\n{}", report::render(incident, &self.style)),
            Format::Jsonl => crate::json::to_string(incident)? + "\n",
        })
    }

    /// Reports how many incidents could not be written, if any, and returns that number.
    pub fn finish(&mut self) -> u64 {
        if self.lost > 0 {
            let s = if self.lost == 1 { "" } else { "s" };
            say(&format!("{} incident{s} could not be written", self.lost));
        }
        self.lost
    }
}

/// A file of whole records: what a failed write left of one is removed again.
struct OutputFile {
    file: File,
    /// Bytes of the records that were written whole; `None` for what has no end to go back to (a pipe, a device).
    whole: Option<u64>,
}

impl OutputFile {
    fn create(path: &Path) -> anyhow::Result<OutputFile> {
        let file = File::create(path).with_context(|| format!("cannot write to {}", path.display()))?;
        let whole = file.metadata().is_ok_and(|meta| meta.is_file()).then_some(0);
        Ok(OutputFile { file, whole })
    }

    fn write(&mut self, record: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(record);
        match (&written, &mut self.whole) {
            (Ok(()), Some(whole)) => *whole += record.len() as u64,
            (Err(_), Some(whole)) => {
                // Making a file shorter needs no space; should it fail all the same, the next record follows half a line.
                let _ = self.file.set_len(*whole).and_then(|()| self.file.seek(SeekFrom::Start(*whole)));
            }
            (_, None) => {}
        }
        written
    }
}
