//! Panic values: decodes the two words of an interface, and the memory they refer to, into what Go prints.
//!
//! Knows how each Go release prints a panic value, and the texts of those errors whose `Error` method depends
//! only on their fields. Code of the target is never run, so the text of any other error or Stringer is
//! unknown unless the runtime resolved it ([`Decoder::resolved`]). Must not know events, processes or files.
//! All input is untrusted: reads, recursion and output are bounded.

mod basic;
mod detail;
mod duration;
mod errno;
mod labels;
mod library;
mod net;
mod place;
mod print;
mod promoted;
mod quote;
mod runtime_error;
mod special;

#[cfg(test)]
mod tests;

use std::cell::Cell;

pub use labels::labels;
use panicwatch_common::go::{INTERFACE_DATA, STRING_LEN};

use self::place::{Place, Unknown};
use crate::{
    go::{
        gobin::GoBinary,
        gotype::{Field, Method, Role, Type, TypeContext, Types},
        memory::{Memory, prefix},
        release::Release,
    },
    incident::{Missing, Value},
};

/// Returns the text of a kernel error number, as Go prints it.
pub(crate) fn errno_text(number: u64) -> Option<&'static str> {
    errno::plain(number)
}

/// Work limit for one value: a byte of text costs one, an error in a chain [`VISIT`], a method [`METHOD`].
const FUEL: u64 = 32 << 20;
const VISIT: u64 = 8 << 10;
const METHOD: u64 = 256;

/// Maximum number of bytes read of a string that was captured only in part.
const MAX_PREFIX: usize = 4 << 20;

/// Maximum depth of a chain of wrapped errors.
const MAX_DEPTH: u32 = 64;

/// The two words of a Go `any`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Eface {
    /// Address of the type descriptor; 0 for nil.
    pub type_word: u64,
    /// The value itself, or its address.
    pub data_word: u64,
}

/// A decoded panic value, as far as it could be determined.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Decoded {
    /// The value as stored in the incident.
    pub value: Value,
    /// `value.printed` before newlines are indented: the incident's message if this is the first panic.
    pub message: Option<String>,
    /// Whether the type implements `runtime.Error`.
    pub runtime_error: bool,
    /// The fields of `value` that are `None`, with the reason; `what` is relative to the value (`text`), see
    /// [`Decoded::missing_under`].
    pub missing: Vec<Missing>,
}

impl Decoded {
    /// Returns the entries of `missing` for a value at `path` of the incident (`panics[0].value`).
    pub fn missing_under(&self, path: &str) -> impl Iterator<Item = Missing> {
        self.missing
            .iter()
            .map(move |m| Missing { what: format!("{path}.{}", m.what), reason: m.reason.clone() })
    }

    fn lacks(&mut self, fields: &[&str], reason: &str) {
        self.missing.extend(
            fields.iter().map(|what| Missing { what: (*what).to_owned(), reason: reason.to_owned() }),
        );
    }
}

/// Decoder of one target's panic values.
pub struct Decoder<'a> {
    types: Types<'a>,
    fuel: Cell<u64>,
    depth: Cell<u32>,
    /// Set when the string that ends the text was captured in part: number of known bytes, and its full
    /// length.
    cut: Cell<Option<(u64, u64)>>,
    code: Option<&'a GoBinary>,
}

impl<'a> Decoder<'a> {
    /// Returns a decoder over `memory`.
    pub fn new(memory: &'a dyn Memory, context: &'a TypeContext) -> Self {
        Self {
            types: Types::new(memory, context),
            fuel: Cell::new(FUEL),
            depth: Cell::new(0),
            cut: Cell::new(None),
            code: None,
        }
    }

    /// Adds the program's function table, which distinguishes promoted methods from declared ones.
    pub fn with_code(self, binary: &'a GoBinary) -> Self {
        Self { code: Some(binary), ..self }
    }

    /// Decodes the argument of `panic()`, or the result of `recover()`, before the runtime has resolved
    /// anything.
    pub fn decode(&self, eface: Eface) -> Decoded {
        self.begin();
        if eface.type_word == 0 {
            return self.finish("nil".to_owned(), false, b"nil".to_vec(), b"nil".to_vec());
        }
        let (t, name) = match self.typed(eface.type_word) {
            Ok(found) => found,
            Err(Unknown(reason)) => {
                let mut d = Decoded::default();
                d.lacks(&["type", "text", "printed"], &reason);
                return d;
            }
        };
        let mut d = match self.role(&t) {
            Ok(role) if role.error || role.stringer => self.resolvable(&t, name, role, eface),
            Ok(_) => self.plain(&t, name, eface),
            Err(Unknown(reason)) => {
                let mut d = Decoded::default();
                d.value.type_name = Some(name);
                d.lacks(&["text", "printed"], &format!("its methods are unknown: {reason}"));
                d
            }
        };
        self.note_cut(&mut d);
        let place = Place::of(&t, eface.data_word);
        d.value.detail = detail::render(self, &t, place).ok();
        // For a string or number whose method returns the text, the underlying value.
        if d.value.detail.is_none() && d.value.text.is_none() {
            d.value.detail = detail::underlying(self, &t, place).ok();
        }
        d
    }

