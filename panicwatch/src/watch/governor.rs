//! Keeps the recorder within its budget, on a thread of its own: reads the counters, asks `recorder::budget`, takes
//! sources off and puts them back, and says so.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc::SyncSender},
    thread,
    time::Duration,
};

use super::{armory::Armory, flight::Recorder, session::Input};
use crate::{
    clock::Clock,
    probe::{calibrate, error::ProbeError, object::Programs, rings::MappedRings},
    recorder::{
        Options, Source,
        budget::{Action, Budget, Reading},
    },
    vital,
};

/// Between two readings.
const TICK: Duration = Duration::from_millis(250);

/// What the governor tells of itself.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// Sources that are off now.
    pub shed: Vec<String>,
    /// Times that it took one off or put one back.
    pub actions: u64,
    /// What recording costs, percent of the watched processes' CPU time; `None` until measured.
    pub cost_percent: Option<f64>,
    /// What a hit of a probe in a program costs here, nanoseconds; `None` until measured.
    pub hit_ns: Option<f64>,
    /// What a run of each source's programs costs here, nanoseconds; of those that were measured.
    pub prices: Vec<(String, f64)>,
}

/// Where it tells that.
#[derive(Debug, Clone, Default)]
pub(super) struct Account(Arc<Mutex<Told>>);

impl Account {
    pub(super) fn get(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the governor governs.
pub(super) struct Governed {
    pub(super) armory: Arc<Armory>,
    pub(super) recorder: Arc<Recorder>,
    /// What is recorded at first.
    pub(super) sources: Vec<Source>,
    pub(super) options: Options,
    pub(super) notes: SyncSender<Input>,
    pub(super) account: Account,
}

/// Starts it; it ends when the session has.
pub(super) fn start(governed: Governed) {
    let notes = governed.notes.clone();
    if let Err(error) = vital::spawn("governor", move || governed.run()) {
        let _ = notes.try_send(Input::Note(format!("the recorder's budget is not kept: {error}")));
    }
}

impl Governed {
    fn run(self) {
        vital::in_no_hurry();
        // A program that is over by now has cost nothing worth a measurement.
        thread::sleep(TICK);
        let ourselves = self.armory.ourselves();
        let prices = calibrate::prices(&*self.armory, &self.sources, &self.recorder.rings);
        drop(ourselves);
        let calibrated = match prices {
            Ok(prices) => prices,
            Err(error) => return self.note(format!("the recorder's budget is not kept: {error}")),
        };
        self.account.get().hit_ns = calibrated.in_program();
        let cores = thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
        let limit = (self.options.core_limit_percent, cores);
        let mut budget =
            Budget::new(self.options.budget_percent, limit, calibrated.felt(), self.sources.clone());
        let mut meter = Meter::default();
        let _ = self.armory.with_programs(|programs| meter.read(programs, &self.recorder.rings));
        loop {
            thread::sleep(TICK);
            if Arc::strong_count(&self.recorder) == 1 {
                return; // The session is over.
            }
            let Ok((reading, elapsed_ns)) =
                self.armory.with_programs(|programs| meter.read(programs, &self.recorder.rings))
            else {
                continue;
            };
            let prices = calibrated.with(&self.recorder.rings.timed());
            budget.reprice(prices.felt());
            for action in budget.judge(reading, elapsed_ns) {
                self.account.get().actions += 1;
                self.act(action);
            }
            let mut told = self.account.get();
            told.cost_percent = Some(budget.cost_percent());
            let price = |source: &Source| Some((source.name().to_owned(), prices.of_source(*source)?));
            told.prices = self.sources.iter().filter_map(price).collect();
        }
    }

    fn act(&self, action: Action) {
        match action {
            Action::Shed { source, cost, capped } => {
                self.armory.with_programs(|programs| programs.detach_source(source));
                self.armory.stop_source(source);
                let limit = if capped {
                    format!(
                        "no more than {} % of a core is spent, whatever the budget",
                        self.options.core_limit_percent
                    )
                } else {
                    format!("the budget is {} %", self.options.budget_percent)
                };
                let why = format!("it cost {cost:.1} % of the CPU time of what is watched; {limit}");
                self.aside(format!("{} is not recorded for a while: {why}", source.name()));
                self.recorder.is_off(source, why);
                self.account.get().shed.push(source.name().to_owned());
            }
            Action::Resume(source) => {
                let again = self
                    .armory
                    .with_programs(|programs| programs.attach_source(source))
                    .and_then(|()| self.armory.start_source(source));
                match again {
                    Ok(()) => {
                        self.recorder.is_on(source);
                        self.account.get().shed.retain(|shed| shed != source.name());
                        self.aside(format!("{} is recorded again", source.name()));
                    }
                    Err(error) => self.note(format!("{} is not recorded any more: {error}", source.name())),
                }
            }
        }
    }

    fn aside(&self, sentence: String) {
        let _ = self.notes.try_send(Input::Aside(sentence));
    }

    /// Not waited for: the session may be over.
    fn note(&self, sentence: String) {
        let _ = self.notes.try_send(Input::Note(sentence));
    }
}

/// The counters as they were at the last reading.
#[derive(Default)]
struct Meter {
    time_ns: u64,
    hits: Vec<u64>,
    cpu_ns: HashMap<u32, u64>,
}

impl Meter {
    /// What happened since the last reading, and how long ago that was, nanoseconds.
    fn read(&mut self, programs: &mut Programs, rings: &MappedRings) -> Result<(Reading, u64), ProbeError> {
        let now = Clock::monotonic_ns();
        let hits = rings.hits();
        let mut cpu_ns = 0;
        let mut seen = HashMap::new();
        for pid in programs.watched()? {
            let Some(used) = Clock::process_cpu_ns(pid) else { continue };
            // Of a new one, all that it used so far.
            cpu_ns += used.saturating_sub(self.cpu_ns.get(&pid).copied().unwrap_or(0));
            seen.insert(pid, used);
        }
        let since = |kind: usize, hits: u64| hits - self.hits.get(kind).copied().unwrap_or(0);
        let delta = hits.iter().enumerate().map(|(kind, n)| since(kind, *n)).collect();
        let elapsed = now - self.time_ns;
        (self.time_ns, self.hits, self.cpu_ns) = (now, hits, seen);
        Ok((Reading { time_ns: now, hits: delta, cpu_ns }, elapsed))
    }
}
