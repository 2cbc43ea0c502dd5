//! Data of a binary besides the bytes of one function, behind a trait so that tests can replace it.

use std::borrow::Cow;

use panicwatch_common::go::STRING_LEN;

use crate::go::{
    gobin::{GoBinary, tables},
    gotype::{TypeContext, Types},
    memory::Memory as _,
    release::Release,
};

/// Maximum length of a text, in bytes; longer ones are omitted.
const MAX_TEXT: u64 = 4096;

/// Source position of an instruction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) function: Option<String>,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
}

pub(super) trait Image {
    /// Returns the Go release that built it.
    fn release(&self) -> Release;
    /// Returns the name of the function that begins at this address.
    fn function_at(&self, address: u64) -> Option<String>;
    /// Returns PCDATA_PanicBounds at a call.
    fn bounds(&self, call: u64) -> Option<i32>;
    /// Returns the name of the type whose descriptor is at this address.
    fn type_name(&self, descriptor: u64) -> Option<String>;
    /// Returns the read-only word at this address.
    fn word(&self, address: u64) -> Option<u64>;
    /// Returns read-only text of this length.
    fn text(&self, address: u64, len: u64) -> Option<String>;
    /// Returns the text of the read-only string header at this address.
    fn string(&self, header: u64) -> Option<String>;
    /// Decodes an `abi.TypeAssert`: the interface's descriptor, and whether a failure is allowed.
    fn type_assert(&self, address: u64) -> Option<(u64, bool)>;
    /// Returns the source position of an instruction.
    fn place(&self, address: u64) -> Place;
}

impl Image for GoBinary {
    fn release(&self) -> Release {
        self.version().release
    }

    fn function_at(&self, address: u64) -> Option<String> {
        let function = self.find_func(address).filter(|f| f.entry() == address)?;
        Some(function.name().into_owned())
    }

    fn bounds(&self, call: u64) -> Option<i32> {
        self.find_func(call)?.pcdata(tables::PCDATA_PANIC_BOUNDS, call)
    }

    fn type_name(&self, descriptor: u64) -> Option<String> {
        let memory = self.read_only_memory(0);
        let context = TypeContext::of(self, 0);
        if !context.sections.iter().any(|s| (s.types..s.etypes).contains(&descriptor)) {
            return None;
        }
        let types = Types::new(&memory, &context);
        types.name(&types.get(descriptor).ok()?).ok()
    }

    fn word(&self, address: u64) -> Option<u64> {
        self.read_only_memory(0).u64(address)
    }

    fn text(&self, address: u64, len: u64) -> Option<String> {
        if len > MAX_TEXT {
            return None;
        }
        let bytes = self.read_only_memory(0).bytes(address, usize::try_from(len).ok()?)?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn string(&self, header: u64) -> Option<String> {
        let memory = self.read_only_memory(0);
        self.text(memory.u64(header)?, memory.u64(header.checked_add(STRING_LEN)?)?)
    }

    fn type_assert(&self, address: u64) -> Option<(u64, bool)> {
        // Its cache is the only reason why it is in writable memory; these two fields never change.
        let at = self.layout().type_assert?;
        let inter = self.word(address.checked_add(at.inter.into())?)?;
        let can_fail = self.read_static(address.checked_add(at.can_fail.into())?, 1)?;
        Some((inter, can_fail.bytes != [0]))
    }

    fn place(&self, address: u64) -> Place {
        let Some(frame) = self.frames(address, true).into_iter().next() else { return Place::default() };
        Place {
            function: Some(frame.function.into_owned()),
            file: frame.file.map(Cow::into_owned),
            line: frame.line,
        }
    }
}