    /// Decodes a fatal panic's value after `preprintpanics` has run: `raised` is the value as decoded at the
    /// raise, `resolved` is the current `_panic.arg`. For an error or Stringer that is a string, its text;
    /// any other value is unchanged.
    ///
    /// From 1.25 on, the runtime resolves only the oldest of neighbours in the chain with bit-equal values:
    /// pass its string for the others.
    pub fn resolved(&self, raised: &Decoded, resolved: Eface) -> Decoded {
        self.begin();
        let is_string = self.typed(resolved.type_word).is_ok_and(|(_, name)| name == "string");
        if !is_string {
            return if raised.value.printed.is_some() { raised.clone() } else { self.decode(resolved) };
        }
        match self.string_or_prefix(Place::At(resolved.data_word)) {
            Ok(text) => {
                let mut d = self.resolved_text(raised, &text);
                self.note_cut(&mut d);
                d
            }
            Err(_) if raised.value.printed.is_some() => raised.clone(),
            Err(Unknown(reason)) => {
                let mut d = raised.clone();
                d.missing.retain(|m| m.what == "type");
                d.lacks(&["text", "printed"], &reason);
                d
            }
        }
    }

    /// Like [`Self::resolved`], with the bytes of the text that an error's or Stringer's method returned.
    pub fn resolved_text(&self, raised: &Decoded, text: &[u8]) -> Decoded {
        let mut d = self.finish(String::new(), raised.runtime_error, text.to_vec(), text.to_vec());
        d.value.type_name = raised.value.type_name.clone();
        d.value.detail = raised.value.detail.clone();
        d.missing = raised.missing.iter().filter(|m| m.what == "type").cloned().collect();
        d
    }

    /// Decodes the argument of `panic(nil)` as gopanic receives it, before it may replace it. `panicnil` is
    /// the target's GODEBUG setting of that name, `None` when unknown.
    ///
    /// <https://github.com/golang/go/blob/go1.24.11/src/runtime/panic.go>
    pub fn nil_argument(&self, panicnil: Option<bool>) -> Decoded {
        match panicnil {
            _ if !self.release().has_panic_nil_error() => self.decode(Eface::default()),
            Some(true) => self.decode(Eface::default()),
            Some(false) => {
                let text = runtime_error::panic_nil_text(self.release()).as_bytes().to_vec();
                self.finish("*runtime.PanicNilError".to_owned(), true, text.clone(), text)
            }
            None => {
                let mut d = Decoded::default();
                d.lacks(&["type", "text", "printed"], "panic(nil): the GODEBUG setting panicnil is unknown");
                d
            }
        }
    }

    /// Returns what is printed for a value that was not resolved: from 1.26 on, a fatal error in a deferred
    /// call first prints the panics in progress without calling methods (`panic: runtime.errorString("…")`).
    pub fn unresolved(&self, eface: Eface) -> Option<String> {
        self.begin();
        if eface.type_word == 0 {
            return Some("nil".to_owned());
        }
        let (t, name) = self.typed(eface.type_word).ok()?;
        let d = self.plain(&t, name, eface);
        d.value.printed
    }

    fn release(&self) -> Release {
        self.types.context.layout.release
    }

    fn typed(&self, addr: u64) -> Result<(Type, String), Unknown> {
        let t = self.types.get(addr)?;
        let name = self.types.name(&t)?;
        Ok((t, name))
    }

    /// Decodes an error or a Stringer, printed as the text that its method returns.
    fn resolvable(&self, t: &Type, name: String, role: Role, eface: Eface) -> Decoded {
        match self.method_text(t, &name, role, eface.data_word) {
            Ok(text) => self.finish(name, role.runtime_error, text.clone(), text),
            Err(Unknown(reason)) => {
                let mut d = Decoded { runtime_error: role.runtime_error, ..Decoded::default() };
                d.value.type_name = Some(name);
                d.lacks(&["text", "printed"], &reason);
                d
            }
        }
    }

    /// Decodes a value that is neither an error nor a Stringer.
    fn plain(&self, t: &Type, name: String, eface: Eface) -> Decoded {
        match self.basic(t, &name, eface.data_word) {
            Ok((text, message)) => self.finish(name, false, text, message),
            Err(Unknown(reason)) => {
                let mut d = Decoded::default();
                d.value.type_name = Some(name);
                d.lacks(&["text", "printed"], &reason);
                d
            }
        }
    }

