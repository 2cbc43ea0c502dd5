//! Resolves addresses to functions, files and lines, of a Go binary ([`Symbolizer`]) and of the kernel
//! ([`kernel`]).
//!
//! An address that cannot be resolved is not an error: it has a [`Reason`]. [`request`] parses the forms in
//! which people write an address, [`batch`] resolves very many at once, [`listing`] returns the instructions
//! around one, [`text`] prints both.

pub mod answer;
pub mod batch;
pub mod kernel;
pub mod listing;
pub mod modules;
pub mod raised;
pub mod request;
pub mod text;

use serde::Serialize;

pub use self::{answer::Answer, modules::Modules, request::Request};
use crate::{
    go::gobin::{CodeFrame, Func, GoBinary},
    incident::{Addr, Frame},
};

/// Maximum number of instances of a generic function that an error names.
const MAX_INSTANCES: usize = 8;

/// The instruction to which an address refers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// The instruction at the address.
    Exact,
    /// The call before the address: the address is a return address, as in tracebacks.
    Return,
}

impl Lookup {
    /// Returns the address to look up for `pc` in a function that begins at `entry`. As in Go's traceback, a
    /// return address equal to the entry refers to the entry itself.
    /// <https://github.com/golang/go/blob/go1.24.11/src/runtime/symtab.go> runtime.Frames.Next
    fn apply(self, pc: u64, entry: u64) -> u64 {
        if self == Self::Return && pc > entry { pc - 1 } else { pc }
    }
}

/// An address with its frames, or the reason why there are none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resolved {
    /// The requested address: run-time if the process is known.
    pub address: Addr,
    /// Frames, innermost first; empty if there is a reason.
    pub frames: Vec<Owned>,
    /// Why there are no frames.
    pub reason: Option<String>,
}

/// A frame with the package and module that own its code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owned {
    /// The frame, as in an incident's stack.
    #[serde(flatten)]
    pub frame: Frame,
    /// Import path of the package.
    pub package: Option<String>,
    /// Module and version: "std" and the Go release for the standard library, the name of a module in the
    /// kernel.
    pub module: Option<String>,
}

impl Resolved {
    /// Returns an address without frames.
    pub fn unknown(address: u64, reason: &impl ToString) -> Self {
        Self { address: Addr(address), frames: Vec::new(), reason: Some(reason.to_string()) }
    }
}

/// Why an address has no function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The address is not in the binary's code.
    #[error("outside the program's code, which is {lo:#x} to {hi:#x}{}", hint(*.pie))]
    Outside {
        /// Start of the code.
        lo: u64,
        /// End of the code, exclusive.
        hi: u64,
        /// Whether the binary is position-independent and no load bias was given, so that a process's
        /// addresses differ.
        pie: bool,
    },
    /// Code without an entry in the table: damage, or inserted by a C linker.
    #[error("no Go function at this address")]
    NoFunction,
    /// There is no function of this name.
    #[error("the program has no function {0:?}")]
    NoSuchFunction(String),
    /// The name is that of a generic function with several instances.
    #[error("there are several {name:?}: {instances}")]
    Ambiguous {
        /// Name as Go prints it.
        name: String,
        /// Names in the table, up to a maximum number.
        instances: String,
    },
    /// The offset is beyond the end of the function.
    #[error("{name} has only {len:#x} bytes")]
    BehindFunction {
        /// Name of the function.
        name: String,
        /// Length of the function in bytes.
        len: u64,
    },
}

fn hint(pie: bool) -> &'static str {
    if pie {
        "; it is position-independent: for an address of a running process give --pid, for one of a dead process --load-address"
    } else {
        ""
    }
}

/// Resolver of the addresses of one binary.
#[derive(Debug)]
pub struct Symbolizer<'a> {
    bin: &'a GoBinary,
    bias: u64,
    modules: Modules,
}

impl<'a> Symbolizer<'a> {
    /// Returns a symbolizer for a program with load bias `bias`.
    pub fn new(bin: &'a GoBinary, bias: u64) -> Self {
        Self { bin, bias, modules: Modules::of(bin) }
    }

    /// Returns the binary.
    pub fn binary(&self) -> &'a GoBinary {
        self.bin
    }

    /// Returns the load bias: run-time address minus link-time address.
    pub fn bias(&self) -> u64 {
        self.bias
    }

    /// Returns the run-time address that `request` refers to.
    ///
    /// # Errors
    /// Returns an error when it names a function that does not exist, or an offset beyond its end.
    pub fn locate(&self, request: &Request) -> Result<u64, Reason> {
        match request {
            Request::Address(address) => Ok(*address),
            Request::File(offset) => {
                Ok(self.bin.lowest_address().wrapping_add(*offset).wrapping_add(self.bias))
            }
            Request::Function { name, offset } => {
                let func = self.function(name)?;
                let len = func.end() - func.entry();
                // A return address may be the first one after a function that ends in a call.
                if *offset > len {
                    return Err(Reason::BehindFunction { name: name.clone(), len });
                }
                Ok(func.entry().wrapping_add(*offset).wrapping_add(self.bias))
            }
        }
    }

    /// Returns the function named `name`, which may be written as Go prints it.
    fn function(&self, name: &str) -> Result<Func<'a>, Reason> {
        if let Some(func) = self.bin.function(name) {
            return Ok(func);
        }
        let mut found: Vec<Func<'a>> = match name.contains("[...]") {
            true => self.bin.functions().filter(|f| f.display_name() == name).take(MAX_INSTANCES).collect(),
            false => Vec::new(),
        };
        match found.len() {
            0 => Err(Reason::NoSuchFunction(name.to_owned())),
            1 => Ok(found.remove(0)),
            _ => {
                let names: Vec<_> = found.iter().map(|f| f.name().into_owned()).collect();
                Err(Reason::Ambiguous { name: name.to_owned(), instances: names.join(", ") })
            }
        }
    }

    /// Resolves the run-time address `address`.
    pub fn resolve(&self, address: u64, lookup: Lookup) -> Resolved {
        let pc = address.wrapping_sub(self.bias);
        let Some(func) = self.bin.find_func(pc) else {
            return Resolved::unknown(address, &self.reason(pc));
        };
        let owned = |frame: CodeFrame<'_>| {
            let (package, module) = self.modules.of_function(&frame.raw_name, frame.file.as_deref());
            let frame = Frame {
                function: frame.function.into_owned(),
                file: frame.file.map(|file| file.into_owned()),
                line: frame.line,
                pc: Addr(address),
                offset: pc - frame.entry,
                inlined: frame.inlined,
            };
            Owned { frame, package, module }
        };
        let frames = func.frames_at(lookup.apply(pc, func.entry())).into_iter().map(owned).collect();
        Resolved { address: Addr(address), frames, reason: None }
    }

    fn reason(&self, pc: u64) -> Reason {
        let (lo, hi) = (self.bin.moduledata().text, self.bin.moduledata().etext);
        if (lo..hi).contains(&pc) {
            Reason::NoFunction
        } else {
            let pie = self.bin.is_pie() && self.bias == 0;
            Reason::Outside { lo: lo.wrapping_add(self.bias), hi: hi.wrapping_add(self.bias), pie }
        }
    }
}
