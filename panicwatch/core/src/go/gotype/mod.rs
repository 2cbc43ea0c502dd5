//! Go's type descriptors (`abi.Type`), decoded from a target's memory.
//!
//! Knows the layout of type descriptors in every supported Go release. Follows no pointers on its own: each
//! query reads what it needs. Must not know panic values, processes or files. All input is untrusted: sizes
//! are bounded, and nothing here recurses.
//!
//! Layout: <https://github.com/golang/go/blob/go1.24.11/src/internal/abi/type.go>, before Go 1.21
//! <https://github.com/golang/go/blob/go1.19.8/src/runtime/type.go>.

mod method;
mod shape;

use thiserror::Error;

pub use method::{Method, Role};
pub use shape::Field;

use crate::go::{
    gobin::{Arch, GoBinary, RuntimeLayout},
    memory::Memory,
};

/// Maximum length of a name, in bytes; Go's longest are instantiated generic types of a few kilobytes.
const MAX_NAME: usize = 64 << 10;
/// Maximum total length of the names in one struct or one method set, in bytes.
const MAX_NAMES: usize = 1 << 20;

/// Flag bits of a type descriptor, the same in every release.
const TFLAG_UNCOMMON: u8 = 1;
const TFLAG_EXTRA_STAR: u8 = 2;
const TFLAG_NAMED: u8 = 4;
const KIND_MASK: u8 = 0x1f;

/// Location of one module's type descriptors: `moduledata.types` and `.etypes`, run-time addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeSection {
    /// Address of the first byte, the base of name and type offsets.
    pub types: u64,
    /// Address one past the last byte.
    pub etypes: u64,
}

/// What decoding requires of a binary besides its memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeContext {
    /// Layout of the runtime's structs.
    pub layout: RuntimeLayout,
    /// Whether the binary is linux/arm64; otherwise it is linux/amd64.
    pub arm64: bool,
    /// Type sections, one per module: the executable, then plugins.
    pub sections: Vec<TypeSection>,
}

impl TypeContext {
    /// Returns the context of a process that runs `binary` with load bias `bias`.
    pub fn of(binary: &GoBinary, bias: u64) -> Self {
        let module = binary.moduledata();
        Self {
            layout: binary.layout().clone(),
            arm64: binary.arch() == Arch::Arm64,
            sections: vec![TypeSection {
                types: module.types.wrapping_add(bias),
                etypes: module.etypes.wrapping_add(bias),
            }],
        }
    }
}

/// Why a type could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TypeError {
    /// The bytes are not in the capture.
    #[error("memory at {0:#x} was not captured")]
    Unread(u64),
    /// The type belongs to no module: `reflect` created it at run time.
    #[error("the type at {0:#x} was created at run time and belongs to no module")]
    NotInModule(u64),
    /// The bytes cannot be a type descriptor.
    #[error("no type descriptor at {addr:#x}: {what}")]
    Malformed {
        /// Address of the descriptor.
        addr: u64,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// `reflect.Kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are Go's own")]
pub enum Kind {
    Bool,
    Int,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Uintptr,
    Float32,
    Float64,
    Complex64,
    Complex128,
    Array,
    Chan,
    Func,
    Interface,
    Map,
    Pointer,
    Slice,
    String,
    Struct,
    UnsafePointer,
}

/// The kinds in the order of their numbers, from 1, with their names as `reflect.Kind.String` returns them.
const KINDS: [(Kind, &str); 26] = [
    (Kind::Bool, "bool"),
    (Kind::Int, "int"),
    (Kind::Int8, "int8"),
    (Kind::Int16, "int16"),
    (Kind::Int32, "int32"),
    (Kind::Int64, "int64"),
    (Kind::Uint, "uint"),
    (Kind::Uint8, "uint8"),
    (Kind::Uint16, "uint16"),
    (Kind::Uint32, "uint32"),
    (Kind::Uint64, "uint64"),
    (Kind::Uintptr, "uintptr"),
    (Kind::Float32, "float32"),
    (Kind::Float64, "float64"),
    (Kind::Complex64, "complex64"),
    (Kind::Complex128, "complex128"),
    (Kind::Array, "array"),
    (Kind::Chan, "chan"),
    (Kind::Func, "func"),
    (Kind::Interface, "interface"),
    (Kind::Map, "map"),
    (Kind::Pointer, "ptr"),
    (Kind::Slice, "slice"),
    (Kind::String, "string"),
    (Kind::Struct, "struct"),
    (Kind::UnsafePointer, "unsafe.Pointer"),
];

impl Kind {
    /// Returns the kind with this number; `None` for 0 (invalid) and for numbers that no release uses.
    pub fn from_number(number: u64) -> Option<Self> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        KINDS.get(index).map(|(kind, _)| *kind)
    }

    /// Returns the name, as `reflect.Kind.String` does.
    pub fn name(self) -> &'static str {
        KINDS[self as usize].1
    }
}

