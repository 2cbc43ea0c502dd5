//! The daemon's main loop: passes incidents to the store writer, updates the status once a second, handles
//! signals, and shuts down.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use jiff::Timestamp;
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

use super::{
    Daemon, log as own_log, lost, options,
    paint::{Others, Painter},
};
use crate::{
    config, incident,
    probe::links,
    status::feed,
    watch::session::{Counted, Input, Output},
};

/// Minimum interval between checks of resident memory while incidents arrive: each incident touches pages of
/// a binary.
const WEIGH: Duration = Duration::from_millis(20);
/// Interval between updates of the store's size.
const SIZES: Duration = Duration::from_secs(10);

/// Requests made by signals.
#[derive(Debug, Default)]
struct Asked {
    reload: AtomicBool,
    reopen: AtomicBool,
}

impl Daemon {
    /// Watches until it is asked to stop, then shuts down in order: it drains the ring, closes open
    /// incidents, then stops the store writer and the exporters.
    ///
    /// # Errors
    /// When signal handlers cannot be installed, or incidents were lost during shutdown.
    pub fn run(mut self) -> anyhow::Result<()> {
        let asked = Arc::new(Asked::default());
        self.listen_to_signals(&asked).context("cannot install signal handlers")?;
        let mut painter = Painter::default();
        let mut told_ready = false;
        let mut sized: Option<Instant> = None;
        let mut weighed = Instant::now();
        loop {
            match self.session.wait() {
                Output::Incident(incident) => {
                    self.keeper.incident(*incident);
                    if weighed.elapsed() >= WEIGH {
                        weighed = Instant::now();
                        self.session.armory().drop_pages_beyond(self.config.limits.memory.0);
                    }
                }
                Output::Counted(counted) => self.counted(counted),
                Output::Note(note) => log::warn!("{note}"),
                Output::Aside(aside) => log::info!("{aside}"),
                Output::Init(..) => {}
                Output::Tick => {
                    self.look_around(&mut painter, &mut told_ready);
                    if sized.is_none_or(|sized| sized.elapsed() >= SIZES) {
                        sized = Some(Instant::now());
                        let (bytes, count) = self.store.size().unwrap_or_default();
                        self.metrics.store(bytes, count, self.keeper.lost());
                    }
                    if asked.reload.swap(false, Ordering::Relaxed) {
                        self.reload();
                    }
                    if asked.reopen.swap(false, Ordering::Relaxed) {
                        self.exporters.reopen();
                    }
                }
                Output::ChildExited(_) | Output::Stopped => break,
            }
        }
        self.stop()
    }

    fn listen_to_signals(&self, asked: &Arc<Asked>) -> std::io::Result<()> {
        let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
        let (sender, asked) = (self.session.sender(), asked.clone());
        thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                match signal {
                    SIGHUP => asked.reload.store(true, Ordering::Relaxed),
                    SIGUSR1 => asked.reopen.store(true, Ordering::Relaxed),
                    _ => {
                        notify(&[NotifyState::Stopping]);
                        let _ = sender.send(Input::Stop);
                    }
                }
            }
        })?;
        Ok(())
    }

    fn counted(&self, counted: Counted) {
        let census = self.session.census();
        let exe = census.and_then(|census| census.process(counted.pid).exe);
        let binary = exe.as_deref().and_then(incident::base_name).unwrap_or_default().to_owned();
        self.keeper.counted(feed::Counted {
            time: format!("{:.9}", Timestamp::now()),
            pid: counted.pid,
            binary,
            function: counted.site.map(|site| site.function),
            count: counted.count,
        });
    }

    /// Updates status, metrics, memory and the watchdog; called once a second.
    fn look_around(&mut self, painter: &mut Painter, told_ready: &mut bool) {
        let Some(census) = self.session.census() else { return };
        let ready = census.has_looked_at_all();
        let others = Others {
            to_store: self.keeper.waiting(),
            problems: self.keeper.problem().into_iter().collect(),
            ready,
        };
        let status = painter.paint(&self.session, &census, others);
        self.metrics.status(&status);
        self.metrics.readers(self.keeper.listeners());
        if ready && !*told_ready {
            *told_ready = true;
            if let Some(last_beat) = self.last_beat.take() {
                let gap = super::gap_since(last_beat, Timestamp::now());
                log::info!("nothing was watched from {} to {}", gap.from, gap.to);
                super::keeper::tell_gap(&self.store, &self.metrics, &self.feed, gap);
            }
            let watched = status.processes.iter().filter(|process| process.watched).count();
            log::info!("ready: watching {watched} Go processes of {} binaries", status.binaries.len());
            notify(&[NotifyState::Ready]);
            // Startup needs more memory than normal operation.
            // SAFETY: the C library returns free memory to the system; memory in use does not change.
            unsafe { libc::malloc_trim(0) };
        }
        self.session.armory().keep_within(self.config.limits.memory.0);
        self.board.set(status);
        if let Err(error) = self.store.beat() {
            log::debug!("cannot write the heartbeat: {error}");
        }
        notify(&[NotifyState::Watchdog]);
    }

    fn reload(&mut self) {
        let usec = i128::from(crate::clock::monotonic_ns() / 1000);
        notify(&[NotifyState::Reloading, NotifyState::MonotonicUsec(usec)]);
        let done = (self.reload)().and_then(|config| {
            let select = options::select(&config.watch)?;
            let token =
                crate::http::server::token(&config.http.token_file).map_err(|error| error.to_string())?;
            Ok((config, select, token))
        });
        match done {
            Err(error) => {
                log::error!("the configuration was not reloaded, the previous one stays in effect: {error}");
                self.metrics.reloaded(false);
            }
            Ok((config, select, token)) => {
                let later = config::needs_restart(&self.config, &config);
                if !later.is_empty() {
                    log::warn!("changes of {} take effect after a restart of the daemon", later.join(", "));
                }
                own_log::install(&config.log);
                if config.watch != self.config.watch
                    && let Some(census) = self.session.census()
                {
                    census.reselect(select);
                }
                self.exporters.set_token(token);
                (self.config.watch, self.config.log) = (config.watch, config.log);
                log::info!("the configuration was reloaded");
                self.metrics.reloaded(true);
            }
        }
        notify(&[NotifyState::Ready]);
    }

    /// Shuts down. The session has already drained the ring and closed open incidents.
    fn stop(self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let limit = self.config.limits.stop_timeout.0;
        let unstored = self.keeper.finish();
        if let Err(error) = self.store.beat() {
            log::warn!("cannot write the heartbeat: {error}");
        }
        if !self.exporters.finish(limit.saturating_sub(begun.elapsed())) {
            log::warn!("exporters did not finish in time; unsent incidents wait in the store");
        }
        if let Err(error) = self.store.note_deliveries() {
            log::warn!("{error}; incidents sent during the failure will be sent again");
        }
        let lost = lost::report(&unstored, &self.store, &self.config.jsonl);
        log::info!("stopped");
        lost.map_err(anyhow::Error::msg)?;
        // Fails, so that the service manager restarts the daemon.
        anyhow::ensure!(!links::has_ended(), "the process that holds the probes was killed");
        Ok(())
    }
}

/// Notifies systemd, if it started the daemon.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::debug!("cannot notify systemd: {error}");
    }
}
