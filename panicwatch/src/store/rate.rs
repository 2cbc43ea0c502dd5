//! Limits how many incidents of one group are kept: a few incidents of a panic storm are enough, the rest are
//! only counted.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Period of the rate.
const SPAN: Duration = Duration::from_secs(60);
/// Beyond the rate, one in this many incidents is kept.
const SAMPLED: u64 = 100;
/// Maximum number of groups to remember; beyond it the expired ones are forgotten, or all if none has
/// expired.
const MAX_GROUPS: usize = 10_000;

/// Start of the current period and incidents in it, by fingerprint.
#[derive(Debug)]
pub struct GroupRate {
    per_minute: u32,
    groups: HashMap<String, (Instant, u64)>,
}

impl GroupRate {
    /// Keeps `per_minute` incidents of each group; 0: all.
    pub fn new(per_minute: u32) -> GroupRate {
        GroupRate { per_minute, groups: HashMap::new() }
    }

    /// Counts an incident, and reports whether to keep it.
    pub fn keep(&mut self, fingerprint: &str, now: Instant) -> bool {
        if self.per_minute == 0 {
            return true;
        }
        if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(fingerprint) {
            self.groups.retain(|_, (since, _)| now.duration_since(*since) < SPAN);
            if self.groups.len() >= MAX_GROUPS {
                self.groups.clear();
            }
        }
        let (since, n) = self.groups.entry(fingerprint.to_owned()).or_insert((now, 0));
        if now.duration_since(*since) >= SPAN {
            (*since, *n) = (now, 0);
        }
        *n += 1;
        *n <= u64::from(self.per_minute) || n.is_multiple_of(SAMPLED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_rate_a_sample() {
        let mut rate = GroupRate::new(10);
        let now = Instant::now();
        let kept = (0..1000).filter(|_| rate.keep("a", now)).count();
        assert_eq!(kept, 10 + 10);
        assert!(rate.keep("b", now), "another group");
        assert!(rate.keep("a", now + SPAN), "another minute");
        let mut all = GroupRate::new(0);
        assert!((0..1000).all(|_| all.keep("a", now)));
    }
}
