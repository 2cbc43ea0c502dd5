//! One thread through the records: on which CPU, in which system call, with which goroutine.
//!
//! What records say is kept apart in three values over time. What must have held before a record, because nothing else
//! was recorded, is filled in; what may have held is not. Knows no names.

use panicwatch_common::recorder::{NO_SYSCALL, RAN_LAST, Slot, TIMES_RUN_SHIFT, kind};

use super::steps::Steps;

/// Why something is not known: the number of a gap, or that nothing was recorded of it.
pub(super) type Why = Option<usize>;

/// "It ran, on which CPU was not recorded."
pub(super) const SOME_CPU: u32 = u32::MAX;

/// Where a thread is, for the kernel's scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sched {
    Unknown(Why),
    /// It runs.
    On(u32),
    /// It could run.
    Ready(Cause),
    /// It waits in this task state.
    Blocked(u32),
    /// It does not run; whether it could was not recorded.
    Away,
    NotBegun,
    Ended,
}

/// Why a thread could run and does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Its CPU was taken away, for this thread.
    Preempted(Task),
    /// It gave its CPU up, for this thread.
    Yielded(Task),
    /// It was woken.
    Woken,
    /// It has just been created.
    New,
}

/// A thread of any process: its pair and its name in two words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Task(pub(super) [u64; 3]);

/// Which system call a thread is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Unknown(Why),
    /// None.
    User,
    In(u32),
}

/// Which goroutine a thread has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Unknown(Why),
    /// This one, 0: none, it runs the Go scheduler.
    One {
        id: u64,
        known: Known,
    },
    /// The Go scheduler at both ends of a time in which goroutines may have had their turns unseen.
    Unseen,
    /// First one, then another, and the moment of change was not recorded.
    Between(u64, u64),
}

/// How it is known which goroutine a thread has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Recorded,
    /// It was seen to have it later, and none before.
    Later,
    /// It was seen to have it before, and none later.
    Before,
    /// It was seen to have it before and later; whether another had its turn between was not recorded.
    Around,
    /// It had it at some time within, at neither end.
    Within,
}

/// A thread in the Go scheduler, where it leaves its CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RanLast {
    /// The goroutine that ran last on it.
    pub(super) goid: u64,
    /// How often that one has stopped running, on any thread, modulo 256: whenever it parks, yields or enters a system call.
    pub(super) stops: u8,
}

impl RanLast {
    /// What a record says of that.
    pub(super) fn of(slot: &Slot) -> Option<RanLast> {
        let is = slot.kind == kind::SWITCH_OUT && slot.extra & RAN_LAST != 0;
        is.then_some(RanLast { goid: slot.goid, stops: (slot.extra >> TIMES_RUN_SHIFT) as u8 })
    }
}

/// For shorter than that no other goroutine is taken to have had its turn, nanoseconds.
const MOMENT: u64 = 50_000;

impl Holds {
    pub(super) fn id(self) -> Option<u64> {
        match self {
            Holds::One { id, .. } => Some(id),
            Holds::Unknown(_) | Holds::Unseen | Holds::Between(..) => None,
        }
    }
}

/// One thread.
#[derive(Debug, Clone)]
pub(super) struct Thread {
    pub(super) sched: Steps<Sched>,
    pub(super) call: Steps<Call>,
    pub(super) holds: Steps<Holds>,
    /// When the goroutine was last known for certain.
    sighted_ns: u64,
    /// The goroutine that ran last when it was last seen in the Go scheduler without a gap since.
    ran_last: Option<RanLast>,
    sees: Sees,
    /// The call it may be in, where calls were not recorded all the time.
    entered: Option<(u64, u32)>,
}

/// What was recorded all the time, so that no record means that nothing happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sees {
    pub(super) switches: bool,
    pub(super) calls: bool,
    /// The turns of goroutines on threads.
    pub(super) turns: bool,
}

/// Until when records may be missing before the one at hand: of its CPU, of any CPU.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blind {
    pub(super) cpu_ns: u64,
    pub(super) any_ns: u64,
}

impl Thread {
    /// One of which nothing is known from `from` on.
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

