//! Go stacks: unwinding them as the runtime does, and choosing the frames its traceback would print. Pure.
//!
//! [`Unwinder`] gives physical frames from memory, a binary and a start; [`traceback`] gives what Go prints of them;
//! [`creator`] and [`shows_creator`] are the "created by" line. Knows no events and no process: memory is
//! whatever [`crate::go::memory::Memory`] was captured.

mod print;
mod show;
mod unwind;

pub use self::{
    print::{Gap, Traceback, creator, shows_creator, traceback},
    show::Visibility,
    unwind::{DEFAULT_MAX_FRAMES, End, Stack, StackFrame, Start, Unwinder, UserStack},
};
