//! How long the main process waits before it restarts a gate process that has ended. Pure.

use std::time::Duration;

/// Delay before the first restart; doubled each time, up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// A gate process that has served this long is healthy: the delay starts again at [`FIRST`].
const HEALTHY: Duration = Duration::from_secs(60);

/// Delays before restarts: exponential back-off.
#[derive(Debug)]
pub(super) struct Pauses {
    next: Duration,
}

impl Default for Pauses {
    fn default() -> Pauses {
        Pauses { next: FIRST }
    }
}

impl Pauses {
    /// Notes that a gate process that had served for `time` has ended.
    pub(super) fn served(&mut self, time: Duration) {
        if time >= HEALTHY {
            self.next = FIRST;
        }
    }

    /// Returns the delay before the next attempt to restart it.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_it_fails_and_start_again_after_a_healthy_time() {
        let mut pauses = Pauses::default();
        let mut seconds = |served: u64| {
            pauses.served(Duration::from_secs(served));
            pauses.next().as_secs()
        };
        assert_eq!([0, 0, 59, 0, 0, 0, 0, 0].map(&mut seconds), [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!([60, 0, 1_000_000, 0].map(&mut seconds), [1, 2, 1, 2]);
    }
}