/// Decoded fixed part of a type descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type {
    /// Address of the descriptor.
    pub addr: u64,
    /// Size of a value in bytes.
    pub size: u64,
    /// Kind of the type.
    pub kind: Kind,
    /// Whether an interface's data word holds the value itself instead of its address.
    pub direct_iface: bool,
    /// Whether it was declared (or predeclared) with a name.
    pub named: bool,
    flags: u8,
    str_off: i32,
}

/// Reader of one target's type descriptors.
#[derive(Clone, Copy)]
pub struct Types<'a> {
    /// The target's memory.
    pub memory: &'a dyn Memory,
    /// Facts about the target's binary.
    pub context: &'a TypeContext,
}

impl<'a> Types<'a> {
    /// Returns a reader over `memory`.
    pub fn new(memory: &'a dyn Memory, context: &'a TypeContext) -> Self {
        Self { memory, context }
    }

    /// Decodes the descriptor at `addr`.
    pub fn get(&self, addr: u64) -> Result<Type, TypeError> {
        let at = &self.context.layout.abi_type;
        let mut raw = vec![0; usize::from(at.size)];
        // The rest of the descriptor follows the fixed part: its addresses must not overflow.
        if addr.checked_add(4096).is_none() {
            return Err(TypeError::Unread(addr));
        }
        if !self.memory.read(addr, &mut raw) {
            return Err(TypeError::Unread(addr));
        }
        let byte = |at: u16| raw.get(usize::from(at)).copied().unwrap_or_default();
        let uint = |at: u16, len: u16| (0..len).rev().fold(0, |n, i| n << 8 | u64::from(byte(at + i)));
        let (flags, kind_byte) = (byte(at.tflag), byte(at.kind));
        let kind = Kind::from_number(u64::from(kind_byte & KIND_MASK))
            .ok_or(TypeError::Malformed { addr, what: "unknown kind" })?;
        let layout = &self.context.layout;
        let direct_iface = flags & layout.tflag_direct_iface.unwrap_or(0) != 0
            || kind_byte & layout.kind_direct_iface.unwrap_or(0) != 0;
        Ok(Type {
            addr,
            size: uint(at.value_size, 8),
            kind,
            direct_iface,
            named: flags & TFLAG_NAMED != 0,
            flags,
            str_off: uint(at.str, 4) as u32 as i32,
        })
    }

    /// Returns the name as Go prints it, with the package name instead of its path (`main.MyErr`,
    /// `*errors.errorString`).
    pub fn name(&self, t: &Type) -> Result<String, TypeError> {
        let full = self.name_at_offset(t.addr, t.str_off)?;
        Ok(match full.strip_prefix('*') {
            Some(rest) if t.flags & TFLAG_EXTRA_STAR != 0 => rest.to_owned(),
            _ => full,
        })
    }

