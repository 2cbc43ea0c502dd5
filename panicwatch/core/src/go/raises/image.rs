//! What is asked of a binary besides the bytes of one function; so that tests can answer instead.

use std::borrow::Cow;

use crate::go::{
    gobin::{GoBinary, tables},
    gotype::{TypeContext, Types},
    memory::Memory as _,
};

/// Longer texts are left out.
const MAX_TEXT: u64 = 4096;

/// Where an instruction comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) function: Option<String>,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
}

pub(super) trait Image {
    /// N of Go 1.N.
    fn minor(&self) -> u16;
    /// The function that begins at this address.
    fn function_at(&self, address: u64) -> Option<String>;
    /// PCDATA_PanicBounds at a call.
    fn bounds(&self, call: u64) -> Option<i32>;
    /// Name of the type whose descriptor is at this address.
    fn type_name(&self, descriptor: u64) -> Option<String>;
    /// The read-only word at this address.
    fn word(&self, address: u64) -> Option<u64>;
    /// Read-only text.
    fn text(&self, address: u64, len: u64) -> Option<String>;
    /// The text of the read-only string header at this address.
    fn string(&self, header: u64) -> Option<String>;
    /// What an `abi.TypeAssert` says: the interface's descriptor, and whether a failure is allowed.
    fn type_assert(&self, address: u64) -> Option<(u64, bool)>;
    /// Source position.
    fn place(&self, address: u64) -> Place;
}

impl Image for GoBinary {
    fn minor(&self) -> u16 {
        self.version().minor
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
        self.text(memory.u64(header)?, memory.u64(header.checked_add(8)?)?)
    }

    fn type_assert(&self, address: u64) -> Option<(u64, bool)> {
        // In writable memory for its cache alone; these two never change.
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
