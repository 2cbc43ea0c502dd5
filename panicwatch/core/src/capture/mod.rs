//! What was captured, seen through the binary it is of. Pure; must not know what becomes of it.

mod loaded;

pub use loaded::{Program, View};
