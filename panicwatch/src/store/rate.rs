//! How many incidents of one group are kept: of a storm of the same defect a few tell enough, the rest is counted.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// The time over which a rate is taken.
const SPAN: Duration = Duration::from_secs(60);
/// Beyond the rate one in so many is kept.
const SAMPLED: u64 = 100;
/// Groups that are remembered: more begin anew.
const MAX_GROUPS: usize = 10_000;

/// Rates by fingerprint.
#[derive(Debug)]
pub struct GroupRate {
    per_minute: u32,
    groups: HashMap<String, (Instant, u64)>,
}

impl GroupRate {
    /// `per_minute` of a group are kept; 0: all are.
    pub fn new(per_minute: u32) -> GroupRate {
        GroupRate { per_minute, groups: HashMap::new() }
    }

    /// Shall this one be kept?
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
