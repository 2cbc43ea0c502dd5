//! The sink of JSON lines: an incident a line, each once and whole, whenever the daemon was killed.
//!
//! What was written is known from the file itself: on opening, a torn last line is cut off, and the IDs of the last lines are
//! remembered, so that incidents that the store still believes unsent are not written again. Must not know where
//! incidents come from.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use tokio::sync::watch;

use crate::{
    config,
    incident::{Incident, Missing},
    metrics,
    store::{self, Outbox, risen},
};

/// Incidents that are written at once; those that a killed daemon may have written without noting it.
const BATCH: usize = 32;
/// IDs that are remembered: more than a batch, because its end may be in the file before.
const KNOWN: usize = 8 * BATCH;
/// How much of the end of a file is read for them at first, bytes; twice as much until it holds a whole line.
const TAIL: u64 = 32 << 20;
/// Incidents that may wait: of more the oldest go unwritten, counted.
const MAX_QUEUE: u64 = 10_000;
/// Before the disk is tried again.
const PAUSE: Duration = Duration::from_secs(2);

/// An open sink.
pub struct JsonLines {
    config: config::Jsonl,
    /// `None`: standard output.
    file: Option<File>,
    /// IDs of the last lines.
    known: VecDeque<String>,
}

impl JsonLines {
    /// Opens the file, makes its end whole, and learns what is in it.
    ///
    /// # Errors
    /// When the file cannot be read and written.
    pub fn open(config: &config::Jsonl) -> io::Result<JsonLines> {
        let mut lines = JsonLines { config: config.clone(), file: None, known: VecDeque::new() };
        if let Ok(mut before) = File::open(lines.rotated(1)) {
            let (ids, _) = tail(&mut before)?;
            lines.remember(ids);
        }
        lines.reopen()?;
        Ok(lines)
    }

    /// Opens the file anew, after it was moved away.
    ///
    /// # Errors
    /// When the file cannot be read and written.
    pub fn reopen(&mut self) -> io::Result<()> {
        if self.config.path == "-" {
            return Ok(());
        }
        let mut options = OpenOptions::new();
        // What programs say when they crash is not everybody's business.
        options.read(true).append(true).create(true).mode(0o640);
        let file = options.open(&self.config.path)?;
        let mut end = &file;
        if file.metadata()?.is_file() {
            let (ids, whole) = tail(&mut end)?;
            file.set_len(whole)?;
            self.remember(ids);
        }
        self.file = Some(file);
        Ok(())
    }

    fn rotated(&self, n: u32) -> PathBuf {
        format!("{}.{n}", self.config.path).into()
    }

    fn remember(&mut self, ids: impl IntoIterator<Item = String>) {
        self.known.extend(ids);
        let over = self.known.len().saturating_sub(KNOWN);
        self.known.drain(..over);
    }

    /// Writes `incidents`, as many as belong into one file, and brings them to the disk; how many those were. They must be
    /// noted as sent before more are written: the next may begin another file.
    ///
    /// # Errors
    /// When the disk is full or broken. No part of a line stays.
    pub fn write(&mut self, incidents: &[Arc<Incident>]) -> io::Result<usize> {
        let mut text = Vec::new();
        let mut ids = Vec::new();
        let mut taken = 0;
        let mut length = self.length()?;
        for incident in incidents {
            if self.known.contains(&incident.id) {
                taken += 1;
                continue;
            }
            let line = line(incident, self.config.timeline)?;
            let max = self.config.max_bytes.0;
            let is_full = max > 0 && length > 0 && length + (text.len() + line.len()) as u64 > max;
            if is_full && self.is_rotated() {
                if taken > 0 {
                    break;
                }
                self.rotate()?;
                length = 0;
            }
            text.extend(line);
            ids.push(incident.id.clone());
            taken += 1;
            if length == 0 {
                // So that a file that was empty counts as one with a line.
                length = 1;
            }
        }
        self.put(&text)?;
        self.remember(ids);
        Ok(taken)
    }

    /// Bytes of the file now: others may have cut it.
    fn length(&self) -> io::Result<u64> {
        self.file.as_ref().map_or(Ok(0), |file| Ok(file.metadata()?.len()))
    }

    /// A file that has a size can be rotated, a pipe or terminal not.
    fn is_rotated(&self) -> bool {
        self.file.as_ref().is_some_and(|file| file.metadata().is_ok_and(|meta| meta.is_file()))
    }

    /// All of `text`, or nothing.
    fn put(&self, text: &[u8]) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let Some(mut file) = self.file.as_ref() else {
            let mut out = io::stdout().lock();
            out.write_all(text)?;
            return out.flush();
        };
        let meta = file.metadata()?;
        let written = file.write_all(text).and_then(|()| match meta.is_file() {
            true => file.sync_data(),
            false => Ok(()),
        });
        if written.is_err() && meta.is_file() {
            file.set_len(meta.len())?;
        }
        written
    }

    /// `path` becomes `path.1`, that `path.2` and so on.
    fn rotate(&mut self) -> io::Result<()> {
        match self.config.keep {
            0 => fs::remove_file(&self.config.path)?,
            keep => {
                for n in (1..keep).rev() {
                    move_if_there(self.rotated(n), self.rotated(n + 1))?;
                }
                move_if_there(self.config.path.clone().into(), self.rotated(1))?;
            }
        }
        self.reopen()
    }
}

