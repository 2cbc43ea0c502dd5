//! Which frames Go's traceback shows.
//!
//! showframe, showfuncinfo, isExportedRuntime, elideWrapperCalling of
//! <https://github.com/golang/go/blob/go1.27.3/src/runtime/traceback.go> and its other releases.

use crate::go::gobin::{FuncId, GoVersion};

/// What decides it besides the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visibility {
    /// GOTRACEBACK as a number: 0 none, 1 single or all, 2 system or crash.
    pub level: u8,
    /// m.throwing ≥ 2 (throw, a deadly signal) and this is that thread's current goroutine or the one the signal
    /// was caught on.
    pub throwing: bool,
}

impl Default for Visibility {
    fn default() -> Self {
        Self::USER
    }
}

impl Visibility {
    /// GOTRACEBACK unset, an ordinary panic.
    pub const USER: Self = Self { level: 1, throwing: false };

    /// Every frame is shown.
    pub fn all(self) -> bool {
        self.level > 1 || self.throwing
    }

    /// Whether a frame is shown. `first`: none has been shown so far. `callee`: what it called.
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
        if version.at_least(25) && matches!(func_id, FuncId::RunFinalizers | FuncId::RunCleanups) {
            return true;
        }
        // In the middle it marks where ordinary code ends and deferred calls begin.
        if name == "runtime.gopanic" && !first {
            return true;
        }
        match name.strip_prefix("runtime.") {
            Some(rest) => is_exported(version, rest),
            None => name.contains('.'),
        }
    }
}

/// A wrapper that called one of these stands for itself: it failed before reaching what it wraps.
fn elides_wrapper_calling(callee: FuncId) -> bool {
    !matches!(callee, FuncId::Gopanic | FuncId::Sigpanic | FuncId::PanicWrap)
}

/// `name` is without "runtime.".
fn is_exported(version: &GoVersion, name: &str) -> bool {
    let upper = |s: &str| s.starts_with(|c: char| c.is_ascii_uppercase());
    if !version.at_least(23) {
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
