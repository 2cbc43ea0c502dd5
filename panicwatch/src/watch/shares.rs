//! Rate limit of timelines, shared fairly between groups of incidents. Pure: the caller passes the time.
//!
//! Groups are identified before the fingerprint is known: by the binary, the value's type and the addresses
//! of the innermost frames.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use panicwatch_common::{event::kind, reg, ucontext};

use crate::{
    event::{Body, Event},
    memory::Memory as _,
};

/// Timelines per second, of all groups together.
pub(super) const PER_SECOND: f64 = 20.0;
/// Most timelines that can be saved up, of all groups together: a few of a storm are enough.
const MAX_SAVED: f64 = 100.0;
/// A group without an incident for this long has no share, nanoseconds.
const ACTIVE_NS: u64 = 10_000_000_000;
/// Most groups that are remembered. Beyond that, the one whose last incident is oldest is forgotten; its next
/// incident counts as its first.
const MAX_GROUPS: usize = 1024;
/// Number of frames that identify a group.
const FRAMES: usize = 12;

/// Remaining share of one group.
#[derive(Debug, Clone, Copy)]
struct Share {
    saved: f64,
    asked_ns: u64,
}

/// The remaining shares of all groups.
#[derive(Debug, Default)]
pub(super) struct Shares {
    groups: HashMap<u64, Share>,
}

impl Shares {
    /// Takes one timeline of `group`'s share; returns `false` if the share is used up. The first incident of
    /// a group always gets one.
    pub(super) fn take(&mut self, group: u64, now_ns: u64) -> bool {
        let is_active = |share: &Share| now_ns.saturating_sub(share.asked_ns) < ACTIVE_NS;
        let others = self.groups.iter().filter(|(other, share)| **other != group && is_active(share)).count();
        let active = (others + 1) as f64;
        let most = MAX_SAVED / active;
        if let Some(share) = self.groups.get_mut(&group) {
            let seconds = now_ns.saturating_sub(share.asked_ns) as f64 / 1e9;
            share.saved = (share.saved + seconds * PER_SECOND / active).min(most);
            share.asked_ns = now_ns;
            let takes = share.saved >= 1.0;
            share.saved -= if takes { 1.0 } else { 0.0 };
            return takes;
        }
        if self.groups.len() >= MAX_GROUPS
            && let Some(oldest) = self.groups.iter().min_by_key(|(_, share)| share.asked_ns).map(|(g, _)| *g)
        {
            self.groups.remove(&oldest);
        }
        self.groups.insert(group, Share { saved: most - 1.0, asked_ns: now_ns });
        true
    }
}

/// Returns the group of the incident that may begin with `event`. `bias` is the load bias of its process: the
/// same defect has the same group in every process of a binary.
pub(super) fn group(event: &Event, bias: u64) -> u64 {
    let mut hash = DefaultHasher::new();
    (event.head.binary, event.head.kind).hash(&mut hash);
    let Body::Capture(capture) = &event.body else { return hash.finish() };
    let register = |index: usize| capture.regs.words.get(index).copied().unwrap_or(0);
    match event.head.kind {
        kind::PANIC => {
            register(reg::RAX).wrapping_sub(bias).hash(&mut hash);
            let (mut at, mut frame) = (register(reg::RSP), register(reg::RBP));
            for _ in 0..FRAMES {
                let Some(pc) = event.memory.u64(at) else { break };
                pc.wrapping_sub(bias).hash(&mut hash);
                let Some(caller) = event.memory.u64(frame) else { break };
                (at, frame) = (frame.wrapping_add(8), caller);
            }
        }
        kind::SIGNAL => {
            let pc = event.memory.u64(register(reg::RCX).wrapping_add(ucontext::RIP));
            pc.map(|pc| pc.wrapping_sub(bias)).hash(&mut hash);
        }
        _ => {}
    }
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Simulates incidents of `groups`, each with its rate per second, from `from_s` for `seconds`; returns
    /// how many had a timeline.
    fn made(shares: &mut Shares, groups: &[(u64, u64)], from_s: u64, seconds: u64) -> HashMap<u64, u64> {
        let mut times: Vec<(u64, u64)> = Vec::new();
        for (group, per_second) in groups {
            let each = SECOND / per_second;
            times.extend((0..per_second * seconds).map(|n| (from_s * SECOND + n * each, *group)));
        }
        times.sort_unstable();
        let mut made = HashMap::new();
        for (time, group) in times {
            *made.entry(group).or_default() += u64::from(shares.take(group, time));
        }
        made
    }

    #[test]
    fn one_group_has_all_of_them() {
        let mut shares = Shares::default();
        let made = made(&mut shares, &[(1, 200)], 0, 10);
        assert!((295..=300).contains(&made[&1]), "100 saved and 20 a second: {made:?}");
    }

    #[test]
    fn a_noisy_group_starves_no_other() {
        let mut shares = Shares::default();
        made(&mut shares, &[(1, 200)], 0, 60);
        // Its savings are gone. Now another group has one incident per second, which is less than its share.
        let made = made(&mut shares, &[(1, 200), (2, 1)], 60, 10);
        assert_eq!(made[&2], 10, "{made:?}");
        assert!((95..=105).contains(&made[&1]), "half of 20 a second: {made:?}");
    }

    #[test]
    fn noisy_groups_share_evenly() {
        let mut shares = Shares::default();
        let groups = [(1, 200), (2, 50), (3, 100), (4, 200)];
        made(&mut shares, &groups, 0, 60);
        let made = made(&mut shares, &groups, 60, 20);
        for (group, n) in &made {
            assert!((95..=105).contains(n), "group {group}: a quarter of 20 a second: {made:?}");
        }
    }

    #[test]
    fn the_first_incident_of_each_group_has_one() {
        let mut shares = Shares::default();
        made(&mut shares, &[(1, 200)], 0, 10);
        let at = 10 * SECOND;
        assert!((100..1100).all(|group| shares.take(group, at)), "a thousand groups at one moment");
        assert!(!shares.take(1, at), "the noisy one has used up its share");
        assert!(shares.groups.len() <= MAX_GROUPS);
    }

    #[test]
    fn a_share_returns_when_others_fall_silent() {
        let mut shares = Shares::default();
        made(&mut shares, &[(1, 100), (2, 100)], 0, 60);
        let made = made(&mut shares, &[(1, 100)], 75, 10);
        assert!((270..=301).contains(&made[&1]), "100 saved and 20 a second: {made:?}");
    }
}
