//! Addresses to functions, files and lines, of a Go binary ([`Symbolizer`]) and of the kernel ([`kernel`]).
//!
//! An address that cannot be resolved is not an error: it has a [`Reason`]. [`request`] reads what people write for an
//! address, [`batch`] resolves very many at once, [`listing`] gives the instructions around one, [`text`] prints both.

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

/// Instances of a generic function that are named.
const MAX_INSTANCES: usize = 8;

/// Which instruction an address stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// The one at it.
    Exact,
    /// The call before it: the address is where that call returns to, as in tracebacks.
    Return,
}

impl Lookup {
    /// The address looked up for `pc` in a function that begins at `entry`. As Go's traceback does it, a return
    /// address that is the entry stands for itself.
    /// <https://github.com/golang/go/blob/go1.24.11/src/runtime/symtab.go> runtime.Frames.Next
    fn apply(self, pc: u64, entry: u64) -> u64 {
        if self == Self::Return && pc > entry { pc - 1 } else { pc }
    }
}

/// An address, resolved or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resolved {
    /// As asked for: at run time where the process is known.
    pub address: Addr,
    /// Innermost first; empty when there is a reason.
    pub frames: Vec<Owned>,
    /// Why there are no frames.
    pub reason: Option<String>,
}

/// A frame, and whose code it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owned {
    /// The frame.
    #[serde(flatten)]
    pub frame: Frame,
    /// Import path of its package.
    pub package: Option<String>,
    /// Its module and the module's version; "std" and the Go release for the standard library, the name of a module
    /// in the kernel.
    pub module: Option<String>,
}

impl Resolved {
    /// One without frames.
    pub fn unknown(address: u64, reason: &impl ToString) -> Self {
        Self { address: Addr(address), frames: Vec::new(), reason: Some(reason.to_string()) }
    }
}

/// Why an address has no function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// Not code of the binary.
    #[error("outside the program's code, which is {lo:#x} to {hi:#x}{}", hint(*.pie))]
    Outside {
        /// Where the code begins.
        lo: u64,
        /// Where it ends.
        hi: u64,
        /// The addresses of a running process are others.
        pie: bool,
    },
    /// Code without an entry in the table: damage, or what a C linker put between.
    #[error("no Go function is there")]
    NoFunction,
    /// No such name.
    #[error("the program has no function {0:?}")]
    NoSuchFunction(String),
    /// A generic function, of which there are several instances.
    #[error("there are several {name:?}: {instances}")]
    Ambiguous {
        /// As Go prints it.
        name: String,
        /// Names in the table, some of them.
        instances: String,
    },
    /// The function is shorter.
    #[error("{name} has {len:#x} bytes only")]
    BehindFunction {
        /// Its name.
        name: String,
        /// Its length in bytes.
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

/// Resolves addresses of one binary.
#[derive(Debug)]
pub struct Symbolizer<'a> {
    bin: &'a GoBinary,
    bias: u64,
    modules: Modules,
}

impl<'a> Symbolizer<'a> {
    /// For a program loaded `bias` above its link-time addresses.
    pub fn new(bin: &'a GoBinary, bias: u64) -> Self {
        Self { bin, bias, modules: Modules::of(bin) }
    }

    /// The binary.
    pub fn binary(&self) -> &'a GoBinary {
        self.bin
    }

    /// Run-time less link-time address.
    pub fn bias(&self) -> u64 {
        self.bias
    }

    /// The run-time address that `request` means.
    ///
    /// # Errors
    /// When it names a function that is not there, or an offset behind its end.
    pub fn locate(&self, request: &Request) -> Result<u64, Reason> {
        match request {
            Request::Address(address) => Ok(*address),
            Request::File(offset) => {
                Ok(self.bin.lowest_address().wrapping_add(*offset).wrapping_add(self.bias))
            }
            Request::Function { name, offset } => {
                let func = self.function(name)?;
                let len = func.end() - func.entry();
                // A return address may be the first behind a function that ends in a call.
                if *offset > len {
                    return Err(Reason::BehindFunction { name: name.clone(), len });
                }
                Ok(func.entry().wrapping_add(*offset).wrapping_add(self.bias))
            }
        }
    }

    /// The function called `name`, which may be as Go prints it.
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
