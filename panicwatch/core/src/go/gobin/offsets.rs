//! The single table of what panicwatch assumes about the Go runtime's structs, per Go minor release.
//!
//! Contains numbers and names only, and none that nothing reads: a release without a column is rejected when
//! its debug information lacks one of them. No other module of panicwatch defines an offset that differs
//! between releases, a wait reason or a FuncID; those that do not differ are in [`panicwatch_common::go`].
//! Releases within a minor share a row (Go does not change these structs in patch releases); a minor without
//! a row is rejected.

mod fixed;
mod rows;
mod states;
mod stw_reasons;
mod wait_reasons;

use crate::go::{
    gobin::{FuncIds, GoVersion},
    release::{RELEASES, Release},
};

pub use rows::*;
pub use states::*;

/// Declares one struct's offsets and its rows, in the column order of [`Release::SUPPORTED`].
macro_rules! layout {
    (@cell _) => { None };
    (@cell $v:literal) => { Some($v) };
    (
        $(#[$doc:meta])*
        $name:ident = $go:literal,
        every { $($e:ident $ep:literal [$($ev:literal),+];)* }
        some { $($s:ident $sp:literal [$($sv:tt),+];)* }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name {
            $(#[doc = concat!("Bytes: `", $go, "`, ", $ep, ".")] pub $e: u16,)*
            $(#[doc = concat!("Bytes: `", $go, "`, ", $sp, "; `None` where that release lacks it.")] pub $s: Option<u16>,)*
        }

        impl $name {
            /// The Go type this describes.
            pub const GO_TYPE: &'static str = $go;

            /// Returns column `i` of the table.
            pub(in crate::go::gobin::offsets) const fn row(i: usize) -> Self {
                $(const { assert!([$($ev),+].len() == RELEASES.len(), concat!($go, ".", $ep)) };)*
                $(const { assert!([$(layout!(@cell $sv)),+].len() == RELEASES.len(), concat!($go, ".", $sp)) };)*
                Self {
                    $($e: [$($ev),+][i],)*
                    $($s: [$(layout!(@cell $sv)),+][i],)*
                }
            }

            /// Returns every field: its Go path (alternatives between `|`; `sizeof` for the whole) and its
            /// offset.
            pub fn fields(&self) -> Vec<(&'static str, Option<u16>)> {
                vec![$(($ep, Some(self.$e)),)* $(($sp, self.$s),)*]
            }

            /// Builds a row from another source (DWARF): calls `lookup` with each Go path of
            /// [`Self::fields`].
            ///
            /// # Errors
            /// Returns the path of a field that every supported release has and for which `lookup` returns
            /// `None`.
            pub fn from_lookup(
                lookup: &mut dyn FnMut(&'static str) -> Option<u16>,
            ) -> Result<Self, &'static str> {
                Ok(Self {
                    $($e: lookup($ep).ok_or($ep)?,)*
                    $($s: lookup($sp),)*
                })
            }
        }
    };
}
use layout;

/// A row of the table: one entry per supported release.
type Columns<T> = [T; RELEASES.len()];

/// Size of a map type's descriptor in bytes.
const MAP_TYPE: Columns<u16> = [88, 88, 88, 88, 112, 112, 112, 136];
/// Type assertions to an interface, in releases whose compiler emits them as data.
const TYPE_ASSERT: Columns<Option<TypeAssert>> = {
    let same = Some(TypeAssert { inter: 8, can_fail: 16 });
    [None, None, same, same, same, same, same, same]
};
/// Bit of `abi.Type.Kind_` that marks a direct interface value.
const KIND_DIRECT_IFACE: Columns<Option<u8>> =
    [Some(0x20), Some(0x20), Some(0x20), Some(0x20), Some(0x20), Some(0x20), None, None];
/// Bit of `abi.Type.TFlag` that marks a direct interface value.
const TFLAG_DIRECT_IFACE: Columns<Option<u8>> = [None, None, None, None, None, None, Some(0x20), Some(0x20)];

/// All version-dependent facts about the runtime's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeLayout {
    /// Minor release of the row.
    pub release: Release,
    /// Offsets in runtime.g.
    pub g: G,
    /// Offsets in runtime.m.
    pub m: M,
    /// Offsets in runtime._panic.
    pub panic: Panic,
    /// Offsets in runtime._defer.
    pub defer: Defer,
    /// Offsets in runtime.moduledata.
    pub moduledata: ModuleData,
    /// Offsets in internal/abi.Type.
    pub abi_type: Type,
    /// Offsets in internal/abi.UncommonType.
    pub uncommon: Uncommon,
    /// Distance from a type descriptor to its uncommon type, by kind.
    pub uncommon_after: UncommonAfter,
    /// Offsets in internal/abi.ITab.
    pub itab: Itab,
    /// Offsets in runtime.initTask.
    pub init_task: InitTask,
    /// Offsets in runtime.ancestorInfo.
    pub ancestor_info: AncestorInfo,
    /// Offsets in runtime.boundsError.
    pub bounds_error: BoundsError,
    /// Offsets in runtime.TypeAssertionError.
    pub type_assertion_error: TypeAssertionError,
    /// Offsets in internal/abi.TypeAssert, since 1.22.
    pub type_assert: Option<TypeAssert>,
    /// Text of each `g.waitreason` number, as Go prints it.
    pub wait_reasons: &'static [&'static str],
    /// Text of each `stwReason` number, why the world was stopped; empty for Go 1.19, which has no such
    /// number.
    pub stw_reasons: &'static [&'static str],
    /// Meaning of each FuncID number.
    pub func_ids: FuncIds,
    /// Bit of `abi.Type.Kind_` that marks a direct interface value, up to 1.25.
    pub kind_direct_iface: Option<u8>,
    /// Bit of `abi.Type.TFlag` that marks a direct interface value, since 1.26.
    pub tflag_direct_iface: Option<u8>,
}

