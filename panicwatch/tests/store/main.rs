//! The incident store: checks what docs/store.md promises, with a naive model, killed processes, full disks
//! and damaged files.

mod appending;
mod crash;
mod damage;
mod disk;
mod growth;
mod made;
mod outbox;
mod query;
mod small;
