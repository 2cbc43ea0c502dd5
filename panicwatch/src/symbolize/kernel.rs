//! The kernel's own symbols: from the list the running kernel gives (/proc/kallsyms), and with files and lines from a
//! vmlinux with debug information.
//!
//! Knows texts; reading them is the caller's. Modules' sizes come from /proc/modules.
//! <https://github.com/torvalds/linux/blob/v6.12/kernel/kallsyms.c> s_show,
//! <https://github.com/torvalds/linux/blob/v6.12/kernel/module/procfs.c> m_show

use std::{ops::Range, path::Path};

use super::{Lookup, Owned, Request, Resolved};
use crate::incident::{Addr, Frame};

/// Code that no module owns (BPF programs, trampolines) has no known end: a symbol reaches this far at most, bytes.
const MAX_LONE: u64 = 1 << 20;

/// Why the kernel's symbols cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The list has zeroes for addresses.
    #[error(
        "the kernel hides its addresses (/proc/kallsyms has zeroes): run as root, with kernel.kptr_restrict below 2"
    )]
    Hidden,
    /// The list has no symbols at all.
    #[error("/proc/kallsyms has no symbols: the kernel was built without CONFIG_KALLSYMS")]
    Empty,
    /// vmlinux cannot be read.
    #[error("{path}: {reason}")]
    Vmlinux {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
}

/// Why a kernel address has no function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelReason {
    /// Not in the kernel's or a module's code.
    #[error("no kernel code at this address")]
    NoCode,
    /// No such name.
    #[error("the kernel has no symbol {0:?}")]
    NoSuchSymbol(String),
    /// Not a request that the kernel can answer.
    #[error("an offset in a file has no meaning for the kernel")]
    File,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Symbol {
    address: u64,
    name: String,
    module: Option<String>,
}

/// The kernel's symbols.
pub struct Kernel {
    /// Code only, by address.
    symbols: Vec<Symbol>,
    /// _stext to _etext.
    core: Range<u64>,
    /// Where each loaded module lies.
    modules: Vec<(String, Range<u64>)>,
    vmlinux: Option<Vmlinux>,
}

impl Kernel {
    /// Reads the texts of /proc/kallsyms and /proc/modules.
    ///
    /// # Errors
    /// When there are no symbols, or no addresses in them.
    pub fn parse(kallsyms: &str, modules: &str) -> Result<Self, KernelError> {
        let mut symbols: Vec<Symbol> = kallsyms.lines().filter_map(symbol).collect();
        if symbols.is_empty() {
            return Err(KernelError::Empty);
        }
        if symbols.iter().all(|s| s.address == 0) {
            return Err(KernelError::Hidden);
        }
        // Stable: of several names of one place, the first in the list is the one the kernel prefers.
        symbols.sort_by_key(|s| s.address);
        let at = |name: &str| symbols.iter().find(|s| s.name == name).map(|s| s.address);
        let core = at("_stext").or_else(|| at("_text")).unwrap_or(0)..at("_etext").unwrap_or(0);
        let modules = modules.lines().filter_map(module).collect();
        Ok(Self { symbols, core, modules, vmlinux: None })
    }

    /// Adds files, lines and inlined calls from the kernel image at `path`.
    ///
    /// # Errors
    /// When it cannot be read, has no symbol `_stext`, or no debug information.
    pub fn with_vmlinux(mut self, path: &Path) -> Result<Self, KernelError> {
        self.vmlinux = Some(Vmlinux::open(path, self.core.start)?);
        Ok(self)
    }

    /// The address that `request` means.
    ///
    /// # Errors
    /// When there is no such symbol.
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
        let known =
            self.vmlinux.as_ref().filter(|_| in_core).map(|image| image.frames(pc)).unwrap_or_default();
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

    /// Symbol and offset of `address`, as `name+0x10`.
    pub fn name(&self, address: u64) -> Option<String> {
        self.symbol_at(address).map(|symbol| format!("{}+{:#x}", symbol.name, address - symbol.address))
    }

    fn symbol_at(&self, address: u64) -> Option<&Symbol> {
        let next = self.symbols.partition_point(|s| s.address <= address);
        let last = self.symbols.get(next.checked_sub(1)?)?;
        // The first of those at the same place.
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

/// "ffffffff81000000 T _stext", "ffffffffc0201000 t ext4_get_block\t[ext4]".
fn symbol(line: &str) -> Option<Symbol> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    let kind = words.next()?;
    matches!(kind, "t" | "T" | "w" | "W").then_some(())?;
    let name = words.next()?.to_owned();
    let module = words.next().and_then(|m| Some(m.strip_prefix('[')?.strip_suffix(']')?.to_owned()));
    Some(Symbol { address, name, module })
}

/// "ext4 1011712 1 - Live 0xffffffffc0200000".
fn module(line: &str) -> Option<(String, Range<u64>)> {
    let mut words = line.split_ascii_whitespace();
    let name = words.next()?.to_owned();
    let size: u64 = words.next()?.parse().ok()?;
    let start = u64::from_str_radix(words.find(|w| w.starts_with("0x"))?.strip_prefix("0x")?, 16).ok()?;
    (start != 0).then(|| (name, start..start.saturating_add(size)))
}

/// A kernel image with debug information.
struct Vmlinux {
    loader: addr2line::Loader,
    /// Run-time less link-time address: where the boot loader put the kernel (KASLR).
    slide: u64,
}

impl Vmlinux {
    fn open(path: &Path, stext: u64) -> Result<Self, KernelError> {
        let refuse = |reason: String| KernelError::Vmlinux { path: path.display().to_string(), reason };
        let linked = symbol_of(path, "_stext").map_err(refuse)?;
        let loader = addr2line::Loader::new(path).map_err(|e| refuse(e.to_string()))?;
        let image = Self { loader, slide: stext.wrapping_sub(linked) };
        Ok(image)
    }

    /// Innermost first; empty where the debug information says nothing.
    fn frames(&self, address: u64) -> Vec<Frame> {
        let mut out = Vec::new();
        let Ok(mut frames) = self.loader.find_frames(address.wrapping_sub(self.slide)) else { return out };
        while let Ok(Some(frame)) = frames.next() {
            let name =
                frame.function.as_ref().and_then(|f| f.raw_name().ok()).unwrap_or_default().into_owned();
            let location = frame.location.as_ref();
            out.push(Frame {
                function: name,
                file: location.and_then(|l| l.file).map(str::to_owned),
                line: location.and_then(|l| l.line),
                ..Frame::default()
            });
        }
        out
    }
}

fn symbol_of(path: &Path, name: &str) -> Result<u64, String> {
    use object::{Object as _, ObjectSymbol as _};
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    // SAFETY: the mapping is private and read-only; a kernel image is not changed while it is looked at.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| e.to_string())?;
    let file = object::File::parse(&*map).map_err(|e| e.to_string())?;
    if file.section_by_name(".debug_info").is_none() {
        return Err("it has no debug information".to_owned());
    }
    let found = file.symbols().find(|s| s.name() == Ok(name)).map(|s| s.address());
    found.ok_or_else(|| format!("it has no symbol {name}: not a vmlinux"))
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
