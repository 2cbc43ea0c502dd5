//! The governor: a thread that enforces the recorder's overhead budgets. It reads the counters, passes them
//! to `recorder::budget`, disables and re-enables sources, and reports that.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc::SyncSender},
    thread,
    time::Duration,
};

use super::{armory::Armory, flight::Recorder, session::Input};
use crate::{
    clock,
    probe::calibrate,
    recorder::{
        Options, Source,
        budget::{Action, Budget, FLOOR, Limit, Limits, Reading},
        cost::{self, Counters, Prices},
    },
    vital,
};

/// Interval between two readings.
const TICK: Duration = Duration::from_millis(250);
/// Interval between two readings of the CPU time of every watched process, used if the kernel side does not
/// add it up.
const ASK_NS: u64 = 1_000_000_000;

/// Status of the governor.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// Names of the sources that are disabled now.
    pub shed: Vec<String>,
    /// How often it disabled or re-enabled a source.
    pub actions: u64,
    /// Overhead in watched processes, percent of their CPU time; `None` until measured, and while they hardly
    /// use any.
    pub cost_percent: Option<f64>,
    /// Overhead in all other processes, percent of the machine's CPU capacity; `None` until measured.
    pub host_percent: Option<f64>,
    /// Cost of a hit of a probe in a program on this machine, nanoseconds; `None` until measured.
    pub hit_ns: Option<f64>,
    /// Cost of a run of each source's eBPF programs on this machine, nanoseconds, for the sources that were
    /// measured.
    pub prices: Vec<(String, f64)>,
}

/// Shared handle to the governor's status.
#[derive(Debug, Clone, Default)]
pub(super) struct Account(Arc<Mutex<Told>>);

