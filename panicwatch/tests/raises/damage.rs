//! Damaged code, types and texts: a result or an error, for every address.

use std::sync::Arc;

use panicwatch::{gobin::GoBinary, raises::raised_by};

use crate::{build, support::toolchains};

#[test]
fn damaged_code_is_survived() {
    let dir = tempfile::tempdir().expect("a directory");
    for toolchain in toolchains().into_iter().filter(|t| matches!(t.version().minor(), 19 | 27)) {
        let exe = dir.path().join("raises");
        let bin = build(&toolchain, &[], &exe);
        let data = std::fs::read(&exe).expect("the binary");
        let ours: Vec<_> = bin
            .functions()
            .filter(|f| f.name().starts_with("main.k"))
            .map(|f| (f.entry(), f.end()))
            .collect();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let (mut said, mut unknown) = (0, 0);
        for _ in 0..40 {
            let mut damaged = data.clone();
            for (entry, end) in &ours {
                let at = bin.file_offset(entry + next() % (end - entry)).expect("in the file") as usize;
                damaged[at] = next() as u8;
            }
            // Damages types and texts too.
            for start in [bin.moduledata().types, bin.moduledata().rodata] {
                let at = bin.file_offset(start).expect("in the file") as usize + (next() % 0x8000) as usize;
                damaged[at] ^= 1 << (next() % 8);
            }
            let Ok(damaged) = GoBinary::parse(Arc::new(damaged)) else { continue };
            for pc in ours.iter().flat_map(|(entry, end)| *entry..*end) {
                match raised_by(&damaged, pc) {
                    Ok(_) => said += 1,
                    Err(_) => unknown += 1,
                }
            }
        }
        println!("go{}: {said} addresses raise, {unknown} do not", toolchain.release);
        assert!(said > 10_000 && unknown > 1000, "{said}, {unknown}");
    }
}
