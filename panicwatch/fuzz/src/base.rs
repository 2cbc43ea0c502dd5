//! The Go programs that inputs damage, and the patching.
//!
//! `cargo xtask fuzz` builds the programs and passes their directory in `PANICWATCH_FUZZ_BINARIES`. Each
//! program is read once; an input's patches are applied to that copy and undone afterwards, so that a run
//! copies nothing.

use std::{collections::BTreeMap, fs, ops::Range, path::PathBuf, sync::Arc};

use panicwatch::go::gobin::{GoBinary, SharedBytes};

/// Maximum number of patches per input.
const MAX_PATCHES: usize = 64;

/// A program that is undamaged between runs.
pub(crate) struct Base {
    bytes: Arc<Vec<u8>>,
    /// File ranges that patches may change.
    pub(crate) regions: Vec<Range<usize>>,
    /// Addresses to look up, found in the undamaged program.
    pub(crate) addresses: Vec<u64>,
}

/// Finds the regions and addresses that a target uses, in the undamaged program.
pub(crate) type Survey = fn(&GoBinary) -> (Vec<Range<usize>>, Vec<u64>);

/// Reads the programs whose file names begin with `prefix`.
///
/// # Panics
/// Panics if there are none: nothing could be fuzzed.
pub(crate) fn load(prefix: &str, survey: Survey) -> Vec<Base> {
    let dir = std::env::var_os("PANICWATCH_FUZZ_BINARIES").map(PathBuf::from);
    let dir = dir.expect("PANICWATCH_FUZZ_BINARIES is set (run `cargo xtask fuzz`)");
    let entries = fs::read_dir(&dir).expect("the folder of Go programs opens");
    // Sorted by name, so that an input selects the same program in every run.
    let files: BTreeMap<_, _> = entries
        .filter_map(Result::ok)
        .map(|e| (e.file_name().to_string_lossy().into_owned(), e.path()))
        .filter(|(name, _)| name.starts_with(prefix))
        .collect();
    assert!(!files.is_empty(), "no Go program {prefix}* in {}", dir.display());
    files.into_values().map(|path| Base::new(fs::read(path).expect("a program"), survey)).collect()
}

impl Base {
    fn new(bytes: Vec<u8>, survey: Survey) -> Self {
        let bytes = Arc::new(bytes);
        let bin = GoBinary::parse(Arc::clone(&bytes) as SharedBytes).expect("a whole Go program");
        let (regions, addresses) = survey(&bin);
        drop(bin);
        let regions: Vec<_> =
            regions.into_iter().filter(|r| r.start < r.end && r.end <= bytes.len()).collect();
        assert!(!regions.is_empty() && !addresses.is_empty(), "nothing to fuzz in the program");
        Self { bytes, regions, addresses }
    }

    /// Applies the patches of `input`, calls `run` on the patched program, and undoes the patches.
    ///
    /// A patch consists of a region index (one byte), an offset (three bytes, little-endian, wrapped into the
    /// region), a length (one byte, modulo 16, plus 1), and that many bytes. The rest of the input is passed
    /// to `run`.
    pub(crate) fn patched(&mut self, input: &[u8], run: impl FnOnce(SharedBytes, &[u64], &[u8])) {
        let mut rest = input;
        let mut undo = Vec::new();
        let bytes = Arc::get_mut(&mut self.bytes).expect("the last run kept nothing");
        while undo.len() < MAX_PATCHES
            && let Some((&[region, a, b, c, len], tail)) = rest.split_first_chunk::<5>()
            && region != END
        {
            let range = &self.regions[usize::from(region) % self.regions.len()];
            let at = range.start + u32::from_le_bytes([a, b, c, 0]) as usize % range.len();
            let len = (usize::from(len) % 16 + 1).min(tail.len()).min(bytes.len() - at);
            let (patch, tail) = tail.split_at(len);
            undo.push((at, bytes[at..at + len].to_vec()));
            bytes[at..at + len].copy_from_slice(patch);
            rest = tail;
        }
        if rest.first() == Some(&END) {
            rest = &rest[1..];
        }
        run(Arc::clone(&self.bytes) as SharedBytes, &self.addresses, rest);
        let bytes = Arc::get_mut(&mut self.bytes).expect("this run kept nothing");
        for (at, old) in undo.into_iter().rev() {
            bytes[at..at + old.len()].copy_from_slice(&old);
        }
    }
}

/// Region byte that ends the list of patches.
const END: u8 = 0xff;