    /// Where it is now; without switches that holds for this very moment only.
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

    /// A record that the thread itself made: it ran.
    pub(super) fn executes(&mut self, at: u64, cpu: u32, blind: Blind) {
        self.was(blind.cpu_ns, at, Sched::On(cpu));
        match *self.sched.last() {
            // Between its end and its last switch a thread still runs.
            Sched::Ended => {}
            Sched::On(_) if cpu == SOME_CPU => {}
            // It came to no other since.
            Sched::On(SOME_CPU) => self.sched.rewrite(0, Sched::On(cpu)),
            _ => self.goes(at, Sched::On(cpu)),
        }
    }

    /// It gets a CPU.
    pub(super) fn switched_in(&mut self, at: u64, cpu: u32, goid: u64, blind: Blind) {
        self.was(blind.any_ns, at, Sched::Away);
        // While it was away its goroutine could not change.
        if matches!(self.sched.last(), Sched::Ready(_) | Sched::Blocked(_) | Sched::Away) {
            self.stayed(at);
        }
        self.goes(at, Sched::On(cpu));
        if goid != 0 {
            self.holds(at, goid, blind);
        }
    }

    /// It leaves its CPU.
    pub(super) fn switched_out(&mut self, at: u64, cpu: u32, to: Sched, blind: Blind) {
        self.executes(at, cpu, blind);
        if *self.sched.last() != Sched::Ended {
            self.goes(at, to);
        }
    }

    /// It is woken. One that runs, or could, does not sleep after all: nothing changes.
    pub(super) fn woken(&mut self, at: u64, blind: Blind) {
        self.was(blind.any_ns, at, Sched::Away);
        if matches!(self.sched.last(), Sched::Blocked(_) | Sched::Away | Sched::Unknown(_)) {
            self.goes(at, Sched::Ready(Cause::Woken));
        }
    }

    /// It is created.
    pub(super) fn begins(&mut self, at: u64, blind: Blind) {
        self.was(blind.any_ns, at, Sched::NotBegun);
        self.goes(at, Sched::Ready(Cause::New));
        self.leaves_call(at);
        self.became(at, 0);
    }

    /// It ends.
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

    /// From now on it is in no call, if calls are recorded.
    fn leaves_call(&mut self, at: u64) {
        self.entered = None;
        self.call.set(at, if self.sees.calls { Call::User } else { Call::Unknown(None) });
    }

    /// It is in no system call.
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

    /// It returns from this call; a signal's handler ends by one that has no number any more.
    pub(super) fn exits(&mut self, at: u64, number: u32, blind: Blind) {
        let is_it = |entered: u32| number == entered || number == NO_SYSCALL;
        if self.sees.calls && number != NO_SYSCALL {
            self.was_in(blind.any_ns, at, Call::In(number));
        } else if let Some((since, number)) = self.entered.filter(|(_, entered)| is_it(*entered)) {
            self.call.rewrite(since, Call::In(number));
        }
        self.leaves_call(at);
    }

    /// Until `at` it could not change its goroutine.
    fn stayed(&mut self, at: u64) {
        if self.holds.last().id().is_some() {
            self.sighted_ns = at;
        }
    }

    /// A record says that it has this goroutine, 0: none.
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

    /// It is in the Go scheduler, and this goroutine ran last. If that is so since it was last seen there, no goroutine ran on it
    /// in between; for longer than a [`MOMENT`] that is inferred, because 256 stops look like none, and a goroutine that is stopped
    /// for the collector is not counted.
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

    /// From this very moment on it has this goroutine, 0: none.
    pub(super) fn became(&mut self, at: u64, goid: u64) {
        self.holds.set(at, Holds::One { id: goid, known: Known::Recorded });
        self.sighted_ns = at;
    }

    /// No more records of it: which goroutine it had from the last sight of it on is a guess, and nothing at all is known
    /// from where (`gaps`: from, to, number) records are missing that may have shown that goroutine elsewhere. Where
    /// turns are recorded, its own records would have shown it go.
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

    /// Records may be missing from `at` on that would have changed everything.
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
