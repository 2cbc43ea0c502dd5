//! Arguments and results: their locations, what to read at a hit, and the text of the values read.
//!
//! [`abi`] assigns them to registers and the stack, [`fetch`] compiles the reads, [`render`] formats the
//! values. This module does no I/O and does not depend on how memory is read.

pub mod abi;
pub mod fetch;
pub mod render;

use std::collections::{BTreeSet, HashMap};

use panicwatch_common::trace::{FetchList, Hit, NO_COUNT, STEP_BYTES, Step, WORDS};

use self::{
    abi::{DWARF_REGISTERS, Home, Piece},
    fetch::{Fetch, NOWHERE},
    render::Renderer,
};
use super::{line::Argument, record::Data};
use crate::{
    go::{
        gobin::{
            GoBinary,
            dwarf::{DwarfError, Location, Parameter, Signature, signatures, types::GoTypes},
        },
        gotype::TypeContext,
        memory::{Layered, Snapshot},
        value::Decoder,
    },
    plan::trace::TraceFunction,
};

/// The compiler's name for the hidden parameter of a generic function, in releases whose debug information
/// has it.
const DICTIONARY: &str = ".dict";
/// Address at which the bytes of arguments themselves are placed for rendering: no process maps it.
const OWN: u64 = 1 << 62;

/// An argument or result of one function.
#[derive(Debug, Clone)]
struct Slot {
    name: String,
    of: u32,
    /// The pieces with their offsets in the data, or why they cannot be read.
    pieces: Result<Vec<(Piece, usize)>, &'static str>,
}

/// All arguments of a function at its entry, or all results at its exits.
#[derive(Debug, Clone, Default)]
struct Site {
    slots: Vec<Slot>,
    steps: Vec<Step>,
}

/// Decodes the arguments and results of the traced functions.
pub struct Values<'a> {
    bin: &'a GoBinary,
    types: GoTypes,
    /// By function; `None` if the debug information lacks the function.
    entries: Vec<Option<Site>>,
    exits: Vec<Option<Site>>,
    contexts: HashMap<u64, TypeContext>,
}

impl<'a> Values<'a> {
    /// Reads the signatures of `functions`, and returns the fetch lists of their probe sites.
    ///
    /// # Errors
    /// When the debug information is missing or damaged.
    pub fn read(bin: &'a GoBinary, functions: &[TraceFunction]) -> Result<(Values<'a>, Lists), DwarfError> {
        let wanted = functions.iter().map(|function| (function.entry, function.site)).collect();
        let (signatures, types) = signatures(bin.file_bytes(), &wanted)?;
        let mut values =
            Values { bin, types, entries: Vec::new(), exits: Vec::new(), contexts: HashMap::new() };
        let mut lists = Lists::default();
        for function in functions {
            let signature = signatures.get(&function.entry);
            let sites = signature.map(|signature| values.sites(function, signature));
            let (entry, exit) = sites.unzip();
            let list = |site: &Option<(Site, FetchList)>| site.as_ref().map_or(EMPTY, |(_, list)| *list);
            lists.entries.push(list(&entry));
            lists.exits.push(list(&exit));
            values.entries.push(entry.map(|(site, _)| site));
            values.exits.push(exit.map(|(site, _)| site));
        }
        Ok((values, lists))
    }

    /// Returns the slots and fetch list of a function's entry, and of its exits.
    fn sites(
        &self,
        function: &TraceFunction,
        signature: &Signature,
    ) -> ((Site, FetchList), (Site, FetchList)) {
        let told = signature.parameters.iter().any(|parameter| parameter.name == DICTIONARY);
        let dictionary = dictionary(&function.symbol).filter(|_| !told);
        let registers = |parameter: &Parameter| match &parameter.location {
            Some(Location::Registers(registers)) => Some(registers.clone()),
            _ => None,
        };
        let said: Vec<_> = signature.parameters.iter().map(registers).collect();
        let parameters: Vec<_> =
            signature.parameters.iter().zip(&said).map(|(p, said)| (p.of, said.as_deref())).collect();
        let results: Vec<_> = signature.results.iter().map(|result| result.of).collect();
        let (parameters, results) = abi::assign(&self.types, &parameters, &results, dictionary);
        let all_told = self.bin.version().release.dwarf_has_all_parameters();
        let check =
            |(p, home): (&Parameter, Option<Vec<Piece>>)| check(p, home, function.overwritten, all_told);
        let parameters = signature.parameters.iter().zip(parameters).map(check).collect();
        let results = results.into_iter().map(readable).collect();
        (site(&self.types, &signature.parameters, parameters), site(&self.types, &signature.results, results))
    }