    /// Returns the import path of the declaring package; empty for predeclared and unnamed types without
    /// methods.
    pub fn package(&self, t: &Type) -> Result<String, TypeError> {
        match self.uncommon(t) {
            Some(at) => {
                let at = at.wrapping_add(u64::from(self.context.layout.uncommon.pkg_path));
                let off = self.memory.u32(at).ok_or(TypeError::Unread(at))?;
                if off == 0 { Ok(String::new()) } else { self.name_at_offset(t.addr, off as i32) }
            }
            // Unnamed structs and interfaces carry the path of the package in which they were written.
            None if matches!(t.kind, Kind::Struct | Kind::Interface) => match self.word_after(t, 0)? {
                0 => Ok(String::new()),
                at => self.name_at(at).map(|n| n.text),
            },
            None => Ok(String::new()),
        }
    }

    /// Returns the section of the module that contains a descriptor.
    fn section_of(&self, addr: u64) -> Result<TypeSection, TypeError> {
        self.context
            .sections
            .iter()
            .find(|s| s.types <= addr && addr < s.etypes)
            .copied()
            .ok_or(TypeError::NotInModule(addr))
    }

    /// Go's resolveNameOff, for a name in the module of the type at `owner`.
    fn name_at_offset(&self, owner: u64, off: i32) -> Result<String, TypeError> {
        let section = self.section_of(owner)?;
        let at = u64::try_from(off)
            .ok()
            .and_then(|off| section.types.checked_add(off))
            .filter(|at| *at < section.etypes)
            .ok_or(TypeError::Malformed { addr: owner, what: "name outside its module" })?;
        self.name_at(at).map(|n| n.text)
    }

    /// Go's resolveTypeOff; `None` for the type of a method that the linker removed.
    fn type_at_offset(&self, owner: u64, off: i32) -> Option<u64> {
        let section = self.section_of(owner).ok()?;
        let at = section.types.checked_add(u64::try_from(off).ok().filter(|off| *off != 0)?)?;
        (at < section.etypes).then_some(at)
    }

    /// Decodes the `abi.Name` at `at`: a flag byte, the length as a varint, the text.
    fn name_at(&self, at: u64) -> Result<Name, TypeError> {
        let unread = || TypeError::Unread(at);
        let flags = self.memory.u8(at).ok_or_else(unread)?;
        let (mut len, mut shift, mut pos) = (0usize, 0u32, at.wrapping_add(1));
        loop {
            let byte = self.memory.u8(pos).ok_or_else(unread)?;
            len |= usize::from(byte & 0x7f) << shift;
            pos = pos.wrapping_add(1);
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            if shift > 14 {
                return Err(TypeError::Malformed { addr: at, what: "name too long" });
            }
        }
        if len > MAX_NAME {
            return Err(TypeError::Malformed { addr: at, what: "name too long" });
        }
        let text = self.memory.bytes(pos, len).ok_or_else(unread)?;
        Ok(Name { text: String::from_utf8_lossy(&text).into_owned(), embedded: flags & 8 != 0 })
    }

    /// Returns the address of the `abi.UncommonType`, which follows the kind-specific part; `None` for a type
    /// without one.
    fn uncommon(&self, t: &Type) -> Option<u64> {
        if t.flags & TFLAG_UNCOMMON == 0 {
            return None;
        }
        let after = &self.context.layout.uncommon_after;
        let before = match t.kind {
            Kind::Array => after.array,
            Kind::Chan => after.chan,
            Kind::Func => after.func,
            Kind::Interface => after.interface,
            Kind::Map => after.map,
            Kind::Pointer => after.ptr,
            Kind::Slice => after.slice,
            Kind::Struct => after.struct_,
            _ => after.basic,
        };
        t.addr.checked_add(u64::from(before))
    }

    /// Returns word `i` of the kind-specific part, which follows the common prefix of the descriptor.
    fn word_after(&self, t: &Type, i: u64) -> Result<u64, TypeError> {
        let at = t.addr.wrapping_add(u64::from(self.context.layout.abi_type.size)).wrapping_add(8 * i);
        self.memory.u64(at).ok_or(TypeError::Unread(at))
    }
}

/// A decoded `abi.Name`.
struct Name {
    text: String,
    embedded: bool,
}
