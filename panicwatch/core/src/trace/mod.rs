//! Live tracing of functions: from the records of the ring to lines that say who called what, when and with what.
//!
//! [`pattern`](crate::go::pattern) says which functions are meant, [`tree`] which calls are under way, [`filter`] which of them are told,
//! [`line`](mod@line) what is told; [`text`] and [`perfetto`] render it. Pure but for [`values`] reading what was
//! captured. Must not know how the records are got or where the lines go.

pub mod bias;
pub mod filter;
pub mod line;
pub mod merge;
pub mod perfetto;
pub mod record;
pub mod text;
mod tracer;
pub mod tree;
pub mod values;

pub use tracer::{Callers, Options, Told, Tracer, Values};
