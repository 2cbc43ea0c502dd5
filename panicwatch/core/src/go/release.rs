//! Go's minor releases: which are supported, and every behavior that differs between them, under a name.
//!
//! Nothing else compares the number of a release (`cargo xtask tidy` checks that). Where the runtime's
//! structs are in memory is in [`offsets`](super::gobin::offsets), which has a column for each supported
//! release.

mod supported;

use std::fmt;

pub use supported::RELEASES;

/// A minor release of Go 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Release {
    minor: u16,
}

impl Release {
    /// The supported releases, oldest first.
    pub const SUPPORTED: [Release; RELEASES.len()] = supported_releases();
    /// The newest supported release.
    pub const NEWEST: Release = Self::SUPPORTED[RELEASES.len() - 1];

    /// Returns Go 1.`minor`.
    pub const fn new(minor: u16) -> Self {
        Self { minor }
    }

    /// Returns the number after "1.", for display and file names.
    pub const fn minor(self) -> u16 {
        self.minor
    }

    /// Returns the release's column of the layout table; `None` for a release that is not supported.
    pub fn column(self) -> Option<usize> {
        Self::SUPPORTED.iter().position(|release| *release == self)
    }

    /// Returns the latest supported release before this one.
    pub fn predecessor(self) -> Option<Self> {
        Self::SUPPORTED.into_iter().rfind(|release| release.minor < self.minor)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "go1.{}", self.minor)
    }
}

const fn supported_releases() -> [Release; RELEASES.len()] {
    let mut out = [Release::new(0); RELEASES.len()];
    let mut at = 0;
    while at < out.len() {
        out[at] = Release::new(minor_of(RELEASES[at].as_bytes()));
        at += 1;
    }
    out
}

/// Returns 24 for "1.24.11".
const fn minor_of(release: &[u8]) -> u16 {
    let (mut minor, mut at) = (0, 2);
    while at < release.len() && release[at] != b'.' {
        minor = minor * 10 + (release[at] - b'0') as u16;
        at += 1;
    }
    minor
}

