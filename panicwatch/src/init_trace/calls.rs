//! Which package imports which, as far as the code proves it: for Go 1.21 and later, whose linker drops the graph.
//!
//! A package can call another's exported function only when it imports that package. So a call (or an inlined call) of
//! `Q.F` that the source of P holds is an import of Q by P. Methods prove nothing, for a value of a type can come from
//! elsewhere; neither do unexported functions, which //go:linkname and the compiler reach. Imports for constants,
//! types, variables or side effects alone do not show.
//!
//! Calls are looked for by their opcode, which is fast. Of the candidates that would tell something new the function
//! is decoded: such bytes can be in the middle of another instruction.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use iced_x86::{Decoder, DecoderOptions, Instruction};

use super::depth::Imports;
use crate::{
    gobin::{Arch, Func, FuncId, GoBinary, Inlining},
    inittasks::package_of,
};

/// Code that is looked at; what lies behind it is left out.
const MAX_CODE: u64 = 512 << 20;
/// `call rel32`
const CALL: u8 = 0xe8;
const CALL_LEN: usize = 5;

/// The imports that the code proves.
pub(super) fn imports(bin: &GoBinary) -> Imports {
    if bin.arch() != Arch::Amd64 {
        return Imports::default();
    }
    let mut search = Search { bin, callees: HashMap::new(), folders: BTreeMap::new(), found: HashSet::new() };
    search.index();
    let mut left = MAX_CODE;
    for func in bin.functions() {
        let len = func.end() - func.entry();
        left = left.saturating_sub(len);
        if left == 0 {
            break;
        }
        search.function(&func);
    }
    let mut imports = Imports::default();
    for (importer, imported) in &search.found {
        imports.add(importer, imported);
    }
    imports
}

/// The package of an exported function that is no method: `net/url.Parse` → `net/url`, with type arguments or not.
fn exported(name: &str) -> Option<String> {
    let (plain, behind) = match (name.find('['), name.rfind(']')) {
        (Some(open), Some(close)) if open < close => (&name[..open], &name[close + 1..]),
        _ => (name, ""),
    };
    behind.is_empty().then_some(())?;
    let last = plain.rfind('/').map_or(0, |slash| slash + 1);
    let function = &plain[last + plain[last..].find('.')? + 1..];
    let method_or_closure = function.contains(['.', '(', '-', ')']);
    (!method_or_closure && function.starts_with(char::is_uppercase)).then(|| package_of(plain))
}

/// A function of source code: neither made by the linker or compiler (`type:.eq.…`, `go:…`) nor C.
fn of_source(name: &str) -> bool {
    !name.starts_with("type:")
        && !name.starts_with("go:")
        && !name.starts_with("type..")
        && name.contains('.')
}

fn folder(file: &str) -> &str {
    file.rfind('/').map_or("", |slash| &file[..slash])
}

struct Search<'a> {
    bin: &'a GoBinary,
    /// Entry and package of each exported function.
    callees: HashMap<u64, String>,
    /// Where the sources of each package are.
    folders: BTreeMap<String, BTreeSet<String>>,
    found: HashSet<(String, String)>,
}

impl Search<'_> {
    fn index(&mut self) {
        for func in self.bin.functions() {
            let name = func.name();
            let Some(package) = exported(&name) else { continue };
            let inlined_at_once = Inlining::of(&func).innermost(0).is_some();
            if !inlined_at_once && let Some((file, _)) = func.file_line(func.entry()) {
                let folders = self.folders.entry(package.clone()).or_default();
                if folders.len() < 16 {
                    folders.insert(folder(&file).to_owned());
                }
            }
            self.callees.insert(func.entry(), package);
        }
    }

    fn function(&mut self, func: &Func<'_>) {
        let name = func.name();
        // Adapters and promoted methods are nobody's source.
        if func.func_id() == FuncId::Wrapper || !of_source(&name) {
            return;
        }
        let inlining = Inlining::of(func);
        for (callee, at) in inlining.calls() {
            if let Some(imported) = exported(callee) {
                let importer = inlining.innermost(at).unwrap_or(&name);
                self.proof(func, importer, &imported, at);
            }
        }
        let Some(code) = self.bin.code(func.entry(), func.end()) else { return };
        let mut starts = None;
        for (at, bytes) in code.windows(CALL_LEN).enumerate() {
            let [CALL, rel @ ..] = bytes else { continue };
            let Ok(rel) = <[u8; 4]>::try_from(rel) else { continue };
            let next = func.entry().wrapping_add((at + CALL_LEN) as u64);
            let target = next.wrapping_add_signed(i32::from_le_bytes(rel).into());
            let Some(imported) = self.callees.get(&target) else { continue };
            let importer = inlining.innermost(at as u64).unwrap_or(&name);
            let package = package_of(importer);
            if package == *imported || self.found.contains(&(package, imported.clone())) {
                continue;
            }
            let starts: &HashSet<u64> = starts.get_or_insert_with(|| instructions(code, func.entry()));
            if starts.contains(&(func.entry() + at as u64)) {
                let imported = imported.clone();
                self.proof(func, importer, &imported, at as u64);
            }
        }
    }

    /// The source of `importer` calls an exported function of `imported`, unless it is source of another package that
    /// bears this name: a closure of an inlined function is named after where it was inlined.
    fn proof(&mut self, func: &Func<'_>, importer: &str, imported: &str, at: u64) {
        let package = package_of(importer);
        if package == imported || package.is_empty() || !of_source(importer) {
            return;
        }
        let edge = (package, imported.to_owned());
        if self.found.contains(&edge) {
            return;
        }
        let Some((file, _)) = func.file_line(func.entry().wrapping_add(at)) else { return };
        let closure = importer.contains(".func") || importer.contains("-range");
        let known = self.folders.get(&edge.0);
        if closure && !known.is_some_and(|folders| folders.contains(folder(&file))) {
            return;
        }
        self.found.insert(edge);
    }
}

/// Addresses at which instructions of a function begin.
fn instructions(code: &[u8], entry: u64) -> HashSet<u64> {
    let mut decoder = Decoder::with_ip(64, code, entry, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut starts = HashSet::new();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        starts.insert(instruction.ip());
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::exported;

    #[test]
    fn only_exported_functions_prove_an_import() {
        for (name, package) in [
            ("net/url.Parse", Some("net/url")),
            ("gopkg.in/yaml%2ev3.Unmarshal", Some("gopkg.in/yaml.v3")),
            ("slices.SortFunc[go.shape.[]a/b.T,go.shape.int]", Some("slices")),
            ("net/url.(*URL).String", None),
            ("net/http.Header.Get", None),
            ("net/url.Parse.func1", None),
            ("maps.Keys[go.shape.int].Keys.func1", None),
            ("sync.runtime_Semacquire", None),
            ("iter.Pull[go.shape.int]-range1", None),
            ("crosscall2", None),
            ("", None),
        ] {
            assert_eq!(exported(name).as_deref(), package, "{name}");
        }
    }
}
