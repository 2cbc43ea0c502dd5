//! The incident store: what docs/store.md promises, against a naive model, killed processes, full disks and damaged files.

#![expect(clippy::print_stdout, reason = "tests say what they measured and what they left out")]

mod appending;
mod crash;
mod damage;
mod disk;
mod growth;
mod made;
mod outbox;
mod query;
