//! Errors and Stringers of Go's own library whose text takes more than concatenation.

use panicwatch_common::go::SLICE_LEN;

use super::{
    Decoder, duration, errno,
    place::{Place, Unknown},
    quote,
};
use crate::go::gotype::{Kind, Type};

/// Maximum number of errors in one errors.Join.
const MAX_JOINED: u64 = 1024;

impl Decoder<'_> {
    /// Returns the text of a value of type `package.name`; `None` for unknown types.
    pub(super) fn special(
        &self,
        package: &str,
        name: &str,
        t: &Type,
        place: Place,
    ) -> Option<Result<Vec<u8>, Unknown>> {
        let memory = self.types.memory;
        Some(match (package, name) {
            ("errors", "joinError") => self.joined(t, place),
            ("internal/runtime/maps", "unhashableTypeError") => self.unhashable(t, place),
            ("net", "AddrError") => self.addr_error(t, place),
            ("net", "DNSError") => self.dns_error(t, place),
            ("net", "OpError") => self.op_error(t, place),
            ("os/exec", "ExitError") => self.exit_error(t, place),
            ("reflect", "ValueError") => self.value_error(t, place),
            ("syscall", "Errno") => {
                place.word(memory).map(|n| errno::errno(self.types.context, n).into_bytes())
            }
            ("syscall", "Signal") => place.word(memory).map(|n| errno::signal(n as i64).into_bytes()),
            ("time", "Duration") => place.word(memory).map(|n| duration::text(n as i64).into_bytes()),
            ("time", "ParseError") => self.time_error(t, place),
            _ => return None,
        })
    }

    /// <https://github.com/golang/go/blob/go1.24.11/src/errors/join.go>
    fn joined(&self, t: &Type, at: Place) -> Result<Vec<u8>, Unknown> {
        let memory = self.types.memory;
        let errs = self.field(t, at, "errs")?.1;
        let (first, count) = (errs.word(memory)?, errs.offset(SLICE_LEN).word(memory)?);
        if count > MAX_JOINED {
            return Err(Unknown(format!("{count} joined errors")));
        }
        let mut texts = Vec::new();
        for i in 0..count {
            texts.push(self.error_at(Place::At(first).offset(16 * i))?);
            if self.is_cut() {
                break;
            }
        }
        Ok(texts.join(&b'\n'))
    }

    /// <https://github.com/golang/go/blob/go1.25.5/src/internal/runtime/maps/map.go>
    fn unhashable(&self, t: &Type, at: Place) -> Result<Vec<u8>, Unknown> {
        let typ = self.types.get(self.field(t, at, "typ")?.1.word(self.types.memory)?)?;
        Ok(format!("hash of unhashable type: {}", self.types.name(&typ)?).into())
    }

    /// <https://github.com/golang/go/blob/go1.24.11/src/net/net.go>, like the two functions below.
    fn addr_error(&self, t: &Type, at: Place) -> Result<Vec<u8>, Unknown> {
        let err = self.string_field(t, at, "Err")?;
        let addr = self.string_field(t, at, "Addr")?;
        Ok(if addr.is_empty() { err } else { [b"address ", addr.as_slice(), b": ", &err].concat() })
    }

    fn dns_error(&self, t: &Type, at: Place) -> Result<Vec<u8>, Unknown> {
        let mut out = b"lookup ".to_vec();
        out.extend(self.string_field(t, at, "Name")?);
        let server = self.string_field(t, at, "Server")?;
        if !server.is_empty() {
            out.extend(b" on ");
            out.extend(server);
        }
        out.extend(b": ");
        out.extend(self.string_field(t, at, "Err")?);
        Ok(out)
    }

    fn op_error(&self, t: &Type, at: Place) -> Result<Vec<u8>, Unknown> {
        let mut out = self.string_field(t, at, "Op")?;
        let net = self.string_field(t, at, "Net")?;
        if !net.is_empty() {
            out.push(b' ');
            out.extend(net);
        }
        let source = self.address(self.field(t, at, "Source")?.1)?;
        let addr = self.address(self.field(t, at, "Addr")?.1)?;
        if let Some(source) = &source {
            out.push(b' ');
            out.extend(source);
        }
        if let Some(addr) = addr {
            out.extend(if source.is_some() { b"->".as_slice() } else { b" " });
            out.extend(addr);
        }
        out.extend(b": ");
        out.extend(self.error_field(t, at, "Err")?);
        Ok(out)
    }

    /// <https://github.com/golang/go/blob/go1.24.11/src/os/exec_posix.go>
    fn exit_error(&self, t: &Type, at: Place) -> Result<Vec<u8>, Unknown> {
        let memory = self.types.memory;
        let (pointer, place) = self.field(t, at, "ProcessState")?;
        let state = place.word(memory)?;
        if state == 0 {
            return Ok(b"<nil>".to_vec());
        }
        let status = self.field(&self.types.elem(&pointer)?, Place::At(state), "status")?.1;
        wait_status(status.uint(memory, 4)? as u32)
            .map(String::into_bytes)
            .ok_or_else(|| Unknown::new("the child's wait status is neither exit nor signal"))
    }

    /// <https://github.com/golang/go/blob/go1.24.11/src/reflect/value.go>
    fn value_error(&self, t: &Type, at: Place) -> Result<Vec<u8>, Unknown> {
        let mut out = b"reflect: call of ".to_vec();
        out.extend(self.string_field(t, at, "Method")?);
        let number = self.field(t, at, "Kind")?.1.word(self.types.memory)?;
        out.extend(
            match (number, Kind::from_number(number)) {
                (0, _) => " on zero Value".to_owned(),
                (_, Some(kind)) => format!(" on {} Value", kind.name()),
                (n, None) => format!(" on kind{n} Value"),
            }
            .bytes(),
        );
        Ok(out)
    }

    /// <https://github.com/golang/go/blob/go1.24.11/src/time/format.go>
    fn time_error(&self, t: &Type, at: Place) -> Result<Vec<u8>, Unknown> {
        let quoted = |name| self.string_field(t, at, name).map(|text| quote::time(&text));
        let mut out = b"parsing time ".to_vec();
        out.extend(quoted("Value")?);
        let message = self.string_field(t, at, "Message")?;
        if message.is_empty() {
            out.extend(b" as ");
            out.extend(quoted("Layout")?);
            out.extend(b": cannot parse ");
            out.extend(quoted("ValueElem")?);
            out.extend(b" as ");
            out.extend(quoted("LayoutElem")?);
        } else {
            out.extend(message);
        }
        Ok(out)
    }
}

/// Formats like `(*os.ProcessState).String`, for a process that has ended.
fn wait_status(status: u32) -> Option<String> {
    let core = if status & 0x80 != 0 { " (core dumped)" } else { "" };
    match status & 0x7f {
        0 => Some(format!("exit status {}", (status >> 8) & 0xff)),
        0x7f => None,
        signal => Some(format!("signal: {}{core}", errno::signal(i64::from(signal)))),
    }
}

#[cfg(test)]
mod tests {
    use super::wait_status;

    #[test]
    fn wait_statuses_read_as_go_prints_them() {
        assert_eq!(wait_status(3 << 8).as_deref(), Some("exit status 3"));
        assert_eq!(wait_status(9).as_deref(), Some("signal: killed"));
        assert_eq!(wait_status(6 | 0x80).as_deref(), Some("signal: aborted (core dumped)"));
        assert_eq!(wait_status(0x137f), None);
    }
}
