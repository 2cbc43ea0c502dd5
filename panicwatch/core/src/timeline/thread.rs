//! State of one thread over the records: its CPU, its system call, its goroutine.
//!
//! These are three separate values over time. What must have been valid before a record, because nothing else
//! was recorded, is filled in; what is only possible is not. Knows no names.

use panicwatch_common::recorder::{NO_SYSCALL, RAN_LAST, Slot, TIMES_RUN_SHIFT, kind};

use super::steps::Steps;

/// Why a state is unknown: the index of a gap, or `None` if nothing was recorded.
pub(super) type Why = Option<usize>;

/// Placeholder for an unknown CPU of a running thread.
pub(super) const SOME_CPU: u32 = u32::MAX;

/// State of a thread in the kernel's scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sched {
    Unknown(Why),
    /// Running on this CPU.
    On(u32),
    /// Runnable, but not running.
    Ready(Cause),
    /// Waiting, in this task state.
    Blocked(u32),
    /// Not running; whether it was runnable was not recorded.
    Away,
    NotBegun,
    Ended,
}

/// Why a thread is runnable but not running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Preempted in favour of this thread.
    Preempted(Task),
    /// Yielded its CPU to this thread.
    Yielded(Task),
    /// Made runnable by a wake-up.
    Woken,
    /// Made runnable by its creation.
    New,
}

/// A thread of any process, as in records: its pair of IDs, and its name in two words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Task(pub(super) [u64; 3]);

/// System call that a thread is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Unknown(Why),
    /// In no system call.
    User,
    In(u32),
}

/// Goroutine that a thread has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Unknown(Why),
    /// This goroutine; 0 if the thread runs the Go scheduler.
    One {
        id: u64,
        known: Known,
    },
    /// The Go scheduler at both ends of an interval in which goroutines may have run without a record.
    Unseen,
    /// First one goroutine, then another; the time of the change was not recorded.
    Between(u64, u64),
}

/// How it is known which goroutine a thread has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Recorded,
    /// A later record shows this goroutine, and no earlier one shows any.
    Later,
    /// An earlier record shows this goroutine, and no later one shows any.
    Before,
    /// Earlier and later records show this goroutine; whether another ran in between was not recorded.
    Around,
    /// It ran at some time within the interval, but at neither end.
    Within,
}

/// State of a thread that was switched out while in the Go scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RanLast {
    /// Goroutine that ran last on the thread.
    pub(super) goid: u64,
    /// How often that goroutine has stopped running, on any thread, modulo 256: each time it parks, yields or
    /// enters a system call.
    pub(super) stops: u8,
}

impl RanLast {
    /// Returns the state, if the record contains it.
    pub(super) fn of(slot: &Slot) -> Option<RanLast> {
        let is = slot.kind == kind::SWITCH_OUT && slot.extra & RAN_LAST != 0;
        is.then_some(RanLast { goid: slot.goid, stops: (slot.extra >> TIMES_RUN_SHIFT) as u8 })
    }
}

/// Longest interval in which no other goroutine is assumed to have run unrecorded, nanoseconds.
const MOMENT: u64 = 50_000;

impl Holds {
    pub(super) fn id(self) -> Option<u64> {
        match self {
            Holds::One { id, .. } => Some(id),
            Holds::Unknown(_) | Holds::Unseen | Holds::Between(..) => None,
        }
    }
}

/// State of one thread over time.
#[derive(Debug, Clone)]
pub(super) struct Thread {
    pub(super) sched: Steps<Sched>,
    pub(super) call: Steps<Call>,
    pub(super) holds: Steps<Holds>,
    /// Time at which the goroutine was last known for certain.
    sighted_ns: u64,
    /// Goroutine that ran last, at the last switch-out in the Go scheduler, if there was no gap since.
    ran_last: Option<RanLast>,
    sees: Sees,
    /// Time and number of the call that it may be in, if calls were not recorded all the time.
    entered: Option<(u64, u32)>,
}

/// Sources that were recorded all the time, so that a lack of records means that nothing happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sees {
    pub(super) switches: bool,
    pub(super) calls: bool,
    /// Goroutines starting to run on threads.
    pub(super) turns: bool,
}

/// Times up to which records before the current one may be missing: on its CPU, and on any CPU.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blind {
    pub(super) cpu_ns: u64,
    pub(super) any_ns: u64,
}

impl Thread {
    /// Returns a thread with unknown state from `from` on.
    pub(super) fn new(from: u64, why: Why, sees: Sees) -> Self {
        Self {
            sched: Steps::new(from, Sched::Unknown(why)),
            call: Steps::new(from, Call::Unknown(why)),
            holds: Steps::new(from, Holds::Unknown(why)),
            sighted_ns: from,
            ran_last: None,
            sees,
            entered: None,
        }
    }

