//! Repeatable random numbers (splitmix64).

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// A splitmix64 generator.
pub(crate) struct Random(u64);

/// Returns a seed that differs from run to run and is short enough to type.
pub(crate) fn fresh_seed() -> u64 {
    RandomState::new().build_hasher().finish() % 1_000_000_000
}

impl Random {
    /// Returns the generator of one scenario.
    pub(crate) fn new(seed: u64, scenario: &str) -> Random {
        // FNV-1a: std's hashers do not guarantee the same value in later releases.
        let hash = scenario.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Random(seed ^ hash)
    }

    /// Returns 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `end`, which must not be 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn a_seed_repeats_and_scenarios_differ() {
        let numbers = |seed, name| {
            let mut random = Random::new(seed, name);
            [random.next(), random.next(), random.next()]
        };
        assert_eq!(numbers(7, "kills"), numbers(7, "kills"));
        assert_ne!(numbers(7, "kills"), numbers(8, "kills"));
        assert_ne!(numbers(7, "kills"), numbers(7, "suites"));
    }
}
