//! Formats values: mostly like `%+v`, with strings quoted, pointers followed as far as their targets were
//! read, and `…` for the rest.
//!
//! Depth, width and length are limited. Does no I/O; memory that was not read shows as such.

use std::fmt::Write as _;

use crate::go::{
    gobin::{
        GoBinary,
        dwarf::types::{GoTypes, Shape, TypeId},
    },
    memory::Memory,
    value::{Decoder, Eface},
};

const MAX_LEN: usize = 2 << 10;
const MAX_ITEMS: u64 = 32;
const MAX_DEPTH: u32 = 6;

/// Formats values of one process.
pub struct Renderer<'a> {
    /// Types of the debug information.
    pub types: &'a GoTypes,
    /// Memory that was read.
    pub memory: &'a dyn Memory,
    /// The binary, for names of functions.
    pub bin: &'a GoBinary,
    /// Load bias of the process.
    pub bias: u64,
    /// Decodes values in interfaces.
    pub decoder: &'a Decoder<'a>,
    /// Offset of `runtime.itab.Type`.
    pub itab_type: u64,
}

impl Renderer<'_> {
    /// Formats the value of type `of` at address `at`.
    pub fn render(&self, of: TypeId, at: u64) -> String {
        let mut out = String::new();
        self.value(&mut out, of, at, 0);
        out
    }

    fn value(&self, out: &mut String, of: TypeId, at: u64, depth: u32) {
        if out.len() > MAX_LEN || depth > MAX_DEPTH || self.try_value(out, of, at, depth).is_none() {
            out.push('…');
        }
    }

    fn try_value(&self, out: &mut String, of: TypeId, at: u64, depth: u32) -> Option<()> {
        let own = self.types.get(of)?;
        let word = |offset: u64| self.memory.u64(at.checked_add(offset)?);
        match &own.shape {
            Shape::Bool => out.push_str(if self.memory.u8(at)? != 0 { "true" } else { "false" }),
            Shape::Int => {
                let bits = self.uint(at, own.size)?;
                let unused = 64 - 8 * own.size.clamp(1, 8) as u32;
                let _ = write!(out, "{}", ((bits << unused) as i64) >> unused);
            }
            Shape::Uint => {
                let _ = write!(out, "{}", self.uint(at, own.size)?);
            }
            Shape::Float => out.push_str(&self.float(at, own.size)?),
            Shape::Complex => {
                let half = own.size / 2;
                let (re, im) = (self.float(at, half)?, self.float(at + half, half)?);
                let sign = if im.starts_with('-') { "" } else { "+" };
                let _ = write!(out, "({re}{sign}{im}i)");
            }
            Shape::String => self.text(out, word(0)?, word(8)?),
            Shape::Slice(elem) => {
                let (first, len) = (word(0)?, word(8)?);
                let elem_type = self.types.get(*elem)?;
                if elem_type.shape == Shape::Uint && elem_type.size == 1 {
                    self.text(out, first, len);
                } else {
                    self.items(out, *elem, first, len, depth)?;
                }
            }
            Shape::Array(elem, len) => self.items(out, *elem, at, *len, depth)?,
            Shape::Struct(fields) => {
                out.push('{');
                for (i, field) in fields.iter().enumerate() {
                    if i > 0 {
                        out.push(' ');
                    }
                    if i as u64 >= MAX_ITEMS {
                        out.push('…');
                        break;
                    }
                    let _ = write!(out, "{}:", field.name);
                    self.value(out, field.of, at.checked_add(field.offset)?, depth + 1);
                }
                out.push('}');
            }
            Shape::Pointer(elem) => self.pointer(out, *elem, word(0)?, depth),
            Shape::Map => match word(0)? {
                0 => out.push_str("map[]"),
                map => match self.memory.u64(map) {
                    Some(1) => out.push_str("map[1 entry]"),
                    Some(count) => {
                        let _ = write!(out, "map[{count} entries]");
                    }
                    None => out.push_str("map[…]"),
                },
            },
            Shape::Chan => self.pointer(out, None, word(0)?, depth),
            Shape::Func => match word(0)? {
                0 => out.push_str("nil"),
                closure => {
                    let code = self.memory.u64(closure)?.wrapping_sub(self.bias);
                    out.push_str(&self.bin.find_func(code)?.display_name());
                }
            },
            Shape::Eface => self.interface(out, word(0)?, word(8)?),
            Shape::Iface => match word(0)? {
                0 => out.push_str("nil"),
                itab => {
                    let own = self.memory.u64(itab.checked_add(self.itab_type)?)?;
                    self.interface(out, own, word(8)?);
                }
            },
            Shape::Alias(_) | Shape::Unknown => return None,
        }
        Some(())
    }

    fn uint(&self, at: u64, size: u64) -> Option<u64> {
        let mut buf = [0; 8];
        let size = usize::try_from(size).ok().filter(|size| *size <= 8)?;
        self.memory.read(at, &mut buf[..size]).then(|| u64::from_le_bytes(buf))
    }

    /// Formats a float like strconv's format 'g' with the shortest precision, which is `%v`.
    fn float(&self, at: u64, size: u64) -> Option<String> {
        let bits = self.uint(at, size)?;
        let (value, scientific) = if size == 4 {
            let value = f32::from_bits(bits as u32);
            (f64::from(value), format!("{value:e}"))
        } else {
            let value = f64::from_bits(bits);
            (value, format!("{value:e}"))
        };
        if value.is_nan() {
            return Some("NaN".to_owned());
        }
        if value.is_infinite() {
            return Some(if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned());
        }
        let (mantissa, exponent) = scientific.split_once('e')?;
        let exponent: i32 = exponent.parse().ok()?;
        // <https://github.com/golang/go/blob/go1.24.11/src/fmt/format.go#L489>: %v uses %e for large
        // exponents only.
        Some(if (-4..21).contains(&exponent) {
            if size == 4 { format!("{}", f32::from_bits(bits as u32)) } else { format!("{value}") }
        } else {
            format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
        })
    }

    /// Formats the bytes of a string, as far as they were read.
    fn text(&self, out: &mut String, ptr: u64, len: u64) {
        const MAX: u64 = 256;
        let mut known = len.min(MAX);
        // Truncated reads end at a power of two, or at the end of the step.
        while known > 0 && self.memory.bytes(ptr, known as usize).is_none() {
            known = if known > 128 {
                128
            } else if known > 64 {
                64
            } else {
                0
            };
        }
        let bytes = self.memory.bytes(ptr, known as usize).unwrap_or_default();
        let _ = write!(out, "{:?}", String::from_utf8_lossy(&bytes));
        if known < len {
            let _ = write!(out, "… ({len} bytes)");
        }
    }

    fn items(&self, out: &mut String, elem: TypeId, first: u64, len: u64, depth: u32) -> Option<()> {
        let size = self.types.get(elem)?.size;
        out.push('[');
        for i in 0..len {
            if i > 0 {
                out.push(' ');
            }
            let at = first.checked_add(i.checked_mul(size)?)?;
            let known = size == 0 || self.memory.u8(at.checked_add(size - 1)?).is_some();
            if i >= MAX_ITEMS || out.len() > MAX_LEN || !known {
                let _ = write!(out, "… ({len} in all)");
                break;
            }
            self.value(out, elem, at, depth + 1);
        }
        out.push(']');
        Some(())
    }

    fn pointer(&self, out: &mut String, elem: Option<TypeId>, to: u64, depth: u32) {
        if to == 0 {
            return out.push_str("nil");
        }
        let own = elem.and_then(|elem| self.types.get(elem));
        // Follows the pointer only if its target was read, for a struct at least in part.
        let read = own.is_some_and(|own| own.size == 0 || self.memory.u8(to).is_some());
        match elem.filter(|_| read && depth < MAX_DEPTH) {
            Some(elem) => {
                out.push('&');
                self.value(out, elem, to, depth + 1);
            }
            None => {
                let _ = write!(out, "{to:#x}");
            }
        }
    }

    /// Formats a value in an interface: text of an error, else type and value.
    fn interface(&self, out: &mut String, type_word: u64, data_word: u64) {
        if type_word == 0 {
            return out.push_str("nil");
        }
        let decoded = self.decoder.decode(Eface { type_word, data_word });
        let name = decoded.value.type_name.unwrap_or_else(|| format!("type {type_word:#x}"));
        let text = decoded.value.text.map(|text| match name.as_str() {
            "bool" => text,
            name if name.contains("int") && !name.contains('.') || name.starts_with("float") => text,
            _ => format!("{text:?}"),
        });
        match text.or(decoded.value.detail) {
            Some(text) => {
                let _ = write!(out, "{name}({text})");
            }
            None => {
                let _ = write!(out, "{name}(…)");
            }
        }
    }
}
