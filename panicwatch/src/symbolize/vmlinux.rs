//! A vmlinux with debug information, as a file: the kernel's files, lines and inlined calls.

use std::path::Path;

use super::kernel::{Image, Kernel, KernelError};
use crate::incident::Frame;

/// Adds files, lines and inlined calls from the kernel image at `path`.
///
/// # Errors
/// When it cannot be read, has no symbol `_stext`, or no debug information.
pub fn add(kernel: Kernel, path: &Path) -> Result<Kernel, KernelError> {
    let image = Vmlinux::open(path, kernel.start())?;
    Ok(kernel.with_image(Box::new(image)))
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
}

impl Image for Vmlinux {
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
