//! How much of a whole program can be described: Go's own command, of every release.

use panicwatch::{
    gobin,
    raises::{Kind, RaisedBy, Seen, all_in},
};

use crate::support::toolchains;

/// Counts over a whole program.
#[derive(Debug, Default)]
struct Tally {
    functions: usize,
    places: usize,
    bounds: usize,
    /// Bounds errors for which both values were found in the comparison.
    compared: usize,
    /// Calls of gopanic, and those for which the type of the value was found.
    panics: usize,
    typed: usize,
    /// Type assertions, and those for which the type was found.
    assertions: usize,
    asserted: usize,
}

impl Tally {
    fn count(&mut self, said: &RaisedBy) {
        self.places += 1;
        match said.kind {
            Kind::Bounds { code, .. } => {
                assert!(code.is_some(), "{said:#x?}");
                self.bounds += 1;
                self.compared += usize::from(said.operands.iter().all(|o| o.seen == Seen::Compare));
            }
            Kind::Panic => {
                self.panics += 1;
                self.typed += usize::from(said.type_name.is_some());
            }
            Kind::Assertion => {
                self.assertions += 1;
                self.asserted += usize::from(said.type_name.is_some());
            }
            _ => {}
        }
    }
}

#[test]
fn of_gos_own_command_nearly_all_is_said() {
    for toolchain in toolchains() {
        let bin = gobin::open(&toolchain.go).expect("a Go program");
        let mut tally = Tally::default();
        for func in bin.functions() {
            tally.functions += 1;
            for said in all_in(&bin, func) {
                let what = format!("go{} {:#x}", toolchain.release, said.at);
                assert!(!said.words.is_empty() && !said.words.contains(['\n', '\x1b']), "{what}");
                tally.count(&said);
            }
        }
        println!("go{}: {tally:?}", toolchain.release);
        assert!(tally.functions > 8000 && tally.places > 50_000, "go{}", toolchain.release);
        assert!(tally.compared * 100 > tally.bounds * 97, "go{}", toolchain.release);
        assert!(tally.typed * 100 > tally.panics * 85, "go{}", toolchain.release);
        // The types of generic code are not in the code.
        assert!(tally.asserted * 100 > tally.assertions * 60, "go{}", toolchain.release);
    }
}
