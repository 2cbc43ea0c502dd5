//! Classifies frames by owner: the user, a dependency, the standard library, or the runtime.
//!
//! The report, the fingerprint and the choice of a panic's site share this rule. It depends on names only:
//! function name, file and main module path. This module knows no binaries and nothing of incidents but their
//! frames.

use crate::incident::Frame;

/// Owner of a frame's code, ordered by relevance to the on-call engineer, most relevant first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// The main module (or, when no module is known, anything not in another class).
    User,
    /// Another module, or a vendored package.
    ThirdParty,
    /// Go's standard library.
    Standard,
    /// The runtime, its internal packages, compiler-generated functions, and C and assembly functions without
    /// a package.
    Runtime,
}

/// First path elements of the standard library's import paths, Go 1.19 to 1.27 ($GOROOT/src), sorted.
const STANDARD: &[&str] = &[
    "archive",
    "arena",
    "bufio",
    "builtin",
    "bytes",
    "cmp",
    "compress",
    "container",
    "context",
    "crypto",
    "database",
    "debug",
    "embed",
    "encoding",
    "errors",
    "expvar",
    "flag",
    "fmt",
    "go",
    "hash",
    "html",
    "image",
    "index",
    "internal",
    "io",
    "iter",
    "log",
    "maps",
    "math",
    "mime",
    "net",
    "os",
    "path",
    "plugin",
    "reflect",
    "regexp",
    "runtime",
    "simd",
    "slices",
    "sort",
    "strconv",
    "strings",
    "structs",
    "sync",
    "syscall",
    "testing",
    "text",
    "time",
    "unicode",
    "unique",
    "unsafe",
    "uuid",
    "vendor",
    "weak",
];

/// Returns the import path in a function's name: "net/http" of "net/http.(*conn).serve"; `None` for names
/// without a package (`panic`, C functions, `_cgoexp_…`) and for compiler-generated ones (`type:.eq.…`,
/// `go:…`).
///
/// A dot in the last element of an import path is written `%2e` in symbol names, so the first dot after the
/// last slash ends the path. Type arguments may contain slashes; they follow the path.
/// <https://github.com/golang/go/blob/go1.24.11/src/cmd/internal/objabi/path.go>
pub fn package(function: &str) -> Option<&str> {
    let plain = &function[..function.find(['[', '(']).unwrap_or(function.len())];
    let last = plain.rfind('/').map_or(0, |i| i + 1);
    let dot = plain[last..].find('.')?;
    let path = &function[..last + dot];
    let made = path.starts_with("type:") || path.starts_with("go:") || path == "type" || path == "go";
    (!path.is_empty() && !made).then_some(path)
}

/// Returns the class of a function. `module` is the main module's path from the build info.
pub fn classify(function: &str, file: Option<&str>, module: Option<&str>) -> Class {
    let Some(package) = package(function) else { return Class::Runtime };
    let module = module.filter(|m| !m.is_empty() && *m != "std" && *m != "command-line-arguments");
    if package == "main" || package == "command-line-arguments" {
        return Class::User;
    }
    if module.is_some_and(|m| within(package, m) || package.strip_suffix("_test") == Some(m)) {
        // A nested module (example.com/app/api next to example.com/app) is a dependency like any other.
        return match (file.and_then(module_of_file), module) {
            (Some(of_file), Some(m)) if of_file != m => Class::ThirdParty,
            _ => Class::User,
        };
    }
    let first = package.split('/').next().unwrap_or(package);
    if STANDARD.binary_search(&first).is_ok() {
        return if is_runtime(package) { Class::Runtime } else { Class::Standard };
    }
    let dependency = package.contains("/vendor/")
        || match file {
            Some(file) => is_dependency_file(file) || module.is_some() && !is_local_file(file),
            None => module.is_some(),
        };
    if dependency { Class::ThirdParty } else { Class::User }
}

/// Returns the class of a frame.
pub fn of_frame(frame: &Frame, module: Option<&str>) -> Class {
    classify(&frame.function, frame.file.as_deref(), module)
}

/// Returns the index of the frame at which a stack's incident was raised: the innermost frame of user code,
/// else of a dependency, the standard library, or the runtime. `None` when the stack has no frame but
/// gopanic's.
pub fn site(stack: &[Frame], module: Option<&str>) -> Option<usize> {
    let known = (0..stack.len()).filter(|&i| !is_gopanic(&stack[i].function));
    known.min_by_key(|&i| (of_frame(&stack[i], module), i))
}

/// Reports whether this is `runtime.gopanic`, which tracebacks call "panic". Every panic goes through it, so
/// it is never the raise site.
pub fn is_gopanic(function: &str) -> bool {
    matches!(function, "panic" | "runtime.gopanic")
}

/// Reports whether Go's own traceback would hide functions of this package. runtime/debug, runtime/pprof,
/// runtime/trace and the like are excluded: they are libraries that user code calls.
fn is_runtime(package: &str) -> bool {
    matches!(package, "runtime" | "runtime/cgo" | "internal/abi" | "internal/bytealg" | "internal/cpu")
        || package.starts_with("runtime/internal/")
        || within(package, "internal/runtime")
}

