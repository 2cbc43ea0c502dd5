//! `panicwatch top`: shows the status of a daemon on the terminal, updated live.

use std::{
    io::{self, IsTerminal as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args as ClapArgs;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{
    ask::{DaemonArgs, runtime},
    common::{self, Exit},
};
use crate::{
    http::client::Client,
    top::{Rates, Screen, Snapshot, draw, text},
};

/// Interval between polls for keys.
const BEAT: Duration = Duration::from_millis(100);
/// Rows that PageUp and PageDown scroll.
const PAGE: isize = 10;

/// Show live what a daemon watches: groups with their rates, incidents, processes, and the daemon's health
///
/// The bottom line shows the keys. If standard output is not a terminal, one snapshot is printed as text.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    daemon: DaemonArgs,
    /// Print one snapshot as text and exit
    #[arg(long)]
    once: bool,
    /// Time between two snapshots
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    interval: Duration,
}

/// Parses the refresh interval: at least a tenth of a second, because each refresh takes five requests to the
/// daemon.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = common::duration(text)?;
    if interval < BEAT { Err(format!("must be at least {} ms", BEAT.as_millis())) } else { Ok(interval) }
}

/// Shows the status until q is pressed.
///
/// # Errors
/// Status 1 when the first request to the daemon fails, or the terminal fails.
pub fn run(args: &Args) -> Result<i32, Exit> {
    let client = args.daemon.client()?;
    if args.once || !io::stdout().is_terminal() {
        let snapshot = runtime()?.block_on(Snapshot::ask(&client))?;
        common::print(&text(&snapshot, &Rates::default()))?;
        return Ok(0);
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, stop.clone()).context("cannot install signal handlers")?;
    }
    let (pictures, now) = asker(client, args.interval)?;
    // From here on we own the terminal; it is restored on a panic as well.
    let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
    let result = show(&mut terminal, &pictures, &now, &stop);
    ratatui::restore();
    result.context("cannot draw on the terminal")?;
    Ok(0)
}

/// A status snapshot, or why the daemon could not be asked. It is fetched on a separate thread, so that keys
/// are handled while the daemon is slow; the thread ends when the receiver is dropped.
type Picture = Result<Snapshot, String>;
fn asker(client: Client, interval: Duration) -> anyhow::Result<(Receiver<Picture>, Sender<()>)> {
    let (give, pictures) = mpsc::channel();
    let (now, asked) = mpsc::channel();
    let runtime = runtime()?;
    thread::Builder::new().name("asker".into()).spawn(move || {
        loop {
            let picture = runtime.block_on(Snapshot::ask(&client)).map_err(|error| error.to_string());
            if give.send(picture).is_err() {
                return;
            }
            if let Err(mpsc::RecvTimeoutError::Disconnected) = asked.recv_timeout(interval) {
                return;
            }
        }
    })?;
    Ok((pictures, now))
}

fn show(
    terminal: &mut DefaultTerminal,
    pictures: &Receiver<Picture>,
    now: &Sender<()>,
    stop: &AtomicBool,
) -> io::Result<()> {
    let began = Instant::now();
    let mut screen = Screen::default();
    let mut changed = true;
    while !stop.load(Ordering::Relaxed) {
        for picture in pictures.try_iter() {
            changed = true;
            match picture {
                Ok(_) if screen.paused => {}
                Ok(snapshot) => {
                    screen.rates.see(began.elapsed(), &snapshot.groups);
                    (screen.snapshot, screen.trouble) = (Some(snapshot), None);
                }
                Err(trouble) => screen.trouble = Some(trouble),
            }
        }
        if changed {
            terminal.draw(|frame| draw(frame, &mut screen))?;
        }
        changed = event::poll(BEAT)?;
        if changed {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release && act(&mut screen, key, now) => {
                    return Ok(());
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Handles a key; returns whether to quit.
fn act(screen: &mut Screen, key: KeyEvent, now: &Sender<()>) -> bool {
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return true,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
        KeyCode::Tab => screen.next_list(false),
        KeyCode::BackTab => screen.next_list(true),
        KeyCode::Up | KeyCode::Char('k') => screen.scroll(-1),
        KeyCode::Down | KeyCode::Char('j') => screen.scroll(1),
        KeyCode::PageUp => screen.scroll(-PAGE),
        KeyCode::PageDown => screen.scroll(PAGE),
        KeyCode::Home => screen.scroll(isize::MIN),
        KeyCode::End => screen.scroll(isize::MAX),
        KeyCode::Char('p') => screen.paused = !screen.paused,
        KeyCode::Char('r') => {
            // The thread lives as long as this sender.
            let _ = now.send(());
        }
        _ => {}
    }
    false
}
