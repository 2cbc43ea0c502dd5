//! The destination to which `run` and `attach` write incidents. A failure to write never stops watching: the
//! first one is reported, and the incidents that are lost are counted.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom, Write},
    path::Path,
};

use anyhow::Context as _;

use super::common::{Format, say};
use crate::{
    incident::Incident,
    render::{report, text::Style},
};

/// A destination of incidents.
pub struct Sink {
    to: To,
    format: Format,
    style: Style,
    lost: u64,
}

/// Target of the bytes.
enum To {
    Stderr,
    File(OutputFile),
}

impl Sink {
    /// Returns a sink that writes to standard error.
    pub(super) fn stderr(format: Format, style: Style) -> Sink {
        Sink { to: To::Stderr, format, style, lost: 0 }
    }

    /// Returns a sink that writes to a new file at `path`.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub(super) fn file(path: &Path, format: Format, style: Style) -> anyhow::Result<Sink> {
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
            // The program may have left the last line of the terminal unfinished.
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

/// A file of whole records: the partial record of a failed write is removed.
struct OutputFile {
    file: File,
    /// Bytes of the complete records; `None` for an output that cannot be truncated (a pipe, a device).
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
                // Truncating a file needs no space; if it fails all the same, the next record follows a
                // partial one.
                let _ = self.file.set_len(*whole).and_then(|()| self.file.seek(SeekFrom::Start(*whole)));
            }
            (_, None) => {}
        }
        written
    }
}
