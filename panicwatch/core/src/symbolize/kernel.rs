//! The kernel's own symbols: from the list of the running kernel (/proc/kallsyms), and with files and lines
//! from a vmlinux with debug information.
//!
//! Parses texts; the caller reads them. Modules' sizes are from /proc/modules.
//! <https://github.com/torvalds/linux/blob/v6.12/kernel/kallsyms.c> s_show,
//! <https://github.com/torvalds/linux/blob/v6.12/kernel/module/procfs.c> m_show

use std::ops::Range;

use super::{Lookup, Owned, Request, Resolved};
use crate::incident::{Addr, Frame};

/// Maximum length in bytes attributed to a symbol without a loaded module (BPF programs, trampolines), whose
/// end is unknown.
const MAX_LONE: u64 = 1 << 20;

/// Why the kernel's symbols cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// All addresses in the list are zero.
    #[error(
        "the kernel hides its addresses (/proc/kallsyms has zeroes): run as root, with kernel.kptr_restrict below 2"
    )]
    Hidden,
    /// The list has no symbols.
    #[error("/proc/kallsyms has no symbols: the kernel was built without CONFIG_KALLSYMS")]
    Empty,
    /// The vmlinux cannot be used.
    #[error("{path}: {reason}")]
    Vmlinux {
        /// Path of the file.
        path: String,
        /// Why it cannot be used.
        reason: String,
    },
}

/// Why a kernel address has no function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelReason {
    /// The address is not in the kernel's or a module's code.
    #[error("no kernel code at this address")]
    NoCode,
    /// There is no symbol of this name.
    #[error("the kernel has no symbol {0:?}")]
    NoSuchSymbol(String),
    /// The request is an offset in a file, which the kernel cannot resolve.
    #[error("an offset in a file has no meaning for the kernel")]
    File,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Symbol {
    address: u64,
    name: String,
    module: Option<String>,
}

/// A kernel image with debug information.
pub trait Image {
    /// The frames at a run-time address, innermost first; empty where the debug information says nothing.
    fn frames(&self, address: u64) -> Vec<Frame>;
}

/// The kernel's symbols.
pub struct Kernel {
    /// Symbols of code only, sorted by address.
    symbols: Vec<Symbol>,
    /// Range from _stext to _etext.
    core: Range<u64>,
    /// Address range of each loaded module.
    modules: Vec<(String, Range<u64>)>,
    image: Option<Box<dyn Image>>,
}

impl Kernel {
    /// Parses the texts of /proc/kallsyms and /proc/modules.
    ///
    /// # Errors
    /// Returns an error when there are no symbols, or they have no addresses.
    pub fn parse(kallsyms: &str, modules: &str) -> Result<Self, KernelError> {
        let mut symbols: Vec<Symbol> = kallsyms.lines().filter_map(symbol).collect();
        if symbols.is_empty() {
            return Err(KernelError::Empty);
        }
        if symbols.iter().all(|s| s.address == 0) {
            return Err(KernelError::Hidden);
        }
        // Stable: of several names at one address, the first in the list is the one the kernel prefers.
        symbols.sort_by_key(|s| s.address);
        let at = |name: &str| symbols.iter().find(|s| s.name == name).map(|s| s.address);
        let core = at("_stext").or_else(|| at("_text")).unwrap_or(0)..at("_etext").unwrap_or(0);
        let modules = modules.lines().filter_map(module).collect();
        Ok(Self { symbols, core, modules, image: None })
    }

    /// Where the kernel's code begins: its symbol `_stext`.
    pub fn start(&self) -> u64 {
        self.core.start
    }

    /// Adds files, lines and inlined calls from the kernel's image.
    #[must_use]
    pub fn with_image(mut self, image: Box<dyn Image>) -> Self {
        self.image = Some(image);
        self
    }

    /// Returns the address that `request` refers to.
    ///
    /// # Errors
    /// Returns an error when there is no such symbol.
    pub fn locate(&self, request: &Request) -> Result<u64, KernelReason> {
        match request {
            Request::Address(address) => Ok(*address),
            Request::File(_) => Err(KernelReason::File),
            Request::Function { name, offset } => {
                let found = self.symbols.iter().find(|s| s.name == *name);
                let found = found.ok_or_else(|| KernelReason::NoSuchSymbol(name.clone()))?;
                Ok(found.address.wrapping_add(*offset))
            }
        }
    }

    /// Resolves `address`.
    pub fn resolve(&self, address: u64, lookup: Lookup) -> Resolved {
        let Some(symbol) = self.symbol_at(address) else {
            return Resolved::unknown(address, &KernelReason::NoCode);
        };
        let pc = lookup.apply(address, symbol.address);
        let offset = address - symbol.address;
        let outermost =
            Frame { function: symbol.name.clone(), pc: Addr(address), offset, ..Frame::default() };
        let in_core = symbol.module.is_none();
        let known = self.image.as_ref().filter(|_| in_core).map(|image| image.frames(pc)).unwrap_or_default();
        let module = symbol.module.as_deref().unwrap_or("vmlinux");
        let owned = |frame| Owned { frame, package: None, module: Some(module.to_owned()) };
        let frames = match known.len().checked_sub(1) {
            None => vec![owned(outermost)],
            Some(last) => {
                let frame = |(i, frame): (usize, Frame)| Frame {
                    // The name in the list is the one that the kernel prints.
                    function: if i == last { symbol.name.clone() } else { frame.function },
                    pc: Addr(address),
                    offset,
                    inlined: i != last,
                    ..frame
                };
                known.into_iter().enumerate().map(|known| owned(frame(known))).collect()
            }
        };
        Resolved { address: Addr(address), frames, reason: None }
    }

