//! Errors and Stringers of Go's own library whose text is a concatenation of their fields.
//!
//! A table of templates. Fields are found by name in the target's own type information, so a release that
//! moves them needs no new row; each row holds for every supported release.

use super::{
    Decoder, MAX_DEPTH, VISIT,
    place::{Place, Unknown},
    quote,
};
use crate::go::gotype::{Kind, Role, Type};

/// A part of a text template.
enum Piece {
    /// Text that is printed as it is.
    Lit(&'static str),
    /// The contents of a string field.
    Str(&'static str),
    /// The contents of a string field, quoted by strconv.
    Quote(&'static str),
    /// The text of an error field.
    Err(&'static str),
    /// The value itself, which is of string kind.
    Own,
    /// The value itself, quoted by strconv.
    OwnQuoted,
}

use Piece::{Err as E, Lit as L, Own, OwnQuoted, Quote as Q, Str as S};

/// Import path, type name, template. Whether the method has a pointer receiver is irrelevant: the text is the
/// same.
#[rustfmt::skip]
const KNOWN: &[(&str, &str, &[Piece])] = &[
    ("context", "deadlineExceededError", &[L("context deadline exceeded")]),
    ("encoding/json", "SyntaxError", &[S("msg")]),
    ("errors", "errorString", &[S("s")]),
    ("fmt", "wrapError", &[S("msg")]),
    ("fmt", "wrapErrors", &[S("msg")]),
    ("internal/poll", "DeadlineExceededError", &[L("i/o timeout")]),
    ("internal/poll", "errNetClosing", &[L("use of closed network connection")]),
    ("io/fs", "PathError", &[S("Op"), L(" "), S("Path"), L(": "), E("Err")]),
    ("net", "DNSConfigError", &[L("error reading DNS config: "), E("Err")]),
    ("net", "InvalidAddrError", &[Own]),
    ("net", "ParseError", &[L("invalid "), S("Type"), L(": "), S("Text")]),
    ("net", "UnknownNetworkError", &[L("unknown network "), Own]),
    ("net", "notFoundError", &[S("s")]),
    ("net", "temporaryError", &[S("s")]),
    ("net", "timeoutError", &[L("i/o timeout")]),
    ("net/http", "MaxBytesError", &[L("http: request body too large")]),
    ("net/http", "ProtocolError", &[S("ErrorString")]),
    ("net/url", "Error", &[S("Op"), L(" "), Q("URL"), L(": "), E("Err")]),
    ("net/url", "EscapeError", &[L("invalid URL escape "), OwnQuoted]),
    ("net/url", "InvalidHostError", &[L("invalid character "), OwnQuoted, L(" in host name")]),
    ("os", "LinkError", &[S("Op"), L(" "), S("Old"), L(" "), S("New"), L(": "), E("Err")]),
    ("os", "SyscallError", &[S("Syscall"), L(": "), E("Err")]),
    ("os/exec", "Error", &[L("exec: "), Q("Name"), L(": "), E("Err")]),
    ("regexp/syntax", "Error", &[L("error parsing regexp: "), S("Code"), L(": `"), S("Expr"), L("`")]),
    ("strconv", "NumError", &[L("strconv."), S("Func"), L(": parsing "), Q("Num"), L(": "), E("Err")]),
    // Not Go's library, but the most widely used replacement of its package errors.
    ("github.com/pkg/errors", "fundamental", &[S("msg")]),
    ("github.com/pkg/errors", "withMessage", &[S("msg"), L(": "), E("cause")]),
    ("github.com/pkg/errors", "withStack", &[E("error")]),
];

/// Types whose methods accept a nil receiver and return `<nil>` for it.
const NIL_RECEIVER: &[(&str, &str)] = &[("net", "AddrError"), ("net", "DNSError"), ("net", "OpError")];

impl Decoder<'_> {
    /// Returns the result of `Error()` (or of `String()`, for a value that is no error) for a value of type
    /// `t`.
    pub(super) fn method_text(
        &self,
        t: &Type,
        name: &str,
        role: Role,
        data: u64,
    ) -> Result<Vec<u8>, Unknown> {
        if self.depth.get() >= MAX_DEPTH {
            return Err(Unknown(format!("more than {MAX_DEPTH} errors wrap one another")));
        }
        self.depth.set(self.depth.get() + 1);
        let text = self.spend(VISIT).and_then(|()| self.method_text_here(t, name, role, data));
        self.depth.set(self.depth.get() - 1);
        text
    }

    fn method_text_here(&self, t: &Type, name: &str, role: Role, data: u64) -> Result<Vec<u8>, Unknown> {
        let method = if role.error { "Error" } else { "String" };
        // A pointer has the methods of the type that it points to.
        let (own, place) = if t.kind == Kind::Pointer && !t.named {
            (self.types.elem(t)?, Place::At(data))
        } else {
            (*t, Place::of(t, data))
        };
        let own_name = self.types.name(&own)?;
        let package = self.types.package(&own)?;
        let short = own_name.split_once('.').map_or("", |(_, short)| short);
        let no_code = || {
            Unknown(format!(
                "the text is what {name}.{method} returns, which requires running the program's code"
            ))
        };
        if place == Place::At(0) && own.size != 0 {
            return if NIL_RECEIVER.contains(&(package.as_str(), short)) {
                Ok(b"<nil>".to_vec())
            } else {
                Err(Unknown(format!("a nil {name}: {}", no_code().0)))
            };
        }
        if package == "runtime" {
            return self.runtime_error(short, place).unwrap_or_else(|| Err(no_code()));
        }
        if let Some((_, _, pieces)) = KNOWN.iter().find(|(p, n, _)| *p == package && *n == short) {
            return self.assemble(&own, place, pieces);
        }
        self.special(&package, short, &own, place)
            .or_else(|| self.promoted(t, &own, place, method))
            .unwrap_or_else(|| Err(no_code()))
    }

    fn assemble(&self, own: &Type, place: Place, pieces: &[Piece]) -> Result<Vec<u8>, Unknown> {
        let mut out = Vec::new();
        for piece in pieces {
            if self.is_cut() {
                break;
            }
            match piece {
                L(text) => out.extend(text.bytes()),
                S(name) => out.extend(self.string_or_prefix(self.string_place(own, place, name)?)?),
                Q(name) => out.extend(quote::strconv(&self.string_field(own, place, name)?)?),
                E(name) => out.extend(self.error_field(own, place, name)?),
                Own => out.extend(self.string_or_prefix(place)?),
                OwnQuoted => out.extend(quote::strconv(&self.string(place)?)?),
            }
        }
        Ok(out)
    }

    /// Returns the contents of a string field.
    pub(super) fn string_field(&self, s: &Type, at: Place, name: &str) -> Result<Vec<u8>, Unknown> {
        self.string(self.string_place(s, at, name)?)
    }

    fn string_place(&self, s: &Type, at: Place, name: &str) -> Result<Place, Unknown> {
        let (t, place) = self.field(s, at, name)?;
        if t.kind != Kind::String {
            return Err(Unknown(format!("field {name} is not a string in this release")));
        }
        Ok(place)
    }

    /// Returns the text of the error in a field. It must be the last part of the surrounding text, since it
    /// may be cut.
    pub(super) fn error_field(&self, s: &Type, at: Place, name: &str) -> Result<Vec<u8>, Unknown> {
        let (t, place) = self.field(s, at, name)?;
        if t.kind != Kind::Interface {
            return Err(Unknown(format!("field {name} is not an error in this release")));
        }
        self.error_at(place)
    }

    /// Returns the text of the error whose interface is at `place`.
    pub(super) fn error_at(&self, place: Place) -> Result<Vec<u8>, Unknown> {
        let (t, data) = self.interface(place)?.ok_or_else(|| Unknown::new("it wraps a nil error"))?;
        let name = self.types.name(&t)?;
        let role = self.role(&t)?;
        if !role.error {
            return Err(Unknown(format!("it wraps a {name}, which is not an error")));
        }
        self.method_text(&t, &name, role, data)
    }
}