    /// Sets its scheduler state; if switches were not recorded all the time, the state is known for this
    /// moment only.
    fn goes(&mut self, at: u64, state: Sched) {
        let known = self.sees.switches || matches!(state, Sched::Ended);
        self.sched.set(at, if known { state } else { Sched::Unknown(None) });
    }

    fn was(&mut self, since: u64, at: u64, state: Sched) {
        if !self.sees.switches && state != Sched::NotBegun {
            return;
        }
        if matches!(self.sched.last(), Sched::Unknown(_)) && since.max(self.sched.since()) < at {
            self.sched.rewrite(since, state);
        }
    }

    /// Handles a record that the thread itself made, so it was running.
    pub(super) fn executes(&mut self, at: u64, cpu: u32, blind: Blind) {
        self.was(blind.cpu_ns, at, Sched::On(cpu));
        match *self.sched.last() {
            // A thread still runs between its end and its last switch-out.
            Sched::Ended => {}
            Sched::On(_) if cpu == SOME_CPU => {}
            // It was not migrated since.
            Sched::On(SOME_CPU) => self.sched.rewrite(0, Sched::On(cpu)),
            _ => self.goes(at, Sched::On(cpu)),
        }
    }

    /// Handles a switch-in.
    pub(super) fn switched_in(&mut self, at: u64, cpu: u32, goid: u64, blind: Blind) {
        self.was(blind.any_ns, at, Sched::Away);
        // While it was switched out, its goroutine could not change.
        if matches!(self.sched.last(), Sched::Ready(_) | Sched::Blocked(_) | Sched::Away) {
            self.stayed(at);
        }
        self.goes(at, Sched::On(cpu));
        if goid != 0 {
            self.holds(at, goid, blind);
        }
    }

    /// Handles a switch-out.
    pub(super) fn switched_out(&mut self, at: u64, cpu: u32, to: Sched, blind: Blind) {
        self.executes(at, cpu, blind);
        if *self.sched.last() != Sched::Ended {
            self.goes(at, to);
        }
    }

    /// Handles a wake-up. For a thread that is running or runnable it changes nothing.
    pub(super) fn woken(&mut self, at: u64, blind: Blind) {
        self.was(blind.any_ns, at, Sched::Away);
        if matches!(self.sched.last(), Sched::Blocked(_) | Sched::Away | Sched::Unknown(_)) {
            self.goes(at, Sched::Ready(Cause::Woken));
        }
    }

    /// Handles the creation of the thread.
    pub(super) fn begins(&mut self, at: u64, blind: Blind) {
        self.was(blind.any_ns, at, Sched::NotBegun);
        self.goes(at, Sched::Ready(Cause::New));
        self.leaves_call(at);
        self.became(at, 0);
    }

    /// Handles the end of the thread.
    pub(super) fn ends(&mut self, at: u64, cpu: u32, blind: Blind) {
        self.executes(at, cpu, blind);
        self.goes(at, Sched::Ended);
        self.leaves_call(at);
        self.became(at, 0);
    }

    fn was_in(&mut self, since: u64, at: u64, call: Call) {
        if matches!(self.call.last(), Call::Unknown(_)) && since.max(self.call.since()) < at {
            self.call.rewrite(since, call);
        }
    }

    /// Notes that it is in no call from now on, if calls are recorded.
    fn leaves_call(&mut self, at: u64) {
        self.entered = None;
        self.call.set(at, if self.sees.calls { Call::User } else { Call::Unknown(None) });
    }

    /// Handles a record that shows the thread in no system call.
    pub(super) fn in_user_mode(&mut self, at: u64, blind: Blind) {
        if self.sees.calls {
            self.was_in(blind.any_ns, at, Call::User);
        }
        self.leaves_call(at);
    }

    pub(super) fn enters(&mut self, at: u64, number: u32, blind: Blind) {
        self.in_user_mode(at, blind);
        if self.sees.calls {
            self.call.set(at, Call::In(number));
        } else {
            self.entered = Some((at, number));
        }
    }

    /// Handles the return from this call; the call that ends a signal handler has no number at its return.
    pub(super) fn exits(&mut self, at: u64, number: u32, blind: Blind) {
        let is_it = |entered: u32| number == entered || number == NO_SYSCALL;
        if self.sees.calls && number != NO_SYSCALL {
            self.was_in(blind.any_ns, at, Call::In(number));
        } else if let Some((since, number)) = self.entered.filter(|(_, entered)| is_it(*entered)) {
            self.call.rewrite(since, Call::In(number));
        }
        self.leaves_call(at);
    }

