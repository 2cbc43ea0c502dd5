//! The incident store: what docs/store.md promises, against a naive model, killed processes, full disks and damaged files.

mod appending;
mod crash;
mod damage;
mod disk;
mod growth;
mod made;
mod outbox;
mod query;
mod small;