impl Account {
    pub(super) fn get(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the governor works with.
pub(super) struct Governed {
    pub(super) armory: Arc<Armory>,
    pub(super) recorder: Arc<Recorder>,
    /// Sources that are enabled at the start.
    pub(super) sources: Vec<Source>,
    pub(super) options: Options,
    pub(super) notes: SyncSender<Input>,
    pub(super) account: Account,
}

/// Starts the governor; it ends after the session.
pub(super) fn start(governed: Governed) {
    let notes = governed.notes.clone();
    if let Err(error) = vital::spawn("governor", move || governed.run()) {
        let _ = notes.try_send(Input::Note(format!("the overhead budgets are not enforced: {error}")));
    }
}

impl Governed {
    fn run(self) {
        vital::in_no_hurry();
        // A program that has ended by now did not cost enough to be worth a measurement.
        thread::sleep(TICK);
        let ourselves = self.armory.ourselves();
        let prices = calibrate::prices(&*self.armory, &self.sources, &self.recorder.rings);
        drop(ourselves);
        let calibrated = match prices {
            Ok(prices) => prices,
            Err(error) => return self.note(format!("the overhead budgets are not enforced: {error}")),
        };
        self.account.get().hit_ns = calibrated.in_program();
        let cores = thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
        let limits = self.options.limits(cores);
        let mut budget = Budget::new(limits, self.sources.clone());
        let mut meter = Meter::new(&self, calibrated);
        loop {
            thread::sleep(TICK);
            if Arc::strong_count(&self.recorder) == 1 {
                return; // The session is over.
            }
            let adds_up = budget.active().contains(&Source::Switch);
            let reading = meter.read(&self, adds_up);
            let watches_any = || self.armory.with_programs(|programs| programs.watches_any()).unwrap_or(true);
            for action in budget.judge(reading, watches_any) {
                self.act(action, &limits);
            }
            let mut told = self.account.get();
            (told.cost_percent, told.host_percent) = (budget.target_percent(), budget.host_percent());
            told.prices = meter.prices(&self.sources);
        }
    }

    fn act(&self, action: Action, limits: &Limits) {
        match action {
            Action::Pause { source, pause_ns, over, again } => {
                self.account.get().actions += 1;
                self.armory.with_programs(|programs| programs.detach_source(source));
                self.armory.stop_source(source);
                let why = sentence(over, limits);
                self.recorder.is_off(source, format!("paused: {why}"));
                self.account.get().shed.push(source.name().to_owned());
                if !again {
                    let seconds = pause_ns / 1_000_000_000;
                    self.aside(format!("{} paused for {seconds} s: {why}", source.recording()));
                }
            }
            Action::Resume(source) => {
                self.account.get().actions += 1;
                let resumed = self
                    .armory
                    .with_programs(|programs| programs.attach_source(source))
                    .and_then(|()| self.armory.start_source(source));
                match resumed {
                    Ok(()) => {
                        self.recorder.is_on(source);
                        self.account.get().shed.retain(|shed| shed != source.name());
                    }
                    Err(error) => self.note(format!("cannot resume {}: {error}", source.recording())),
                }
            }
            Action::Settled(source) => self.aside(format!("{} resumed", source.recording())),
        }
    }

    fn aside(&self, sentence: String) {
        let _ = self.notes.try_send(Input::Aside(sentence));
    }

    /// Sends a message for the user, if the channel has room: the session may be over.
    fn note(&self, sentence: String) {
        let _ = self.notes.try_send(Input::Note(sentence));
    }
}

/// "over the 1 % overhead budget"
fn sentence(over: Limit, limits: &Limits) -> String {
    let (percent, what) = match over {
        Limit::Target => (limits.target_percent, "overhead budget"),
        Limit::Core => (limits.core_percent, "core limit"),
        Limit::Host => (limits.host_percent, "host budget"),
    };
    percent.map_or_else(|| format!("over the {what}"), |percent| format!("over the {percent} % {what}"))
}

/// Computes costs from the differences between two readings of the counters.
struct Meter {
    calibrated: Prices,
    time_ns: u64,
    counters: Counters,
    /// CPU time that the program at sched_switch had added up by the last reading; `None` if it was not
    /// attached.
    added_up_ns: Option<u64>,
    /// When the CPU time of each watched process was last read, and its values.
    asked: Option<(u64, HashMap<u32, u64>)>,
}

impl Meter {
    fn new(governed: &Governed, calibrated: Prices) -> Meter {
        let counters = governed.recorder.rings.counters();
        Meter { calibrated, time_ns: clock::monotonic_ns(), counters, added_up_ns: None, asked: None }
    }

    /// Returns what happened since the last reading. `adds_up`: whether the program at sched_switch is
    /// attached.
    fn read(&mut self, governed: &Governed, adds_up: bool) -> Reading {
        let rings = &governed.recorder.rings;
        let (time_ns, counters) = (clock::monotonic_ns(), rings.counters());
        let elapsed_ns = time_ns.saturating_sub(self.time_ns);
        let costs = cost::costs(&self.counters, &counters, &self.calibrated);
        let now_ns = adds_up.then(|| rings.watched_cpu_ns(time_ns));
        let before_ns = std::mem::replace(&mut self.added_up_ns, now_ns);
        let added_up = now_ns.zip(before_ns).map(|(now, before)| now.saturating_sub(before));
        let target_ns: f64 = costs.values().map(|cost| cost.target_ns).sum();
        let cpu_ns = added_up.or_else(|| {
            // Within the floor the CPU time is not needed, and reading it takes time for each process.
            (target_ns > FLOOR * elapsed_ns as f64).then(|| self.ask(governed, time_ns))
        });
        (self.time_ns, self.counters) = (time_ns, counters);
        Reading { time_ns, elapsed_ns, costs, cpu_ns }
    }

    /// Returns the CPU time that all watched processes have used since they were last read; 0 unless the next
    /// reading is due.
    fn ask(&mut self, governed: &Governed, time_ns: u64) -> u64 {
        if self.asked.as_ref().is_some_and(|(asked_ns, _)| asked_ns + ASK_NS > time_ns) {
            return 0;
        }
        let watched = governed.armory.with_programs(|programs| programs.watched()).unwrap_or_default();
        let used: HashMap<u32, u64> =
            watched.into_iter().filter_map(|pid| Some((pid, clock::process_cpu_ns(pid)?))).collect();
        let before = self.asked.as_ref().map(|(_, before)| before);
        // A process that was absent at the last reading counts with all its CPU time, except at the first
        // reading.
        let since = |(pid, used): (&u32, &u64)| match before {
            Some(before) => used.saturating_sub(before.get(pid).copied().unwrap_or(0)),
            None => 0,
        };
        let spent = used.iter().map(since).sum();
        self.asked = Some((time_ns, used));
        spent
    }

    fn prices(&self, sources: &[Source]) -> Vec<(String, f64)> {
        let price = |source: &Source| {
            Some((source.name().to_owned(), self.calibrated.of_source(*source, &self.counters)?))
        };
        sources.iter().filter_map(price).collect()
    }
}
