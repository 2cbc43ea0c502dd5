//! Which package imports which, as far as the code proves it: for Go 1.21 and later, whose linker drops the graph.
//!
//! The source of a package can name another's exported function or variable only when it imports that package. So code
//! of P that calls `Q.F`, has it inlined, or reads or writes `Q.V` is an import of Q by P. Methods prove nothing, for a
//! value of a type can come from elsewhere; nor do unexported names, which //go:linkname and the compiler reach; nor
//! does the code of generic functions, into which that of their arguments can be inlined; nor do variables whose address
//! is taken, or that inlined code touches: the address may be an argument. Imports for constants, types, methods or side
//! effects alone do not show. Variables are known by the symbol table only.

use std::collections::{BTreeMap, HashMap, HashSet};

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};

use super::depth::Imports;
use crate::go::{
    gobin::{Arch, Func, FuncId, GoBinary, Inlining},
    inittasks::package_of,
};

/// Code that is looked at, about two seconds' worth; what lies behind it is left out.
const MAX_CODE: u64 = 256 << 20;
/// Bytes of functions whose line tables are walked for proofs, a few seconds' worth; ordinary programs need a
/// thousandth.
const MAX_WALKED: u64 = 4 << 30;
/// Folders that are counted for one package.
const MAX_FOLDERS: usize = 64;

