//! The facts about one binary, as they are written as JSON: names and meanings are stable (docs/inspect.md).
//!
//! This module depends on neither files nor processes, nor on how facts are determined. An unknown fact is
//! `None`.

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::incident::Addr;

/// All facts about one binary.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// Path of the file.
    pub path: String,
    /// Size of the file in bytes.
    pub file_size: u64,
    /// Go version, as `go version` prints it.
    pub go_version: String,
    /// Whether panicwatch can watch it.
    pub watchable: bool,
    /// Reason if panicwatch cannot watch it.
    pub cannot_be_watched: Option<String>,
    /// Import path of the main package.
    pub main_package: Option<String>,
    /// Path of the main module.
    pub module: Option<String>,
    /// Version of the main module: "v1.2.3", "(devel)".
    pub module_version: Option<String>,
    /// go.sum hash of the main module.
    pub module_sum: Option<String>,
    /// Replacement of the main module by a replace directive.
    pub module_replaced_by: Option<Replacement>,
    /// All other modules, in the order of the build information.
    pub dependencies: Vec<Dependency>,
    /// Build settings as name and value, in the order of the build information.
    #[serde(serialize_with = "in_order")]
    pub settings: Vec<(String, String)>,
    /// Commit that the binary was built from.
    pub vcs: Option<Vcs>,
    /// Architecture, as GOARCH names it.
    pub arch: Option<String>,
    /// Whether it is position independent: loaded at an address chosen at run time.
    pub pie: bool,
    /// Whether it uses cgo, so that C code can call it or be called by it.
    pub cgo: Option<bool>,
    /// GNU build ID of the linker, in hex.
    pub build_id: Option<String>,
    /// Go's own build ID.
    pub go_build_id: Option<String>,
    /// Whether it has a symbol table.
    pub symbol_table: bool,
    /// Whether it has debug information.
    pub dwarf: bool,
    /// Whether it has a readable pclntab: functions, files, lines.
    pub pclntab: bool,
    /// All section headers.
    pub sections: Vec<Section>,
    /// Link-time address of runtime.text.
    pub text_start: Option<Addr>,
    /// Number of functions in the pclntab.
    pub functions: Option<u64>,
    /// Number of calls that the compiler inlined.
    pub inlined_calls: Option<u64>,
    /// Source of the layout of the runtime's structs: "table" or "dwarf".
    pub layout_source: Option<&'static str>,
    /// Comparison of the layouts of the runtime's structs.
    pub layout: Layout,
    /// All probes of the plan: those that can be placed, and those that cannot.
    pub probes: Vec<Probe>,
    /// Consequences of each thing that is absent, one sentence each.
    pub costs: Vec<String>,
    /// Consequences of the build settings for a report, one sentence each.
    pub notes: Vec<String>,
    /// Facts about a running process, if one was given.
    pub process: Option<ProcessFacts>,
}

/// The replacement of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replacement {
    /// Import path, or path of a directory.
    pub path: String,
    /// Version of the replacement; `None` for a directory.
    pub version: Option<String>,
    /// go.sum hash of the replacement.
    pub sum: Option<String>,
}

/// A module that the binary depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dependency {
    /// Path of the module, as in go.mod.
    pub path: String,
    /// Version of the module.
    pub version: Option<String>,
    /// go.sum hash of the module.
    pub sum: Option<String>,
    /// Replacement of the module by a replace directive.
    pub replaced_by: Option<Replacement>,
}

/// The commit that the binary was built from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vcs {
    /// Name of the version control system, such as "git".
    pub system: Option<String>,
    /// Hash of the commit it was built from.
    pub revision: Option<String>,
    /// Time of the commit, RFC 3339.
    pub time: Option<String>,
    /// Whether the checkout had uncommitted changes.
    pub modified: Option<bool>,
}

/// A section header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Section {
    /// Name of the section.
    pub name: String,
    /// Type as readelf names it, without "SHT_"; the number of an unnamed type.
    pub kind: String,
    /// Flags as readelf prints them: W write, A alloc, X execute, C compressed …
    pub flags: String,
    /// Link-time address of the probe site.
    pub address: Addr,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
}

/// Source of the layout of the runtime's structs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Layout {
    /// Same as [`Inspection::layout_source`].
    pub source: Option<&'static str>,
    /// Number of offsets and sizes that were compared between panicwatch's table and the binary's debug
    /// information.
    pub compared: usize,
    /// Offsets and sizes on which the two disagree.
    pub differences: Vec<Difference>,
    /// Structs that are missing in the debug information: the linker drops unused types.
    pub absent: Vec<&'static str>,
    /// Why nothing was compared.
    pub not_compared: Option<String>,
}

/// An offset on which panicwatch's table and the binary's debug information disagree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Go name of the struct.
    #[serde(rename = "struct")]
    pub go_type: &'static str,
    /// Path of the field; "sizeof" for the size of the struct.
    pub field: &'static str,
    /// Value in the table, bytes; `None`: no such field.
    pub table: Option<u16>,
    /// Value in the debug information, bytes; `None`: no such field.
    pub dwarf: Option<u64>,
}

/// A probe of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// Event that it reports, such as "panic raised".
    pub name: &'static str,
    /// Go function that contains it.
    pub symbol: String,
    /// Link-time address of the instruction.
    pub address: Option<Addr>,
    /// Offset from the function's entry, in bytes.
    pub offset: Option<u64>,
    /// Offset in the file, in bytes, which is what the kernel takes.
    pub file_offset: Option<u64>,
    /// Instruction under the probe, in GNU syntax.
    pub instruction: Option<String>,
    /// Bytes of the instruction in hex.
    pub bytes: Option<String>,
    /// "emulated" or "stepped": how the kernel executes the probed instruction.
    pub price: Option<&'static str>,
    /// Whether it can be placed.
    pub placed: bool,
    /// Why it cannot be placed.
    pub reason: Option<String>,
    /// What reports lack without it.
    pub lost: Option<&'static str>,
    /// Why it is placed at this instruction.
    pub why: Option<&'static str>,
}

/// Facts about a process that runs the binary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessFacts {
    /// PID in panicwatch's PID namespace.
    pub pid: u32,
    /// Whether the file was deleted, or its name now belongs to another file.
    pub deleted: bool,
    /// Load bias: run-time address minus link-time address.
    pub load_bias: Option<Addr>,
    /// Run-time address of runtime.text.
    pub text_start: Option<Addr>,
    /// Other mapped files with code: plugins, libraries.
    pub mapped: Vec<MappedGo>,
}

/// Another mapped file with code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MappedGo {
    /// Path as in /proc/PID/maps.
    pub path: String,
    /// Start address of its first mapping.
    pub start: Addr,
    /// Go version, if it is Go code.
    pub go_version: Option<String>,
    /// Why it could not be read.
    pub unreadable: Option<String>,
}

/// Writes the settings as a map with the first value of each name: a hostile file may repeat a name.
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
    /// Returns the value of a build setting.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}
