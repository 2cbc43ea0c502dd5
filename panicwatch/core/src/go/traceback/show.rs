//! Selects the frames that Go's traceback shows.
//!
//! Follows showframe, showfuncinfo, isExportedRuntime, elideWrapperCalling of
//! <https://github.com/golang/go/blob/go1.27.3/src/runtime/traceback.go> and its other releases.

use crate::go::gobin::{FuncId, GoVersion};

/// Settings that determine visibility, besides the frame itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visibility {
    /// GOTRACEBACK as a number: 0 none, 1 single or all, 2 system or crash.
    pub level: u8,
    /// Whether m.throwing ≥ 2 (throw, a fatal signal) and this is that thread's current goroutine or the one
    /// on which the signal was caught.
    pub throwing: bool,
}

impl Default for Visibility {
    fn default() -> Self {
        Self::USER
    }
}

impl Visibility {
    /// Visibility for an ordinary panic with GOTRACEBACK unset.
    pub const USER: Self = Self { level: 1, throwing: false };

    /// Reports whether every frame is shown.
    pub fn all(self) -> bool {
        self.level > 1 || self.throwing
    }

    /// Reports whether a frame is shown. `first`: none has been shown so far. `callee`: FuncID of the
    /// function it called.
    pub(super) fn shows(
        self,
        version: &GoVersion,
        name: &str,
        func_id: FuncId,
        first: bool,
        callee: FuncId,
    ) -> bool {
        if self.all() {
            return true;
        }
        if func_id == FuncId::Wrapper && elides_wrapper_calling(callee) {
            return false;
        }
        if version.release.shows_finalizer_goroutines()
            && matches!(func_id, FuncId::RunFinalizers | FuncId::RunCleanups)
        {
            return true;
        }
        // In the middle of a stack it marks the boundary between ordinary code and deferred calls.
        if name == "runtime.gopanic" && !first {
            return true;
        }
        match name.strip_prefix("runtime.") {
            Some(rest) => is_exported(version, rest),
            None => name.contains('.'),
        }
    }
}

/// Reports whether a wrapper is hidden. One that called a function listed here failed before reaching the
/// wrapped function, so it is shown.
fn elides_wrapper_calling(callee: FuncId) -> bool {
    !matches!(callee, FuncId::Gopanic | FuncId::Sigpanic | FuncId::PanicWrap)
}

/// Reports whether the runtime function is exported. `name` is without "runtime.".
fn is_exported(version: &GoVersion, name: &str) -> bool {
    let upper = |s: &str| s.starts_with(|c: char| c.is_ascii_uppercase());
    if !version.release.exported_methods_need_exported_receivers() {
        return upper(name);
    }
    match name.rsplit_once('.') {
        None => upper(name),
        Some((receiver, method)) => {
            let plain = receiver.strip_prefix("(*").and_then(|r| r.strip_suffix(')'));
            let receiver = plain.unwrap_or(receiver);
            upper(method) && (receiver.is_empty() || upper(receiver))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shows(version: &str, name: &str, id: FuncId, first: bool, callee: FuncId) -> bool {
        let version = GoVersion::parse(version).expect("a version");
        Visibility::USER.shows(&version, name, id, first, callee)
    }

    #[test]
    fn runtime_functions_are_hidden_unless_exported() {
        let plain = |v, name| shows(v, name, FuncId::Normal, false, FuncId::Normal);
        assert!(plain("go1.24", "main.main"));
        assert!(plain("go1.24", "internal/runtime/maps.fatal"));
        assert!(!plain("go1.24", "runtime.main"));
        assert!(plain("go1.24", "runtime.Goexit"));
        assert!(!plain("go1.24", "_cgo_init"), "no package");
        assert!(!plain("go1.22", "runtime.(*Func).Name"));
        assert!(plain("go1.23", "runtime.(*Func).Name"));
        assert!(plain("go1.23", "runtime.Frames.Next"));
        assert!(!plain("go1.23", "runtime.(*mheap).Alloc"));
        assert!(plain("go1.22", "runtime.Goexit.func1"));
        assert!(!plain("go1.23", "runtime.Goexit.func1"));
    }

    #[test]
    fn gopanic_wrappers_and_finalizers() {
        let id = FuncId::Normal;
        assert!(!shows("go1.24", "runtime.gopanic", FuncId::Gopanic, true, id));
        assert!(shows("go1.24", "runtime.gopanic", FuncId::Gopanic, false, id));
        assert!(!shows("go1.24", "main.(*T).M", FuncId::Wrapper, false, id));
        assert!(shows("go1.24", "main.(*T).M", FuncId::Wrapper, false, FuncId::Sigpanic));
        assert!(!shows("go1.24", "runtime.runfinq", FuncId::RunFinalizers, false, id));
        assert!(shows("go1.25", "runtime.runFinalizers", FuncId::RunFinalizers, false, id));
    }

    #[test]
    fn everything_is_shown_to_those_who_ask() {
        let v = GoVersion::parse("go1.24").expect("a version");
        for visibility in [Visibility { level: 2, throwing: false }, Visibility { level: 1, throwing: true }]
        {
            assert!(visibility.shows(&v, "runtime.mstart", FuncId::Mstart, true, FuncId::Normal));
        }
    }
}