    /// Returns the number of functions whose parameters are missing in the debug information.
    pub fn unknown(&self) -> usize {
        self.entries.iter().filter(|site| site.is_none()).count()
    }

    /// Returns the names of all parameters of all functions, sorted, each once.
    pub fn parameters(&self) -> Vec<&str> {
        let slots = self.entries.iter().flatten().flat_map(|site| &site.slots);
        let names: BTreeSet<&str> = slots.map(|slot| slot.name.as_str()).collect();
        // The blank identifier is not a name.
        names.into_iter().filter(|name| ![DICTIONARY, "_"].contains(name)).collect()
    }

    /// Decodes the arguments, or at an exit the results, from the data read. `bias` is the load bias of the
    /// process; without it no value is known.
    pub fn decode(
        &mut self,
        hit: &Hit,
        at_exit: bool,
        data: &Data<'_>,
        bias: Option<u64>,
    ) -> Option<Vec<Argument>> {
        let sites = if at_exit { &self.exits } else { &self.entries };
        let site = sites.get(hit.function as usize)?.as_ref()?;
        let mut memory = Snapshot::new();
        for (i, step) in site.steps.iter().enumerate() {
            if data.done & 1 << i != 0 {
                add(&mut memory, step, data);
            }
        }
        let own: Vec<_> = (0u64..).zip(&site.slots).map(|(i, slot)| (slot, OWN + (i << 20))).collect();
        let mut missing = Vec::new();
        for (slot, at) in &own {
            missing.push(
                own_bytes(slot, site, data, &self.types, bias).map(|bytes| memory.add(*at, bytes)).err(),
            );
        }
        let bias = bias.unwrap_or(0);
        let context = self.contexts.entry(bias).or_insert_with(|| TypeContext::of(self.bin, bias));
        let memory = Layered { first: memory, second: self.bin.read_only_memory(bias) };
        let decoder = Decoder::new(&memory, context).with_code(self.bin);
        let itab_type = context.layout.itab.type_.into();
        let renderer = Renderer {
            types: &self.types,
            memory: &memory,
            bin: self.bin,
            bias,
            decoder: &decoder,
            itab_type,
        };
        let argument = |((slot, at), reason): (&(&Slot, u64), Option<&'static str>)| Argument {
            name: slot.name.clone(),
            type_name: self.types.name(slot.of).to_owned(),
            value: reason.is_none().then(|| renderer.render(slot.of, *at)),
            reason: reason.map(str::to_owned),
        };
        let shown = own.iter().zip(missing).filter(|((slot, _), _)| slot.name != DICTIONARY);
        Some(shown.map(argument).collect())
    }
}

/// The fetch lists for the kernel, by function.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    /// Fetch lists of entries.
    pub entries: Vec<FetchList>,
    /// Fetch lists of exits.
    pub exits: Vec<FetchList>,
}

/// Reads the registers only.
const EMPTY: FetchList = FetchList {
    count: 0,
    large: 0,
    steps: [Step { base: 0, to: 0, max: 0, count: 0, size: 0, add: 0 }; panicwatch_common::trace::STEPS],
};

/// Returns the index of the parameter that a generic function's dictionary precedes: the first, or that after
/// a method's receiver.
fn dictionary(symbol: &str) -> Option<usize> {
    let generic = symbol.find("[go.shape")?;
    // `main.(*T[go.shape.int]).M` and `main.T[go.shape.int].M` have a receiver; `main.f[go.shape.int].func1`
    // is a closure, which gets its dictionary from its context.
    let behind = symbol.rfind(']').map_or("", |at| &symbol[at + 1..]);
    if symbol[..generic].contains("(*") {
        return (behind.matches('.').count() <= 1).then_some(1);
    }
    match behind.strip_prefix('.') {
        None => Some(0),
        Some(rest) if rest.starts_with("func") || rest.contains('.') => None,
        Some(_) => Some(1),
    }
}

type Checked = Result<Vec<Piece>, &'static str>;

