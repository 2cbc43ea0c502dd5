//! Go stacks: unwinds them as the runtime does, and selects the frames that its traceback would print. Pure.
//!
//! [`Unwinder`] yields physical frames from memory, a binary and a start; [`traceback`] returns the frames
//! that Go prints; [`creator`] and [`shows_creator`] produce the "created by" line. Knows no events and no
//! process: memory is whatever [`crate::go::memory::Memory`] was captured.

mod print;
mod show;
mod unwind;

pub use self::{
    print::{Gap, Traceback, creator, shows_creator, traceback},
    show::Visibility,
    unwind::{DEFAULT_MAX_FRAMES, End, Stack, StackFrame, Start, Unwinder, UserStack},
};