    /// Returns symbol and offset of `address`, as `name+0x10`.
    pub fn name(&self, address: u64) -> Option<String> {
        self.symbol_at(address).map(|symbol| format!("{}+{:#x}", symbol.name, address - symbol.address))
    }

    fn symbol_at(&self, address: u64) -> Option<&Symbol> {
        let next = self.symbols.partition_point(|s| s.address <= address);
        let last = self.symbols.get(next.checked_sub(1)?)?;
        // The first of the symbols at the same address.
        let from = self.symbols[..next].partition_point(|s| s.address < last.address);
        let symbol = self.symbols.get(from)?;
        let inside = match &symbol.module {
            None => self.core.contains(&address),
            Some(name) => match self.modules.iter().find(|(module, _)| module == name) {
                Some((_, range)) => range.contains(&address),
                None => address - symbol.address < MAX_LONE,
            },
        };
        inside.then_some(symbol)
    }
}

/// Parses a line of /proc/kallsyms: "ffffffff81000000 T _stext", "ffffffffc0201000 t ext4_get_block\t[ext4]".
fn symbol(line: &str) -> Option<Symbol> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    let kind = words.next()?;
    matches!(kind, "t" | "T" | "w" | "W").then_some(())?;
    let name = words.next()?.to_owned();
    let module = words.next().and_then(|m| Some(m.strip_prefix('[')?.strip_suffix(']')?.to_owned()));
    Some(Symbol { address, name, module })
}

/// Parses a line of /proc/modules: "ext4 1011712 1 - Live 0xffffffffc0200000".
fn module(line: &str) -> Option<(String, Range<u64>)> {
    let mut words = line.split_ascii_whitespace();
    let name = words.next()?.to_owned();
    let size: u64 = words.next()?.parse().ok()?;
    let start = u64::from_str_radix(words.find(|w| w.starts_with("0x"))?.strip_prefix("0x")?, 16).ok()?;
    (start != 0).then(|| (name, start..start.saturating_add(size)))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const KALLSYMS: &str = "\
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000100 T vfs_read
ffffffff81000100 t __pfx_alias
ffffffff81000180 D some_data
ffffffff81000200 t do_thing
ffffffff81000300 T _etext
ffffffffc0201000 t ext4_read\t[ext4]
ffffffffc0300000 t bpf_prog_6deef7357e7b4530\t[bpf]
";
    const MODULES: &str = "ext4 8192 1 - Live 0xffffffffc0200000\n";

    fn check(lookup: Lookup, addresses: &[u64], want: Expect) {
        let kernel = Kernel::parse(KALLSYMS, MODULES).expect("symbols");
        let lines: Vec<_> = addresses
            .iter()
            .map(|a| {
                let r = kernel.resolve(*a, lookup);
                let show = |f: &Owned| {
                    format!(
                        "{}+{:#x} {}",
                        f.frame.function,
                        f.frame.offset,
                        f.module.as_deref().unwrap_or("?")
                    )
                };
                format!("{a:#x} {}\n", r.frames.first().map(show).or(r.reason).unwrap_or_default())
            })
            .collect();
        want.assert_eq(&lines.concat());
    }

    #[test]
    fn code_of_kernel_modules_and_bpf_programs() {
        check(
            Lookup::Exact,
            &[
                0xffff_ffff_8100_0010,
                0xffff_ffff_8100_0190,
                0xffff_ffff_8100_0300,
                0xffff_ffff_c020_1008,
                0xffff_ffff_c020_2000,
                0xffff_ffff_c030_0010,
                0x1000,
            ],
            expect![[r#"
                0xffffffff81000010 _stext+0x10 vmlinux
                0xffffffff81000190 vfs_read+0x90 vmlinux
                0xffffffff81000300 no kernel code at this address
                0xffffffffc0201008 ext4_read+0x8 ext4
                0xffffffffc0202000 no kernel code at this address
                0xffffffffc0300010 bpf_prog_6deef7357e7b4530+0x10 bpf
                0x1000 no kernel code at this address
            "#]],
        );
    }

    #[test]
    fn names_are_found_and_unknown_ones_said() {
        let kernel = Kernel::parse(KALLSYMS, MODULES).expect("symbols");
        let locate = |name: &str| kernel.locate(&Request::Function { name: name.into(), offset: 8 });
        assert_eq!(locate("do_thing"), Ok(0xffff_ffff_8100_0208));
        assert_eq!(locate("nothing"), Err(KernelReason::NoSuchSymbol("nothing".into())));
    }

    #[test]
    fn hidden_addresses_are_said() {
        let hidden = "0000000000000000 T _stext\n0000000000000000 T vfs_read\n";
        assert!(matches!(Kernel::parse(hidden, ""), Err(KernelError::Hidden)));
        assert!(matches!(Kernel::parse("", ""), Err(KernelError::Empty)));
        assert!(matches!(Kernel::parse("garbage\nx y z\n", ""), Err(KernelError::Empty)));
    }
}
