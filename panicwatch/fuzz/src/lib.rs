//! Implementation of the fuzz targets.
//!
//! Tables that make sense only in a whole program are fuzzed in whole programs ([`base`]): the input is a
//! list of patches. All other inputs become the content of a small ELF file ([`elf`]). Uses only panicwatch's
//! public interface.

mod base;
#[path = "../../tests/support/elf_file.rs"]
mod elf_file;
#[path = "../../tests/support/exercise.rs"]
mod exercise;
mod overlay;
mod records;
mod small;

pub use self::{
    overlay::{elf, gotype, inline_tree, moduledata, pclntab},
    records::event_decode,
    small::{buildinfo, dwarf},
};
