//! What was captured: ring records put together ([`event`]), seen through the binary they are of, and the
//! incidents that they make ([`correlate`]). Pure.

pub mod correlate;
pub mod event;
mod loaded;

pub use loaded::{Program, View};