    /// Notes that it could not change its goroutine until `at`.
    fn stayed(&mut self, at: u64) {
        if self.holds.last().id().is_some() {
            self.sighted_ns = at;
        }
    }

    /// Handles a record that shows its goroutine, 0 if it has none.
    pub(super) fn holds(&mut self, at: u64, goid: u64, blind: Blind) {
        if matches!(self.call.last(), Call::In(_)) {
            self.stayed(at);
        }
        let one = |id, known| Holds::One { id, known };
        let since = match *self.holds.last() {
            Holds::Unknown(_) => self.holds.since().max(blind.any_ns),
            _ => self.sighted_ns.max(self.holds.since()),
        };
        if since < at {
            match *self.holds.last() {
                Holds::Unknown(_) => self.holds.rewrite(since, one(goid, Known::Later)),
                Holds::One { id, .. } if id == goid => {
                    if !self.sees.turns && at - since > MOMENT {
                        let around = if id == 0 { Holds::Unseen } else { one(id, Known::Around) };
                        self.holds.rewrite(since, around);
                    }
                }
                Holds::One { id: 0, .. } => self.holds.rewrite(since, one(goid, Known::Later)),
                Holds::One { id, .. } if goid == 0 => self.holds.rewrite(since, one(id, Known::Before)),
                Holds::One { id, .. } => self.holds.rewrite(since, Holds::Between(id, goid)),
                Holds::Between(..) | Holds::Unseen => {}
            }
        }
        self.holds.set(at, one(goid, Known::Recorded));
        self.sighted_ns = at;
    }

    /// Handles a switch-out in the Go scheduler, with the goroutine that ran last. If that is unchanged since
    /// the last such switch-out, no goroutine ran on the thread in between; for an interval longer than
    /// [`MOMENT`] this is marked as inferred, because 256 stops look like none, and a goroutine stopped for
    /// the garbage collector is not counted.
    pub(super) fn rests(&mut self, at: u64, last: RanLast, blind: Blind) {
        let before = self.ran_last.replace(last);
        if matches!(self.call.last(), Call::In(_)) {
            self.stayed(at);
        }
        let since = self.sighted_ns.max(self.holds.since());
        let one = |id, known| Holds::One { id, known };
        let held = match (before, *self.holds.last()) {
            _ if self.sees.turns || since >= at => None,
            (Some(before), Holds::One { id: 0, .. }) if before != last => Some(one(last.goid, Known::Within)),
            (Some(_), Holds::One { id: 0, .. }) => (at - since > MOMENT).then_some(one(0, Known::Around)),
            (_, Holds::One { id, .. }) if id != 0 && id == last.goid => Some(one(id, Known::Before)),
            (_, Holds::One { id, .. }) if id != 0 => Some(Holds::Between(id, last.goid)),
            _ => return self.holds(at, 0, blind),
        };
        if let Some(held) = held {
            self.holds.rewrite(since, held);
        }
        self.became(at, 0);
    }

    /// Sets its goroutine from exactly this time on, 0 if it has none.
    pub(super) fn became(&mut self, at: u64, goid: u64) {
        self.holds.set(at, Holds::One { id: goid, known: Known::Recorded });
        self.sighted_ns = at;
    }

    /// Ends the replay of the thread. Which goroutine it had since its last record is only inferred, and
    /// unknown from the first of the `gaps` (from, to, index) on, whose lost records may have shown the
    /// goroutine elsewhere. If goroutine turns were recorded all the time, the thread's own records would
    /// have shown the goroutine leave.
    pub(super) fn closes(&mut self, to: u64, gaps: &[(u64, u64, usize)]) {
        let Holds::One { id, known: Known::Recorded } = *self.holds.last() else { return };
        if self.sees.turns || id == 0 || to.saturating_sub(self.sighted_ns) <= MOMENT {
            return;
        }
        let since = self.sighted_ns.max(self.holds.since());
        self.holds.set(since, Holds::One { id, known: Known::Before });
        if let Some((from, _, gap)) = gaps.iter().find(|(_, to, _)| *to > since) {
            self.holds.set(since.max(*from), Holds::Unknown(Some(*gap)));
        }
    }

    /// Makes all states unknown from `at` on, because lost records may have changed them.
    pub(super) fn lost(&mut self, at: u64, gap: usize) {
        if matches!(self.sched.last(), Sched::NotBegun | Sched::Ended) {
            return;
        }
        self.sched.set(at, Sched::Unknown(Some(gap)));
        self.call.set(at, Call::Unknown(Some(gap)));
        self.holds.set(at, Holds::Unknown(Some(gap)));
        self.sighted_ns = at;
        self.ran_last = None;
        self.entered = None;
    }
}
