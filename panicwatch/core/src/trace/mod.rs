//! Live tracing of functions: from the records of the ring to lines with caller, time, arguments and results.
//!
//! [`pattern`](crate::go::pattern) selects functions, [`tree`] tracks the calls in progress, [`filter`]
//! selects calls, [`line`](mod@line) has the fields of an event, and [`text`] and [`perfetto`] render it.
//! [`values`] decodes captured arguments. There is no I/O: the module does not depend on how records are read
//! or where lines are written.

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