/// Distance in bytes from a type descriptor to its uncommon type: the size of the kind's own descriptor
/// struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UncommonAfter {
    /// For bool, numbers, string and unsafe.Pointer.
    pub basic: u16,
    /// Size of an array type's descriptor.
    pub array: u16,
    /// Size of a channel type's descriptor.
    pub chan: u16,
    /// Size of a function type's descriptor.
    pub func: u16,
    /// Size of an interface type's descriptor.
    pub interface: u16,
    /// Size of a map type's descriptor.
    pub map: u16,
    /// Size of a pointer type's descriptor.
    pub ptr: u16,
    /// Size of a slice type's descriptor.
    pub slice: u16,
    /// Size of a struct type's descriptor.
    pub struct_: u16,
}

/// A type assertion to an interface, as the compiler emits it; identical in every release that has it.
/// <https://github.com/golang/go/blob/go1.24.11/src/internal/abi/switch.go>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeAssert {
    /// Offset in bytes of Inter in `internal/abi.TypeAssert`.
    pub inter: u16,
    /// Offset in bytes of CanFail in `internal/abi.TypeAssert`.
    pub can_fail: u16,
}

/// Source of a [`RuntimeLayout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayoutSource {
    /// The table in this module.
    Table,
    /// The binary's own debug information.
    Dwarf,
}

impl RuntimeLayout {
    /// Returns the row for `version`; `None` for a minor release without one.
    pub fn for_version(version: &GoVersion) -> Option<Self> {
        if version.major != 1 {
            return None;
        }
        Some(Self::row(version.release.column()?))
    }

    /// Reports whether the fields whose offsets are constants of [`panicwatch_common::go`] are there: in
    /// every row of the table, but not in every layout from debug information.
    pub fn has_fixed_offsets(&self) -> bool {
        fixed::hold(&self.g, &self.abi_type, &self.itab)
    }

    fn row(i: usize) -> Self {
        Self {
            release: Release::SUPPORTED[i],
            g: G::row(i),
            m: M::row(i),
            panic: Panic::row(i),
            defer: Defer::row(i),
            moduledata: ModuleData::row(i),
            abi_type: Type::row(i),
            uncommon: Uncommon::row(i),
            uncommon_after: UncommonAfter {
                basic: 48,
                array: 72,
                chan: 64,
                func: 56,
                interface: 80,
                map: MAP_TYPE[i],
                ptr: 56,
                slice: 56,
                struct_: 80,
            },
            itab: Itab::row(i),
            init_task: InitTask::row(i),
            ancestor_info: AncestorInfo::row(i),
            bounds_error: BoundsError::row(i),
            type_assertion_error: TypeAssertionError::row(i),
            type_assert: TYPE_ASSERT[i],
            wait_reasons: wait_reasons::COLUMNS[i],
            stw_reasons: stw_reasons::COLUMNS[i],
            func_ids: FuncIds::COLUMNS[i],
            kind_direct_iface: KIND_DIRECT_IFACE[i],
            tflag_direct_iface: TFLAG_DIRECT_IFACE[i],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(text: &str) -> RuntimeLayout {
        RuntimeLayout::for_version(&GoVersion::parse(text).expect("a version")).expect("a row")
    }

    #[test]
    fn rows_are_chosen_by_minor_release() {
        assert_eq!(layout("go1.19.8").g.parent_goid, None);
        assert_eq!(layout("go1.21.0").g.goid, 152);
        assert_eq!(layout("go1.24.11").g.goid, 160);
        assert_eq!(layout("go1.27.99").panic.arg, 0);
        assert_eq!(layout("go1.27.3").moduledata.etypes, 312);
        for unknown in ["go1.20.5", "go1.28", "go2.1"] {
            let v = GoVersion::parse(unknown).expect("a version");
            assert_eq!(RuntimeLayout::for_version(&v), None, "{unknown}");
        }
    }

    #[test]
    fn wait_reasons_have_their_release_s_numbers() {
        assert_eq!(layout("go1.21.13").wait_reasons[2], "IO wait");
        assert_eq!(layout("go1.26.6").wait_reasons[3], "dumping heap");
    }

    #[test]
    fn a_row_can_be_rebuilt_from_its_own_fields() {
        let g = layout("go1.25.5").g;
        let fields = g.fields();
        let again = G::from_lookup(&mut |path| fields.iter().find(|(p, _)| *p == path)?.1);
        assert_eq!(again, Ok(g));
        assert_eq!(G::from_lookup(&mut |_| None), Err("stack.lo"));
    }
}
