//! Exports incidents as JSON lines: each incident is written exactly once and as a whole line, even if the
//! daemon is killed.
//!
//! The file itself records what was written: on opening, a torn last line is cut off and the IDs of the last
//! lines are remembered, so that an incident that the store still lists as unsent is not written again. This
//! module does not depend on how incidents are made.

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

/// Incidents written at once. A daemon that is killed may have written this many without marking them as
/// sent.
const BATCH: usize = 32;
/// IDs to remember: more than a batch, because the end of a batch may be in the previous file.
const KNOWN: usize = 8 * BATCH;
/// Bytes first read from the end of a file to find IDs; doubled until they hold a whole line.
const TAIL: u64 = 32 << 20;
/// Maximum number of waiting incidents; beyond it the oldest are dropped and counted.
const MAX_QUEUE: u64 = 10_000;
/// Pause before the next attempt after a failed write.
const PAUSE: Duration = Duration::from_secs(2);

/// The open file, or standard output.
pub struct JsonLines {
    config: config::Jsonl,
    /// `None`: standard output.
    file: Option<File>,
    /// IDs of the last lines, oldest first.
    known: VecDeque<String>,
}

impl JsonLines {
    /// Opens the file, cuts off a torn last line, and reads the IDs of its last lines.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(config: &config::Jsonl) -> io::Result<JsonLines> {
        let mut lines = JsonLines { config: config.clone(), file: None, known: VecDeque::new() };
        if let Ok(mut before) = File::open(lines.rotated(1)) {
            let (ids, _) = tail(&mut before)?;
            lines.remember(ids);
        }
        lines.reopen()?;
        Ok(lines)
    }

    /// Reopens the file after it was moved away.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn reopen(&mut self) -> io::Result<()> {
        if self.config.path == "-" {
            return Ok(());
        }
        let mut options = OpenOptions::new();
        // Not readable by all users: messages of crashing programs may be confidential.
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

    /// Writes `incidents`, as many as belong into one file, syncs them to disk, and returns how many it
    /// handled. The caller must mark them as sent before it writes more, because the next call may rotate the
    /// file.
    ///
    /// # Errors
    /// When the disk is full or broken. No partial line remains in the file.
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
                // The file has a line from here on, so the size limit applies to the next one.
                length = 1;
            }
        }
        self.put(&text)?;
        self.remember(ids);
        Ok(taken)
    }

    /// Returns the current size of the file in bytes: another process may have truncated it.
    fn length(&self) -> io::Result<u64> {
        self.file.as_ref().map_or(Ok(0), |file| Ok(file.metadata()?.len()))
    }

    /// Reports whether the output can be rotated: a regular file can, a pipe or a terminal cannot.
    fn is_rotated(&self) -> bool {
        self.file.as_ref().is_some_and(|file| file.metadata().is_ok_and(|meta| meta.is_file()))
    }

    /// Writes all of `text`, or nothing.
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

    /// Renames `path` to `path.1`, that to `path.2` and so on.
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

/// Encodes an incident as one line.
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

/// Returns the IDs of the last lines of `file`, oldest first, and its length without a torn last line.
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
            // A line that is not an incident stays in the file.
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

/// Signals from the daemon to the JSON lines exporter.
pub struct Signals {
    /// Increases when an incident was stored.
    pub stored: watch::Receiver<u64>,
    /// Increases when the file is to be reopened (SIGUSR1).
    pub reopen: watch::Receiver<u64>,
    /// True: write the waiting incidents, then return.
    pub stop: watch::Receiver<bool>,
}

/// Writes the incidents that wait in `outbox` until told to stop, then writes the remaining ones once.
pub async fn run(outbox: Outbox, config: config::Jsonl, sink: metrics::Sink, mut signals: Signals) {
    let moved = signals.reopen.clone();
    let mut worker = Worker { outbox, config, sink, lines: None, moved, problem: None };
    loop {
        // A closed channel also means stop: the daemon's side is gone.
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
            // The worker has its own receiver, which tells it to reopen.
            () = risen(&mut signals.reopen) => {}
            _ = signals.stop.changed() => {}
            () = tokio::time::sleep(PAUSE), if failed => {}
        }
    }
}

/// Why no incident can be written now.
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
    /// Increases when the file is to be reopened.
    moved: watch::Receiver<u64>,
    /// The last problem that was logged.
    problem: Option<String>,
}

impl Worker {
    /// Writes all waiting incidents; returns whether that failed.
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
        // Written IDs stay known, so an incident not yet marked as sent is not written twice.
        let problem = problem.to_string();
        if self.problem.as_ref() != Some(&problem) {
            log::error!("{problem}");
            self.problem = Some(problem);
        }
        true
    }

    /// Writes a batch; returns whether there were incidents to write.
    fn batch(&mut self) -> Result<bool, Problem> {
        let of_file = |error| Problem::File(self.config.path.clone(), error);
        let lines = match &mut self.lines {
            Some(lines) => lines,
            none => none.insert(JsonLines::open(&self.config).map_err(of_file)?),
        };
        let incidents = self.outbox.pending(0, BATCH)?;
        // Checked after reading them: incidents stored after the file was moved belong into the new file.
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
