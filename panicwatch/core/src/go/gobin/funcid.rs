//! FuncIDs: mark the runtime functions that Go's own traceback treats specially.
//!
//! The numbers change between releases, so the rest of panicwatch uses only [`FuncId`].
//! <https://github.com/golang/go/blob/go1.21.13/src/internal/abi/symtab.go>,
//! <https://github.com/golang/go/blob/go1.22.10/src/internal/abi/symtab.go> (corostart added),
//! <https://github.com/golang/go/blob/go1.25.5/src/internal/abi/symtab.go> (runfinq became runFinalizers,
//! runCleanups)

use FuncId::*;

use super::GoBinary;
use crate::go::release::RELEASES;

/// The FuncID that the linker assigned to a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is named after the runtime function it marks")]
pub enum FuncId {
    /// Any ordinary function.
    Normal,
    Abort,
    AsmCgoCall,
    AsyncPreempt,
    CgoCallback,
    CoroStart,
    DebugCallV2,
    GcBgMarkWorker,
    Goexit,
    Gogo,
    Gopanic,
    HandleAsyncEvent,
    Mcall,
    Morestack,
    Mstart,
    PanicWrap,
    Rt0Go,
    /// runtime.runfinq up to 1.24, runtime.runFinalizers since.
    RunFinalizers,
    RunCleanups,
    RuntimeMain,
    Sigpanic,
    SystemStack,
    SystemStackSwitch,
    /// Compiler-generated: an ABI adapter, a method wrapper, a closure around a go or defer statement.
    Wrapper,
    /// A number that is not known to be used by this release.
    Unknown(u8),
}

/// Names and FuncIDs of functions that exist in every program and are marked in every release.
/// <https://github.com/golang/go/blob/go1.24.11/src/cmd/internal/objabi/funcid.go>
const MARKED: [(&str, FuncId); 8] = [
    ("runtime.goexit", Goexit),
    ("runtime.gopanic", Gopanic),
    ("runtime.main", RuntimeMain),
    ("runtime.mcall", Mcall),
    ("runtime.morestack", Morestack),
    ("runtime.sigpanic", Sigpanic),
    ("runtime.systemstack", SystemStack),
    ("runtime.systemstack_switch", SystemStackSwitch),
];

impl FuncId {
    /// Reports whether the function is entered as if called by the instruction that a signal interrupted: its
    /// return address is that instruction itself, not the one after a call.
    /// <https://github.com/golang/go/blob/go1.24.11/src/runtime/traceback.go> isInjectedCall
    pub fn is_injected_call(self) -> bool {
        matches!(self, Self::Sigpanic | Self::AsyncPreempt | Self::DebugCallV2)
    }
}

/// FuncID numbering of one release: the index is the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FuncIds(&'static [FuncId]);

impl FuncIds {
    /// The numbering of each supported release.
    pub(super) const COLUMNS: [Self; RELEASES.len()] = [
        Self(TO_1_21),
        Self(TO_1_21),
        Self(SINCE_1_22),
        Self(SINCE_1_22),
        Self(SINCE_1_22),
        Self(SINCE_1_25),
        Self(SINCE_1_25),
        Self(SINCE_1_25),
    ];

    /// Returns the FuncID with number `id`.
    pub fn get(&self, id: u8) -> FuncId {
        self.0.get(usize::from(id)).copied().unwrap_or(Unknown(id))
    }
}

static TO_1_21: &[FuncId] = &[
    Normal,
    Abort,
    AsmCgoCall,
    AsyncPreempt,
    CgoCallback,
    DebugCallV2,
    GcBgMarkWorker,
    Goexit,
    Gogo,
    Gopanic,
    HandleAsyncEvent,
    Mcall,
    Morestack,
    Mstart,
    PanicWrap,
    Rt0Go,
    RunFinalizers,
    RuntimeMain,
    Sigpanic,
    SystemStack,
    SystemStackSwitch,
    Wrapper,
];

static SINCE_1_22: &[FuncId] = &[
    Normal,
    Abort,
    AsmCgoCall,
    AsyncPreempt,
    CgoCallback,
    CoroStart,
    DebugCallV2,
    GcBgMarkWorker,
    Goexit,
    Gogo,
    Gopanic,
    HandleAsyncEvent,
    Mcall,
    Morestack,
    Mstart,
    PanicWrap,
    Rt0Go,
    RunFinalizers,
    RuntimeMain,
    Sigpanic,
    SystemStack,
    SystemStackSwitch,
    Wrapper,
];

static SINCE_1_25: &[FuncId] = &[
    Normal,
    Abort,
    AsmCgoCall,
    AsyncPreempt,
    CgoCallback,
    CoroStart,
    DebugCallV2,
    GcBgMarkWorker,
    Goexit,
    Gogo,
    Gopanic,
    HandleAsyncEvent,
    Mcall,
    Morestack,
    Mstart,
    PanicWrap,
    Rt0Go,
    RuntimeMain,
    RunFinalizers,
    RunCleanups,
    Sigpanic,
    SystemStack,
    SystemStackSwitch,
    Wrapper,
];

impl GoBinary {
    /// Reports whether the assumed numbering marks the functions in `MARKED` correctly. Debug information
    /// does not contain these numbers, so this check validates them for an unknown release.
    pub(super) fn func_ids_hold(&self) -> bool {
        MARKED.iter().all(|(name, id)| self.function(name).is_some_and(|f| f.func_id() == *id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_release() {
        let id = |minor, n| {
            let column = crate::go::release::Release::new(minor).column().expect("a supported release");
            FuncIds::COLUMNS[column].get(n)
        };
        assert_eq!((id(21, 9), id(22, 10), id(25, 20)), (Gopanic, Gopanic, Sigpanic));
        assert_eq!((id(19, 21), id(24, 22), id(27, 23)), (Wrapper, Wrapper, Wrapper));
        assert_eq!(id(27, 200), Unknown(200));
    }
}