fn within(package: &str, parent: &str) -> bool {
    package.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_dependency_file(file: &str) -> bool {
    file.contains("/vendor/") || module_of_file(file).is_some()
}

/// Reports whether the file is in a directory next to the main module, in no cache: another module of a
/// go.work, or a directory that go.mod substitutes with `replace`. Those are user code as well.
fn is_local_file(file: &str) -> bool {
    file.starts_with('/') && !file.contains("/external/")
}

/// Returns the module of a file in the module cache, "…/pkg/mod/example.com/x@v1.2.3/y.go" or, with
/// -trimpath, "example.com/x@v1.2.3/y.go". Such paths escape capital letters (`!x` is `X`); this function
/// unescapes them. `None` for files outside the cache.
fn module_of_file(file: &str) -> Option<String> {
    let (path, version) = file.split_once("@v")?;
    version.starts_with(|c: char| c.is_ascii_digit()).then_some(())?;
    let path = path.rsplit_once("/pkg/mod/").map_or(path, |(_, p)| p);
    let mut out = String::with_capacity(path.len());
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        if c == '!' { out.extend(chars.next().map(|c| c.to_ascii_uppercase())) } else { out.push(c) }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::{Class::*, *};

    #[test]
    fn standard_roots_are_sorted_for_the_search() {
        assert!(STANDARD.is_sorted());
    }

    #[test]
    fn packages_of_names() {
        for (function, want) in [
            ("main.main", Some("main")),
            ("net/http.(*conn).serve", Some("net/http")),
            ("gopkg.in/yaml%2ev3.Unmarshal", Some("gopkg.in/yaml%2ev3")),
            ("example.com/a/b.F[...]", Some("example.com/a/b")),
            ("main.F[example.com/a/b.T]", Some("main")),
            ("example.com/a.(*List[example.com/b/c.T]).Push", Some("example.com/a")),
            ("main.init.0.func1", Some("main")),
            ("panic", None),
            ("_cgoexp_8f1a_goCallback", None),
            ("type:.eq.main.T", None),
            ("", None),
            (".", None),
        ] {
            assert_eq!(package(function), want, "{function}");
        }
    }

    #[test]
    fn classes() {
        let app = Some("example.com/app");
        let cobra = "/root/go/pkg/mod/github.com/spf13/cobra@v1.8.0/command.go";
        for (function, file, module, want) in [
            ("main.main", "/x/main.go", app, User),
            ("example.com/app/store.Get", "/x/store/get.go", app, User),
            ("example.com/app_test.TestX", "/x/x_test.go", app, User),
            ("example.com/application.Get", "", app, ThirdParty),
            ("example.com/app/api.Get", "/root/go/pkg/mod/example.com/app/api@v1.0.0/a.go", app, ThirdParty),
            ("example.com/app/api.Get", "/root/go/pkg/mod/example.com/app@v1.0.0/api/a.go", app, User),
            ("github.com/Big/x.F", "github.com/!big/x@v0.1.0/f.go", Some("github.com/Big/x"), User),
            ("github.com/spf13/cobra.(*Command).execute", cobra, app, ThirdParty),
            ("github.com/x/y.F", "/src/app/vendor/github.com/x/y/f.go", app, ThirdParty),
            ("github.com/x/y.F", "github.com/x/y@v1.0.0/f.go", app, ThirdParty),
            ("example.com/lib.F", "/src/lib/f.go", app, User),
            ("net/http.(*conn).serve", "/usr/local/go/src/net/http/server.go", app, Standard),
            ("vendor/golang.org/x/net/http2/hpack.F", "", app, Standard),
            ("runtime/debug.Stack", "", app, Standard),
            ("runtime.gopanic", "", app, Runtime),
            ("panic", "", app, Runtime),
            ("internal/runtime/maps.fatal", "", app, Runtime),
            ("sync.(*Mutex).Unlock", "", app, Standard),
            ("shop/cart.Total", "/home/u/go/src/shop/cart/c.go", None, User),
            ("shop/cart.Total", "/x/cart/c.go", Some("shop"), User),
            ("github.com/x/y.F", "/root/go/pkg/mod/github.com/x/y@v1.0.0/f.go", None, ThirdParty),
            ("github.com/x/y.F", "/home/u/go/src/github.com/x/y/f.go", None, User),
            ("a/vendor/github.com/x/y.F", "", None, ThirdParty),
        ] {
            assert_eq!(classify(function, Some(file), module), want, "{function} {file} {module:?}");
        }
    }

    #[test]
    fn site_is_the_innermost_user_frame() {
        let frame = |f: &str| Frame { function: f.into(), ..Frame::default() };
        let stack = ["strings.Repeat", "github.com/x/y.F", "main.f", "main.main"].map(frame);
        assert_eq!(site(&stack, Some("m")), Some(2));
        assert_eq!(site(&stack[..2], Some("m")), Some(1));
        assert_eq!(site(&stack[..1], Some("m")), Some(0));
        assert_eq!(site(&[], None), None);
        assert_eq!(site(&["panic"].map(frame), None), None);
        assert_eq!(site(&["panic", "runtime.panicmem"].map(frame), None), Some(1));
    }
}
