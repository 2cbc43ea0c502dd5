//! What the fuzz targets do with their input.
//!
//! Tables that make sense in a whole program only are fuzzed in whole programs ([`base`]): the input is a list of
//! patches. The rest is the content of a small ELF file ([`elf`]). Knows panicwatch's public interface alone.

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
