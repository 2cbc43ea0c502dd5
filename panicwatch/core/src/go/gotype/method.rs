//! Method sets, as needed to determine which interfaces a type implements.

use panicwatch_common::go::{METHOD_MTYP, METHOD_SIZE, METHOD_TFN};

use super::{Kind, MAX_NAMES, Type, TypeError, Types};

/// Maximum number of methods in one method set.
const MAX_METHODS: u16 = 8192;
/// High bit of `FuncType.OutCount`: variadic.
const VARIADIC: u16 = 1 << 15;

/// A method of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method {
    /// Method name, without the type's name.
    pub name: String,
    /// Address of the method's func type; `None` when the linker removed it as unreachable.
    pub type_addr: Option<u64>,
    /// Offset of its code from the start of the module's text; `None` when the linker removed it.
    pub code_offset: Option<u32>,
}

/// Interfaces of a value that determine how the runtime prints it in a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Role {
    /// Whether it has `Error() string`, which makes it an error.
    pub error: bool,
    /// Whether it has `String() string`.
    pub stringer: bool,
    /// Whether it is an error that also has `RuntimeError()`.
    pub runtime_error: bool,
}

impl Types<'_> {
    /// Returns the method set of a concrete type; empty when it has none.
    pub fn methods(&self, t: &Type) -> Result<Vec<Method>, TypeError> {
        let Some(uncommon) = self.uncommon(t) else { return Ok(Vec::new()) };
        let count = self.method_count(t)?;
        let offset = self.uncommon_field(uncommon, self.context.layout.uncommon.moff)?;
        let first = uncommon.wrapping_add(u64::from(offset));
        let mut total = 0;
        (0..u64::from(count))
            .map(|i| {
                let method = self.method_at(t, first.wrapping_add(METHOD_SIZE * i))?;
                total += method.name.len();
                if total > MAX_NAMES {
                    return Err(TypeError::Malformed { addr: t.addr, what: "method names too long" });
                }
                Ok(method)
            })
            .collect()
    }

    /// Returns the number of methods of a concrete type, which determines the cost of [`Self::methods`] and
    /// [`Self::role`].
    pub(crate) fn method_count(&self, t: &Type) -> Result<u16, TypeError> {
        let Some(uncommon) = self.uncommon(t) else { return Ok(0) };
        let counts = self.uncommon_field(uncommon, self.context.layout.uncommon.mcount)?;
        let count = (counts & 0xffff) as u16;
        if count > MAX_METHODS {
            return Err(TypeError::Malformed { addr: t.addr, what: "too many methods" });
        }
        Ok(count)
    }

    fn uncommon_field(&self, uncommon: u64, offset: u16) -> Result<u32, TypeError> {
        self.memory.u32(uncommon.wrapping_add(u64::from(offset))).ok_or(TypeError::Unread(uncommon))
    }

    /// Decodes an abi.Method {Name nameOff, Mtyp typeOff, Ifn textOff, Tfn textOff}.
    fn method_at(&self, owner: &Type, at: u64) -> Result<Method, TypeError> {
        let name = self.memory.u32(at).ok_or(TypeError::Unread(at))? as i32;
        let mtyp = self.memory.u32(at.wrapping_add(METHOD_MTYP)).ok_or(TypeError::Unread(at))? as i32;
        let code = self.memory.u32(at.wrapping_add(METHOD_TFN)).ok_or(TypeError::Unread(at))?;
        Ok(Method {
            name: self.name_at_offset(owner.addr, name)?,
            type_addr: self.type_at_offset(owner.addr, mtyp),
            code_offset: (!matches!(code, 0 | u32::MAX)).then_some(code),
        })
    }

    /// Determines which of the interfaces that panic printing checks for the type implements.
    pub fn role(&self, t: &Type) -> Result<Role, TypeError> {
        let mut role = Role::default();
        let mut marker = false;
        for m in self.methods(t)? {
            match m.name.as_str() {
                "Error" => role.error = self.returns_string(&m),
                "String" => role.stringer = self.returns_string(&m),
                // The runtime never calls it, so the linker may have removed its type; then the name decides.
                "RuntimeError" => marker = m.type_addr.is_none_or(|at| self.signature(at) == Some((0, 0))),
                _ => {}
            }
        }
        role.runtime_error = marker && role.error;
        Ok(role)
    }

    /// Reports whether the method is `func() string`. The runtime converts panic values to `error` and to an
    /// interface with `String() string`, so the linker keeps the type of every matching method; one without a
    /// type does not match.
    fn returns_string(&self, m: &Method) -> bool {
        let Some(at) = m.type_addr else { return false };
        if self.signature(at) != Some((0, 1)) {
            return false;
        }
        // The parameter types follow funcType; method types have no uncommon part in between.
        let after = u64::from(self.context.layout.uncommon_after.func);
        let result = self.memory.u64(at.wrapping_add(after)).and_then(|out| self.get(out).ok());
        result.is_some_and(|r| r.kind == Kind::String && self.name(&r).is_ok_and(|n| n == "string"))
    }

    /// Returns the numbers of parameters and results of the func type at `at`.
    fn signature(&self, at: u64) -> Option<(u16, u16)> {
        let t = self.get(at).ok().filter(|t| t.kind == Kind::Func)?;
        // funcType {Type; InCount, OutCount uint16}
        let counts = self.word_after(&t, 0).ok()?;
        let (ins, outs) = ((counts & 0xffff) as u16, (counts >> 16 & 0xffff) as u16);
        Some((ins, outs & !VARIADIC))
    }
}