fn move_if_there(from: PathBuf, to: PathBuf) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// An incident as its line.
fn line(incident: &Incident, timeline: bool) -> io::Result<Vec<u8>> {
    let mut line = if timeline || incident.timeline.is_none() {
        serde_json::to_vec(incident)?
    } else {
        let mut without = Incident { timeline: None, ..incident.clone() };
        let reason = "left out of this file: [jsonl] timeline = false".to_owned();
        without.missing.push(Missing { what: "timeline".to_owned(), reason });
        serde_json::to_vec(&without)?
    };
    line.push(b'\n');
    Ok(line)
}

/// IDs of the last lines of `file`, oldest first, and how long it is without a torn last line.
fn tail(file: &mut (impl io::Read + io::Seek)) -> io::Result<(VecDeque<String>, u64)> {
    #[derive(Deserialize)]
    struct Named {
        id: String,
    }
    let length = file.seek(SeekFrom::End(0))?;
    let mut size = TAIL;
    loop {
        let start = length.saturating_sub(size);
        file.seek(SeekFrom::Start(start))?;
        let mut reader = BufReader::new(&mut *file).take(length - start);
        let (mut at, mut whole, mut ids, mut line) = (start, None, VecDeque::new(), Vec::new());
        loop {
            line.clear();
            at += reader.read_until(b'\n', &mut line)? as u64;
            if !line.ends_with(b"\n") {
                break;
            }
            whole = Some(at);
            // Whatever else is in the file stays there.
            if let Ok(Named { id }) = serde_json::from_slice(&line) {
                ids.push_back(id);
                if ids.len() > KNOWN {
                    ids.pop_front();
                }
            }
        }
        match whole {
            Some(whole) => return Ok((ids, whole)),
            None if start == 0 => return Ok((ids, 0)),
            None => size = size.saturating_mul(2),
        }
    }
}

/// What of a daemon the sink listens to.
pub struct Signals {
    /// Rises when something was stored.
    pub stored: watch::Receiver<u64>,
    /// Rises when the file is to be opened anew (SIGUSR1).
    pub reopen: watch::Receiver<u64>,
    /// True: write what waits, and end.
    pub stop: watch::Receiver<bool>,
}

/// Writes what waits in `outbox`, until it is stopped and has written what can be written.
pub async fn run(outbox: Outbox, config: config::Jsonl, sink: metrics::Sink, mut signals: Signals) {
    let moved = signals.reopen.clone();
    let mut worker = Worker { outbox, config, sink, lines: None, moved, problem: None };
    loop {
        // Without anybody who could stop it, it is to stop.
        let stopping = *signals.stop.borrow_and_update() || signals.stop.has_changed().is_err();
        let work = tokio::task::spawn_blocking(move || {
            let pause = worker.drain();
            (worker, pause)
        });
        let failed;
        (worker, failed) = match work.await {
            Ok(done) => done,
            Err(error) => return log::error!("JSON lines are no longer written: {error}"),
        };
        if stopping {
            return;
        }
        tokio::select! {
            () = risen(&mut signals.stored) => {}
            // The worker has a receiver of its own.
            () = risen(&mut signals.reopen) => {}
            _ = signals.stop.changed() => {}
            () = tokio::time::sleep(PAUSE), if failed => {}
        }
    }
}

/// Why nothing can be written now.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("cannot write JSON lines to {0}: {1}; incidents wait in the store until it works")]
    File(String, io::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
}

struct Worker {
    outbox: Outbox,
    config: config::Jsonl,
    sink: metrics::Sink,
    lines: Option<JsonLines>,
    /// Rises when the file is to be opened anew.
    moved: watch::Receiver<u64>,
    /// The last that was told.
    problem: Option<String>,
}

impl Worker {
    /// Writes all that waits; did that fail?
    fn drain(&mut self) -> bool {
        let result = loop {
            match self.batch() {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(problem) => break Err(problem),
            }
        };
        let trimmed = self.outbox.trim(MAX_QUEUE, |_| false).unwrap_or(0);
        if trimmed > 0 {
            self.sink.dropped(trimmed);
            log::error!("{trimmed} incidents are not in the JSON lines: more than {MAX_QUEUE} were waiting");
        }
        if let Ok(waiting) = self.outbox.waiting() {
            self.sink.waiting(waiting);
        }
        let Err(problem) = result else {
            self.problem = None;
            return false;
        };
        self.sink.failed();
        // What was written stays known: what is not noted as sent is not written again.
        let problem = problem.to_string();
        if self.problem.as_ref() != Some(&problem) {
            log::error!("{problem}");
            self.problem = Some(problem);
        }
        true
    }

    /// Writes some; were there any?
    fn batch(&mut self) -> Result<bool, Problem> {
        let of_file = |error| Problem::File(self.config.path.clone(), error);
        let lines = match &mut self.lines {
            Some(lines) => lines,
            none => none.insert(JsonLines::open(&self.config).map_err(of_file)?),
        };
        let incidents = self.outbox.pending(0, BATCH)?;
        // After they were read: what happened after the file was moved goes into the new one.
        if self.moved.has_changed().unwrap_or(false) {
            lines.reopen().map_err(of_file)?;
            self.moved.mark_unchanged();
        }
        if incidents.is_empty() {
            return Ok(false);
        }
        let written = lines.write(&incidents).map_err(of_file)?;
        let ids: Vec<&str> = incidents[..written].iter().map(|incident| incident.id.as_str()).collect();
        self.outbox.done(&ids)?;
        self.sink.sent(written as u64);
        Ok(true)
    }
}
