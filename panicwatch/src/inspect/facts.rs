//! The facts about one binary, as JSON has them: names and meanings are a promise (docs/inspect.md).
//!
//! Knows no files, no processes, and not how facts are found. What could not be found out is `None`.

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::incident::Addr;

/// Everything about one binary.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// File.
    pub path: String,
    /// In bytes.
    pub file_size: u64,
    /// As `go version` prints it.
    pub go_version: String,
    /// panicwatch can watch it.
    pub watchable: bool,
    /// Why not.
    pub cannot_be_watched: Option<String>,
    /// Import path of the main package.
    pub main_package: Option<String>,
    /// Path of the main module.
    pub module: Option<String>,
    /// Its version: "v1.2.3", "(devel)".
    pub module_version: Option<String>,
    /// Its go.sum hash.
    pub module_sum: Option<String>,
    /// What a replace directive put in its place.
    pub module_replaced_by: Option<Replacement>,
    /// All other modules, in the order of the build information.
    pub dependencies: Vec<Dependency>,
    /// Name to value, in the order of the build information.
    #[serde(serialize_with = "in_order")]
    pub settings: Vec<(String, String)>,
    /// Which commit.
    pub vcs: Option<Vcs>,
    /// As GOARCH names it.
    pub arch: Option<String>,
    /// Loaded at an address chosen at run time.
    pub pie: bool,
    /// C code can call into it or be called by it.
    pub cgo: Option<bool>,
    /// The linker's GNU build id, in hex.
    pub build_id: Option<String>,
    /// Go's own build id.
    pub go_build_id: Option<String>,
    /// Has a symbol table.
    pub symbol_table: bool,
    /// Has debug information.
    pub dwarf: bool,
    /// Has a pclntab that can be read: functions, files, lines.
    pub pclntab: bool,
    /// Every section header.
    pub sections: Vec<Section>,
    /// Link-time address of runtime.text.
    pub text_start: Option<Addr>,
    /// Functions in the pclntab.
    pub functions: Option<u64>,
    /// Calls that the compiler inlined.
    pub inlined_calls: Option<u64>,
    /// "table" or "dwarf": where the layout of the runtime's structs comes from.
    pub layout_source: Option<&'static str>,
    /// More of that.
    pub layout: Layout,
    /// Every probe of the plan: those that can be placed, and those that cannot.
    pub probes: Vec<Probe>,
    /// What each absence costs, a sentence each.
    pub costs: Vec<String>,
    /// What the build's settings mean for a report, a sentence each.
    pub notes: Vec<String>,
    /// Of a running process.
    pub process: Option<ProcessFacts>,
}

/// A module that took another's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replacement {
    /// Import path, or path of a directory.
    pub path: String,
    /// Version; `None` for a directory.
    pub version: Option<String>,
    /// go.sum hash.
    pub sum: Option<String>,
}

/// One dependency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dependency {
    /// Module path.
    pub path: String,
    /// Version.
    pub version: Option<String>,
    /// go.sum hash.
    pub sum: Option<String>,
    /// What a replace directive put in its place.
    pub replaced_by: Option<Replacement>,
}

/// The commit it was built from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vcs {
    /// "git"
    pub system: Option<String>,
    /// Revision.
    pub revision: Option<String>,
    /// RFC 3339.
    pub time: Option<String>,
    /// The checkout had changes.
    pub modified: Option<bool>,
}

/// One section header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Section {
    /// Name.
    pub name: String,
    /// As readelf names the type, without "SHT_"; its number where it has no name.
    pub kind: String,
    /// Letters as readelf prints them: W write, A alloc, X execute, C compressed …
    pub flags: String,
    /// Link-time address.
    pub address: Addr,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// Where the layout of the runtime's structs comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Layout {
    /// As [`Inspection::layout_source`].
    pub source: Option<&'static str>,
    /// Offsets and sizes that were compared between panicwatch's table and the binary's debug information.
    pub compared: usize,
    /// Those on which they do not agree.
    pub differences: Vec<Difference>,
    /// Structs that the debug information does not have: the linker drops types that nothing uses.
    pub absent: Vec<&'static str>,
    /// Why nothing was compared.
    pub not_compared: Option<String>,
}

/// One offset on which panicwatch's table and the binary's debug information do not agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Go name.
    #[serde(rename = "struct")]
    pub go_type: &'static str,
    /// Path of the field; "sizeof" for the struct itself.
    pub field: &'static str,
    /// In the table, bytes; `None`: no such field.
    pub table: Option<u16>,
    /// In the debug information.
    pub dwarf: Option<u64>,
}

/// One probe of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// What it tells: "panic raised".
    pub name: &'static str,
    /// Go function.
    pub symbol: String,
    /// Link-time address of the instruction.
    pub address: Option<Addr>,
    /// Bytes from the function's entry.
    pub offset: Option<u64>,
    /// Bytes from the start of the file: what the kernel is told.
    pub file_offset: Option<u64>,
    /// Disassembly.
    pub instruction: Option<String>,
    /// The instruction in hex.
    pub bytes: Option<String>,
    /// "emulated" or "stepped".
    pub price: Option<&'static str>,
    /// It can be placed.
    pub placed: bool,
    /// Why it cannot.
    pub reason: Option<String>,
    /// What reports lack without it.
    pub lost: Option<&'static str>,
    /// Why at this instruction.
    pub why: Option<&'static str>,
}

/// The binary in a running process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessFacts {
    /// In panicwatch's pid namespace.
    pub pid: u32,
    /// The file has no name any more, or another file has it.
    pub deleted: bool,
    /// Run-time addresses minus link-time addresses.
    pub load_bias: Option<Addr>,
    /// Run-time address of runtime.text.
    pub text_start: Option<Addr>,
    /// Other executable files that are mapped: plugins, libraries.
    pub mapped: Vec<MappedGo>,
}

/// Another file with code in the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MappedGo {
    /// As /proc/PID/maps has it.
    pub path: String,
    /// Its first mapping.
    pub start: Addr,
    /// When it is Go.
    pub go_version: Option<String>,
    /// Why it could not be looked into.
    pub unreadable: Option<String>,
}

/// The first value of every name; a hostile file may repeat one.
fn in_order<S: Serializer>(settings: &[(String, String)], s: S) -> Result<S::Ok, S::Error> {
    let mut map = s.serialize_map(None)?;
    let mut seen = std::collections::HashSet::new();
    for (name, value) in settings {
        if seen.insert(name) {
            map.serialize_entry(name, value)?;
        }
    }
    map.end()
}

impl Inspection {
    /// The value of one setting.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}