    /// Builds the result for a value whose text is known.
    fn finish(&self, type_name: String, runtime_error: bool, text: Vec<u8>, message: Vec<u8>) -> Decoded {
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let raw_hex =
            str::from_utf8(&text).is_err().then(|| text.iter().map(|b| format!("{b:02x}")).collect());
        Decoded {
            value: Value {
                type_name: Some(type_name),
                text: Some(lossy(&text)),
                printed: Some(lossy(&print::indented(self.release(), &message))),
                raw_hex,
                detail: None,
            },
            message: Some(lossy(&message)),
            runtime_error,
            missing: Vec::new(),
        }
    }

    /// Reads the string at `place` and charges fuel for it.
    fn string(&self, place: Place) -> Result<Vec<u8>, Unknown> {
        let text = place.string(self.types.memory)?;
        self.spend(text.len() as u64)?;
        Ok(text)
    }

    /// Reads the string at `place`, or as much of its beginning as was captured; in the latter case
    /// [`Decoder::is_cut`] is true, and the caller must append nothing to the text.
    fn string_or_prefix(&self, place: Place) -> Result<Vec<u8>, Unknown> {
        self.string(place).or_else(|unknown| {
            let memory = self.types.memory;
            let (ptr, len) = (place.word(memory)?, place.offset(STRING_LEN).word(memory)?);
            // No address space contains a longer string: the header is damaged.
            let len_is_possible = len < 1 << 47;
            let known = if len_is_possible { prefix(memory, ptr, len, MAX_PREFIX) } else { Vec::new() };
            if known.is_empty() {
                return Err(unknown);
            }
            self.spend(known.len() as u64)?;
            self.cut.set(Some((known.len() as u64, len)));
            Ok(known)
        })
    }

    /// Reports whether the text is truncated because a string was captured in part.
    fn is_cut(&self) -> bool {
        self.cut.get().is_some()
    }

    fn note_cut(&self, d: &mut Decoded) {
        if let Some((known, len)) = self.cut.take() {
            let reason = format!("truncated: the first {known} of the string's {len} bytes were captured");
            d.lacks(&["text", "printed"], &reason);
        }
    }

    /// Starts a new value with full fuel.
    fn begin(&self) {
        self.fuel.set(FUEL);
        self.cut.set(None);
    }

    /// Charges fuel. Every step of a chain of errors does so: cycles and exponential chains run out of fuel.
    fn spend(&self, cost: u64) -> Result<(), Unknown> {
        match self.fuel.get().checked_sub(cost) {
            Some(rest) => {
                self.fuel.set(rest);
                Ok(())
            }
            None => Err(Unknown::new("the value is too large or refers to itself")),
        }
    }

    /// Returns the concrete type and data word of the non-empty interface at `place`; `None` when it is nil.
    fn interface(&self, place: Place) -> Result<Option<(Type, u64)>, Unknown> {
        let memory = self.types.memory;
        let (itab, data) = (place.word(memory)?, place.offset(INTERFACE_DATA).word(memory)?);
        if itab == 0 {
            return Ok(None);
        }
        let type_addr = Place::At(itab).offset(self.types.context.layout.itab.type_.into()).word(memory)?;
        Ok(Some((self.types.get(type_addr)?, data)))
    }

    /// Returns the interfaces that panic printing checks for, and charges fuel.
    fn role(&self, t: &Type) -> Result<Role, Unknown> {
        self.spend(METHOD * u64::from(self.types.method_count(t)?))?;
        Ok(self.types.role(t)?)
    }

    /// Returns the method set of a concrete type, and charges fuel.
    fn methods(&self, t: &Type) -> Result<Vec<Method>, Unknown> {
        self.spend(METHOD * u64::from(self.types.method_count(t)?))?;
        Ok(self.types.methods(t)?)
    }

    /// Returns the methods that an interface type requires, and charges fuel.
    fn interface_methods(&self, t: &Type) -> Result<Vec<String>, Unknown> {
        let names = self.types.interface_methods(t)?;
        self.spend(METHOD * names.len() as u64)?;
        Ok(names)
    }

    /// Returns the fields of a struct type, and charges fuel.
    fn fields(&self, s: &Type) -> Result<Vec<Field>, Unknown> {
        let fields = self.types.fields(s)?;
        self.spend(fields.iter().map(|f| f.name.len() as u64 + 24).sum())?;
        Ok(fields)
    }

    /// Returns type and place of a field of the struct of type `s` at `at`.
    fn field(&self, s: &Type, at: Place, name: &str) -> Result<(Type, Place), Unknown> {
        let field = self
            .fields(s)?
            .into_iter()
            .find(|f| f.name == name)
            .ok_or_else(|| Unknown(format!("the struct has no field {name} in this release")))?;
        Ok((self.types.get(field.type_addr)?, at.offset(field.offset)))
    }
}

impl Place {
    /// Returns the place of the value of an interface with this type and data word.
    fn of(t: &Type, data_word: u64) -> Self {
        if t.direct_iface { Self::Word(data_word) } else { Self::At(data_word) }
    }
}
