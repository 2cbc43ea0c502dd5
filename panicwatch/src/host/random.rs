//! Random bits. Must not know what they are for.

use std::hash::{BuildHasher, RandomState};

/// 128 of them; `RandomState` is seeded by the system.
pub fn bits() -> u128 {
    let word = || u128::from(RandomState::new().hash_one(0u8));
    word() << 64 | word()
}