/// Declares behaviors, each with the first release that has it.
macro_rules! behaviors {
    ($($(#[$doc:meta])* $name:ident since $first:literal;)*) => {
        impl Release {
            $($(#[$doc])* pub const fn $name(self) -> bool { self.minor >= $first })*

            /// Every behavior with its name.
            #[cfg(test)]
            const BEHAVIORS: &[(&str, fn(Release) -> bool)] = &[$((stringify!($name), Release::$name)),*];
        }
    };
}

behaviors! {
    /// A conversion of a slice to an array exists; before, only one to a pointer to an array did, and the
    /// text of its run-time error is a different one. <https://go.dev/doc/go1.20#language>
    converts_slices_to_arrays since 20;

    /// `runtime.growslice` takes the new length; before, the type and the old slice came first.
    /// <https://github.com/golang/go/blob/go1.21.13/src/runtime/slice.go#L157>
    growslice_takes_length since 20;

    /// A node of the inline tree begins with the FuncID and has no file and line.
    /// <https://github.com/golang/go/blob/go1.21.13/src/runtime/symtabinl.go>
    inline_tree_is_compact since 20;

    /// `panic(nil)` raises a `*runtime.PanicNilError`, unless GODEBUG has `panicnil=1`.
    /// <https://go.dev/doc/go1.21#language>
    has_panic_nil_error since 21;

    /// `runtime.stopTheWorldWithSema` takes a reason.
    /// <https://github.com/golang/go/blob/go1.21.13/src/runtime/proc.go#L1353>
    has_stop_the_world_reason since 21;

    /// A long traceback prints its innermost and its outermost frames; before, only the innermost 100.
    /// <https://go.dev/doc/go1.21#runtime>
    traceback_prints_both_ends since 21;

    /// The traceback prints the instruction that `asyncPreempt` or `debugCallV2` interrupted; before, only
    /// the one that `sigpanic` did.
    /// <https://github.com/golang/go/blob/go1.21.13/src/runtime/traceback.go#L486>
    traces_injected_calls since 21;

    /// The linker sorts the initialization tasks into one list; before, each task ran the tasks that it
    /// depends on.
    /// <https://go.dev/doc/go1.21#language>
    has_init_task_list since 21;

    /// FuncIDs are declared in package internal/abi; before, in package runtime.
    /// <https://github.com/golang/go/blob/go1.21.13/src/internal/abi/symtab.go>
    func_ids_are_in_abi since 21;

    /// A fault in C code ends the process as a fatal signal; before, the runtime called `sigpanic` on the C
    /// frame, which throws. <https://github.com/golang/go/blob/go1.21.13/src/runtime/signal_unix.go#L676>
    fault_in_c_is_fatal since 21;

    /// Execution traces are in the format that package golang.org/x/exp/trace reads.
    /// <https://go.dev/doc/go1.22#runtime/trace>
    has_trace_v2 since 22;

    /// A panic iterates over its deferred calls with `(*_panic).nextDefer`; before, gopanic called linked
    /// defers itself and open-coded ones through `deferCallSave`.
    /// <https://github.com/golang/go/blob/go1.22.10/src/runtime/panic.go>
    has_next_defer since 22;

    /// `runtime.recovery` continues at the `sp` of the `_panic`; before, at `g.sigcode0`.
    /// <https://github.com/golang/go/blob/go1.21.13/src/runtime/panic.go#L1042>,
    /// <https://github.com/golang/go/blob/go1.22.10/src/runtime/panic.go>
    recovers_to_panic_sp since 22;

    /// The closures of open-coded defers are in adjacent slots; before, the function data lists the offset of
    /// each.
    /// <https://github.com/golang/go/blob/go1.22.10/src/cmd/compile/internal/ssagen/ssa.go> (openDeferSave)
    open_coded_defers_are_adjacent since 22;

    /// `runtime.goschedImpl` takes whether the goroutine was preempted.
    /// <https://github.com/golang/go/blob/go1.22.10/src/runtime/proc.go#L4039>
    gosched_takes_preempted since 22;

    /// The debug information describes unnamed and unused parameters.
    /// <https://github.com/golang/go/blob/go1.22.10/src/cmd/compile/internal/dwarfgen/dwarf.go>
    dwarf_has_all_parameters since 22;

    /// The panic printer prints a tab after each newline of a value.
    /// <https://github.com/golang/go/blob/go1.23.9/src/runtime/error.go>
    indents_messages since 23;

    /// The traceback considers the receiver when it decides whether a runtime method is exported.
    /// <https://github.com/golang/go/blob/go1.23.9/src/runtime/traceback.go> (isExportedRuntime)
    exported_methods_need_exported_receivers since 23;

    /// The linker rejects references to the runtime's private functions without `-checklinkname=0`.
    /// <https://go.dev/doc/go1.23#linker>
    linker_checks_linknames since 23;

    /// A range-over-func body can defer calls of the function around it.
    /// <https://go.dev/doc/go1.23#language>
    has_range_over_func since 23;

    /// `g.labels` points to a sorted list; before, to a map.
    /// <https://github.com/golang/go/blob/go1.23.9/src/runtime/pprof/label.go>,
    /// <https://github.com/golang/go/blob/go1.24.11/src/runtime/pprof/label.go>
    labels_are_list since 24;

    /// `go tool trace -d` takes the name of a mode; before, a number.
    /// <https://github.com/golang/go/blob/go1.24.11/src/cmd/trace/main.go#L63>
    trace_tool_names_modes since 24;

    /// ESTALE is "stale file handle" on amd64, too; before, "stale NFS file handle" there.
    /// <https://github.com/golang/go/blob/go1.25.5/src/syscall/zerrors_linux_amd64.go>
    amd64_stale_is_file_handle since 25;

    /// The traceback shows the goroutines that run finalizers and cleanups.
    /// <https://github.com/golang/go/blob/go1.25.5/src/runtime/traceback.go> (showframe)
    shows_finalizer_goroutines since 25;

    /// The panic printer prints a value that is raised again once, with "[recovered, repanicked]".
    /// <https://go.dev/doc/go1.25#runtime>
    prints_repanics_once since 25;

    /// `runtime.gorecover` has a frame of its own; before, its return address is at the stack pointer.
    /// <https://github.com/golang/go/blob/go1.26.6/src/runtime/panic.go> (gorecover)
    gorecover_has_frame since 26;

    /// A fatal error in a deferred call first prints the panics in progress, without calling methods.
    /// <https://github.com/golang/go/blob/go1.26.6/src/runtime/panic.go> (printPreFatalDeferPanic)
    fatal_error_prints_panics since 26;

    /// `print` writes floating-point numbers as the shortest decimal.
    /// <https://github.com/golang/go/blob/go1.26.6/src/runtime/print.go>
    prints_shortest_floats since 26;

    /// A failed bounds check calls `runtime.panicBounds`; before, a function for its kind.
    /// <https://github.com/golang/go/blob/go1.26.6/src/runtime/panic.go#L208>
    has_panic_bounds since 26;

    /// The text of `*runtime.PanicNilError` begins with "runtime error: ".
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/panic.go#L794>
    panic_nil_text_has_prefix since 27;

    /// A function name can have two groups of type arguments, those of the receiver and of the method.
    /// <https://go.dev/doc/go1.27#language>
    has_generic_methods since 27;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_gives_the_releases() {
        let minors: Vec<u16> = Release::SUPPORTED.iter().map(|release| release.minor()).collect();
        assert_eq!(minors, [19, 21, 22, 23, 24, 25, 26, 27]);
        assert_eq!(Release::NEWEST.to_string(), "go1.27");
        assert_eq!((Release::new(21).column(), Release::new(20).column()), (Some(1), None));
        assert_eq!(Release::new(20).predecessor(), Some(Release::new(19)));
        assert_eq!(Release::new(19).predecessor(), None);
        assert_eq!(Release::new(99).predecessor(), Some(Release::NEWEST));
    }

    #[test]
    fn a_behavior_of_all_supported_releases_needs_no_name() {
        for (name, has) in Release::BEHAVIORS {
            assert!(!has(Release::SUPPORTED[0]) && has(Release::NEWEST), "{name}");
        }
    }
}