/// The imports that the code proves.
pub fn imports(bin: &GoBinary) -> Imports {
    if bin.arch() != Arch::Amd64 {
        return Imports::default();
    }
    let homes = Homes::count(bin);
    let mut search = Search {
        bin,
        callees: callees(bin),
        variables: variables(bin),
        homes,
        found: HashSet::new(),
        walks: MAX_WALKED,
    };
    let mut left = MAX_CODE;
    for func in bin.functions() {
        left = left.saturating_sub(func.end() - func.entry());
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

/// The package of an exported function or variable that is no method: `net/url.Parse` → `net/url`, with type arguments
/// or not.
fn exported(name: &str) -> Option<String> {
    let (plain, behind) = match (name.find('['), name.rfind(']')) {
        (Some(open), Some(close)) if open < close => (&name[..open], &name[close + 1..]),
        _ => (name, ""),
    };
    behind.is_empty().then_some(())?;
    let last = plain.rfind('/').map_or(0, |slash| slash + 1);
    let own = &plain[last + plain[last..].find('.')? + 1..];
    let method_or_closure = own.contains(['.', '(', '-', ')']);
    (!method_or_closure && own.starts_with(char::is_uppercase) && of_source(plain)).then(|| package_of(plain))
}

/// Neither made by the linker or compiler (`type:.eq.…`, `go:…`) nor C.
fn of_source(name: &str) -> bool {
    !["type:", "go:", "type..", "go."].iter().any(|made| name.starts_with(made)) && name.contains('.')
}

fn is_closure(name: &str) -> bool {
    name.contains(".func") || name.contains("-range")
}

fn folder(file: &str) -> &str {
    file.rfind('/').map_or("", |slash| &file[..slash])
}

/// Where the sources of each package are: the folder where most of its functions come from, if most of those there
/// bear its name. Functions from elsewhere bear it because of //go:linkname, closures because of inlining.
struct Homes(HashMap<String, String>);

impl Homes {
    fn count(bin: &GoBinary) -> Homes {
        let mut by_package: HashMap<String, BTreeMap<String, usize>> = HashMap::new();
        let mut by_folder: HashMap<String, BTreeMap<String, usize>> = HashMap::new();
        for func in bin.functions() {
            let name = func.name();
            if func.func_id() == FuncId::Wrapper || !of_source(&name) || is_closure(&name) {
                continue;
            }
            let Some((file, _)) = func.file_line(func.entry()) else { continue };
            let (package, folder) = (package_of(&name), folder(&file).to_owned());
            count(&mut by_package, &package, &folder);
            count(&mut by_folder, &folder, &package);
        }
        let most = |counts: &BTreeMap<String, usize>| {
            counts.iter().max_by_key(|(_, count)| **count).map(|(name, _)| name.clone())
        };
        let home = |(package, folders): (&String, &BTreeMap<String, usize>)| {
            let folder = most(folders)?;
            (most(by_folder.get(&folder)?)? == *package).then(|| (package.clone(), folder))
        };
        Homes(by_package.iter().filter_map(home).collect())
    }

    /// Is the code at `pc` of `func` source of `package`?
    fn holds(&self, package: &str, func: &Func<'_>, pc: u64) -> bool {
        let Some(home) = self.0.get(package) else { return false };
        func.file_line(pc).is_some_and(|(file, _)| folder(&file) == home)
    }
}

fn count(counts: &mut HashMap<String, BTreeMap<String, usize>>, of: &str, what: &str) {
    let counts = counts.entry(of.to_owned()).or_default();
    if counts.len() < MAX_FOLDERS || counts.contains_key(what) {
        *counts.entry(what.to_owned()).or_default() += 1;
    }
}

/// Package of each exported function, and the folder its code comes from, by entry.
fn callees(bin: &GoBinary) -> HashMap<u64, (String, String)> {
    let exported = bin.functions().filter_map(|func| {
        let package = exported(&func.name())?;
        let (file, _) = func.file_line(func.entry())?;
        Some((func.entry(), (package, folder(&file).to_owned())))
    });
    exported.collect()
}

/// Start, end and package of each exported variable, by address.
fn variables(bin: &GoBinary) -> Vec<(u64, u64, String)> {
    let mut all: Vec<(u64, u64, String)> = bin
        .symbols()
        .filter_map(|(name, at, size)| {
            let package = exported(&name).filter(|_| !name.ends_with("·f"))?;
            Some((at, at.checked_add(size)?, package))
        })
        .collect();
    all.sort_unstable();
    all
}

struct Search<'a> {
    bin: &'a GoBinary,
    callees: HashMap<u64, (String, String)>,
    variables: Vec<(u64, u64, String)>,
    homes: Homes,
    found: HashSet<(String, String)>,
    /// What is left of [`MAX_WALKED`].
    walks: u64,
}

impl Search<'_> {
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
                self.proof(func, importer, &imported, func.entry().wrapping_add(at));
            }
        }
        let Some(code) = self.bin.code(func.entry(), func.end()) else { return };
        let mut decoder = Decoder::with_ip(64, code, func.entry(), DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            let inlined = || inlining.innermost(instruction.ip() - func.entry());
            let (importer, imported) = if instruction.is_call_near() {
                let Some((imported, folder)) = self.callees.get(&instruction.near_branch_target()) else {
                    continue;
                };
                let importer = inlined().unwrap_or(&name);
                // What it gave another package's name itself: runtime has the code of time.Sleep.
                if self.homes.0.get(&package_of(importer)) == Some(folder) {
                    continue;
                }
                (importer, imported)
            } else {
                let Some(imported) = self.variable(&instruction).filter(|_| inlined().is_none()) else {
                    continue;
                };
                (&*name, imported)
            };
            let imported = imported.clone();
            self.proof(func, importer, &imported, instruction.ip());
        }
    }

    /// The package whose exported variable the instruction reads or writes.
    fn variable(&self, instruction: &Instruction) -> Option<&String> {
        let touches = instruction.is_ip_rel_memory_operand() && instruction.mnemonic() != Mnemonic::Lea;
        (touches && !self.variables.is_empty()).then_some(())?;
        let address = instruction.ip_rel_memory_address();
        let at = self.variables.partition_point(|(start, ..)| *start <= address).checked_sub(1)?;
        self.variables.get(at).filter(|(_, end, _)| address < *end).map(|(.., package)| package)
    }

    /// Code at `pc`, inlined there from `importer`, names something of `imported`.
    fn proof(&mut self, func: &Func<'_>, importer: &str, imported: &str, pc: u64) {
        let package = package_of(importer);
        if package == imported || package.is_empty() || importer.contains('[') || !of_source(importer) {
            return;
        }
        let edge = (package, imported.to_owned());
        if self.found.contains(&edge) {
            return;
        }
        self.walks = self.walks.saturating_sub(func.end() - func.entry());
        if self.walks > 0 && self.homes.holds(&edge.0, func, pc) {
            self.found.insert(edge);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::exported;

    #[test]
    fn only_exported_functions_prove_an_import() {
        for (name, package) in [
            ("net/url.Parse", Some("net/url")),
            ("io.EOF", Some("io")),
            ("gopkg.in/yaml%2ev3.Unmarshal", Some("gopkg.in/yaml.v3")),
            ("slices.SortFunc[go.shape.[]a/b.T,go.shape.int]", Some("slices")),
            ("net/url.(*URL).String", None),
            ("net/http.Header.Get", None),
            ("net/url.Parse.func1", None),
            ("maps.Keys[go.shape.int].Keys.func1", None),
            ("sync.runtime_Semacquire", None),
            ("iter.Pull[go.shape.int]-range1", None),
            ("type:.eq.net/url.URL", None),
            ("type:main.T", None),
            ("encoding/base64..stmp_1", None),
            ("crosscall2", None),
            ("", None),
        ] {
            assert_eq!(exported(name).as_deref(), package, "{name}");
        }
    }
}
