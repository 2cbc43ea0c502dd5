//! Compares the layout table with a binary's debug information.

use super::{DwarfError, Found, Wanted, offsets};
use crate::go::gobin::{
    RuntimeLayout,
    offsets::{
        AncestorInfo, BoundsError, Defer, G, InitTask, Itab, M, ModuleData, Panic, Type, TypeAssertionError,
        Uncommon,
    },
};

/// A field on which table and debug information disagree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Go name of the struct.
    pub go_type: &'static str,
    /// Go path of the field, alternatives between `|`.
    pub path: &'static str,
    /// Offset in the table; `None` when the table has no such field for the release.
    pub table: Option<u16>,
    /// Offset in the debug information; `None` when the struct there lacks the field.
    pub dwarf: Option<u64>,
}

/// Result of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The table's row, with the debug information's offsets wherever it has them.
    pub layout: RuntimeLayout,
    /// The fields whose offsets changed.
    pub differences: Vec<Difference>,
    /// Number of fields compared.
    pub compared: usize,
    /// Whether every field that all known releases have was found in the structs that are present.
    pub complete: bool,
    /// Structs missing from the debug information: the linker drops unused types.
    pub absent: Vec<&'static str>,
}

/// Kind-specific type descriptors by their names through the releases; the uncommon type follows at the end
/// of each.
const DESCRIPTORS: [&[&str]; 8] = [
    &["internal/abi.ArrayType", "runtime.arraytype"],
    &["internal/abi.ChanType", "runtime.chantype"],
    &["internal/abi.FuncType", "runtime.functype"],
    &["internal/abi.InterfaceType", "runtime.interfacetype"],
    &["internal/abi.MapType", "internal/abi.SwissMapType", "runtime.maptype"],
    &["internal/abi.PtrType", "runtime.ptrtype"],
    &["internal/abi.SliceType", "runtime.slicetype"],
    &["internal/abi.StructType", "runtime.structtype"],
];

/// Returns the older name of a struct, given its name in the table.
fn older_name(go_type: &str) -> Option<&'static str> {
    match go_type {
        "internal/abi.Type" => Some("runtime._type"),
        "internal/abi.UncommonType" => Some("runtime.uncommontype"),
        "internal/abi.ITab" => Some("runtime.itab"),
        _ => None,
    }
}

/// Compares `table` with the debug information of the ELF file `bytes`, which takes precedence.
///
/// # Errors
/// Returns an error when there is no usable debug information; only the table remains in that case.
pub fn check(bytes: &[u8], table: &RuntimeLayout) -> Result<Checked, DwarfError> {
    let mut wanted: Vec<Wanted> =
        DESCRIPTORS.iter().map(|names| Wanted { names: names.to_vec(), paths: vec!["sizeof"] }).collect();
    macro_rules! want {
        ($($field:ident: $row:ty),+ $(,)?) => {$(
            let mut names = vec![<$row>::GO_TYPE];
            names.extend(older_name(<$row>::GO_TYPE));
            wanted.push(Wanted { names, paths: table.$field.fields().into_iter().map(|(path, _)| path).collect() });
        )+};
    }
    macro_rules! every_struct {
        ($then:ident) => {
            $then! {
                g: G, m: M, panic: Panic, defer: Defer, moduledata: ModuleData, abi_type: Type,
                uncommon: Uncommon, itab: Itab, init_task: InitTask, ancestor_info: AncestorInfo,
                bounds_error: BoundsError, type_assertion_error: TypeAssertionError,
            }
        };
    }
    every_struct!(want);
    let found = offsets(bytes, &wanted)?;
    let mut out = Checked {
        layout: table.clone(),
        differences: Vec::new(),
        compared: 0,
        complete: true,
        absent: Vec::new(),
    };
    macro_rules! compare {
        ($($field:ident: $row:ty),+ $(,)?) => {$(
            if out.note(&found, <$row>::GO_TYPE, &table.$field.fields()) {
                // A struct that lacks a field of all releases keeps the table's row.
                let dwarf = &found[<$row>::GO_TYPE];
                match <$row>::from_lookup(&mut |path| u16::try_from(*dwarf.get(path)?).ok()) {
                    Ok(row) => out.layout.$field = row,
                    Err(_) => out.complete = false,
                }
            }
        )+};
    }
    every_struct!(compare);
    descriptors(&mut out, &found, table);
    Ok(out)
}

fn descriptors(out: &mut Checked, found: &Found, table: &RuntimeLayout) {
    let row = table.uncommon_after;
    let sizes = [row.array, row.chan, row.func, row.interface, row.map, row.ptr, row.slice, row.struct_];
    let mut changed = sizes;
    for (i, names) in DESCRIPTORS.iter().enumerate() {
        let go_type = names[0];
        if out.note(found, go_type, &[("sizeof", Some(sizes[i]))])
            && let Some(size) = found[go_type].get("sizeof").and_then(|s| u16::try_from(*s).ok())
        {
            // The uncommon type has the alignment of the descriptor.
            changed[i] = size.next_multiple_of(8);
        }
    }
    let after = &mut out.layout.uncommon_after;
    [
        after.array,
        after.chan,
        after.func,
        after.interface,
        after.map,
        after.ptr,
        after.slice,
        after.struct_,
    ] = changed;
}

impl Checked {
    /// Records the differences of one struct; returns true when the debug information has the struct.
    fn note(&mut self, found: &Found, go_type: &'static str, fields: &[(&'static str, Option<u16>)]) -> bool {
        let Some(dwarf) = found.get(go_type) else {
            self.absent.push(go_type);
            return false;
        };
        for &(path, table) in fields {
            let dwarf = dwarf.get(path).copied();
            self.compared += 1;
            if dwarf != table.map(u64::from) {
                self.differences.push(Difference { go_type, path, table, dwarf });
            }
        }
        true
    }
}