fn site(types: &GoTypes, parameters: &[Parameter], checked: Vec<Checked>) -> (Site, FetchList) {
    let known: Vec<(u32, &[Piece])> = parameters
        .iter()
        .zip(&checked)
        .filter_map(|(parameter, pieces)| Some((parameter.of, pieces.as_ref().ok()?.as_slice())))
        .collect();
    let (fetch, places) = Fetch::compile(types, &known);
    let list = fetch.list();
    let mut places = places.into_iter();
    let slots = parameters
        .iter()
        .zip(checked)
        .map(|(parameter, pieces)| Slot {
            name: parameter.name.clone(),
            of: parameter.of,
            pieces: pieces.map(|pieces| pieces.into_iter().zip(places.next().unwrap_or_default()).collect()),
        })
        .collect();
    (Site { slots, steps: fetch.steps }, list)
}

const NOT_UNDERSTOOD: &str = "its type, or that of one before it, is not supported";
const FLOATING: &str = "it is in a floating-point register, which a probe cannot read";

/// Returns the pieces of a parameter, unless the debug information contradicts them or they were overwritten.
/// `all_told`: every parameter is in the debug information.
fn check(parameter: &Parameter, home: Option<Vec<Piece>>, overwritten: u16, all_told: bool) -> Checked {
    let pieces = readable(home)?;
    let gone = |piece: &Piece| matches!(piece.home, Home::Integer(n) if overwritten & 1 << n != 0);
    if pieces.iter().any(gone) {
        return Err("its register is reused at the probe");
    }
    let number = |piece: &Piece| match piece.home {
        Home::Integer(n) => DWARF_REGISTERS.get(n).copied(),
        Home::Float(_) | Home::Stack(_) => None,
    };
    let ours: Vec<u16> = pieces.iter().filter_map(number).collect();
    let confirmed = match (&parameter.location, pieces.as_slice()) {
        // For a value that is used in part, the debug information may name only some of the registers.
        (Some(Location::Registers(theirs)), _) if theirs.iter().all(|register| ours.contains(register)) => {
            true
        }
        (Some(Location::Registers(_)), _) => {
            return Err("the debug information contradicts the calling convention");
        }
        // The debug information counts from behind the return address, the calling convention from the return
        // address.
        (Some(Location::Frame(offset)), [Piece { home: Home::Stack(home), .. }]) => {
            i64::try_from(*home).is_ok_and(|home| home - 8 == *offset)
        }
        _ => false,
    };
    if confirmed || all_told { Ok(pieces) } else { Err("the debug information has no location for it") }
}

/// Returns the pieces of a value for which there is no debug information to compare with.
fn readable(home: Option<Vec<Piece>>) -> Checked {
    let pieces = home.ok_or(NOT_UNDERSTOOD)?;
    let floating = pieces.iter().any(|piece| matches!(piece.home, Home::Float(_)));
    if floating { Err(FLOATING) } else { Ok(pieces) }
}

/// Adds the data of a read at the address from which it was read.
fn add(memory: &mut Snapshot, step: &Step, data: &Data<'_>) {
    let Some(base) = data.word(step.base.into()) else { return };
    let mut len = usize::from(step.max);
    if step.count != NO_COUNT {
        let count = data.word(step.count.into()).unwrap_or(0).min(STEP_BYTES as u64);
        len = len.min(usize::try_from(count * u64::from(step.size)).unwrap_or(usize::MAX));
    }
    let to = usize::from(step.to);
    if let Some(bytes) = data.bytes.get(to..to + len) {
        memory.add(base.wrapping_add(i64::from(step.add) as u64), bytes);
    }
}

/// Returns the bytes of a value itself, without what it points to.
fn own_bytes(
    slot: &Slot,
    site: &Site,
    data: &Data<'_>,
    types: &GoTypes,
    bias: Option<u64>,
) -> Result<Vec<u8>, &'static str> {
    let pieces = slot.pieces.as_ref().map_err(|reason| *reason)?;
    bias.ok_or("the program's load address in the process is unknown")?;
    let size = types.get(slot.of).map_or(0, |own| own.size);
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0).min(1 << 16)];
    for (piece, at) in pieces {
        if *at == NOWHERE {
            return Err("it is too large to be read at every call");
        }
        let (from, len) = (piece.offset as usize, piece.size as usize);
        // A piece on the stack was read by a step of its own.
        let step = site.steps.iter().position(|step| usize::from(step.to) == *at && *at >= 8 * WORDS);
        if step.is_some_and(|step| data.done & 1 << step == 0) {
            return Err("it could not be read");
        }
        let target = bytes.get_mut(from..from + len).ok_or("its type is not supported")?;
        target.copy_from_slice(data.bytes.get(*at..*at + len).ok_or("it could not be read")?);
    }
    Ok(bytes)
}
