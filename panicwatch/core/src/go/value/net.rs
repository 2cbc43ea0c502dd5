//! Addresses of package net, formatted as by their String methods.
//!
//! <https://github.com/golang/go/blob/go1.24.11/src/net/ip.go>

use std::net::{Ipv4Addr, Ipv6Addr};

use panicwatch_common::go::SLICE_LEN;

use super::{
    Decoder,
    place::{Place, Unknown},
};
use crate::go::gotype::Type;

/// Maximum length of a `net.IP`, in bytes.
const MAX_IP: u64 = 64;

impl Decoder<'_> {
    /// `net.Addr.String` of the interface value at `place`; `None` when the interface is nil.
    pub(super) fn address(&self, place: Place) -> Result<Option<Vec<u8>>, Unknown> {
        let Some((t, data)) = self.interface(place)? else { return Ok(None) };
        let name = self.types.name(&t)?;
        if self.types.package(&t)? != "net" {
            return Err(Unknown(format!(
                "address of type {name}, whose text requires running the program's code"
            )));
        }
        if data == 0 {
            return Ok(Some(b"<nil>".to_vec()));
        }
        let s = self.types.elem(&t)?;
        let at = Place::At(data);
        match name.as_str() {
            "*net.TCPAddr" | "*net.UDPAddr" => {
                let host = self.host(&s, at)?;
                let port = self.field(&s, at, "Port")?.1.word(self.types.memory)? as i64;
                Ok(Some(join_host_port(&host, port)))
            }
            "*net.IPAddr" => self.host(&s, at).map(Some),
            "*net.UnixAddr" => self.field(&s, at, "Name")?.1.string(self.types.memory).map(Some),
            _ => Err(Unknown(format!(
                "address of type {name}, whose text requires running the program's code"
            ))),
        }
    }

    /// Returns IP and zone of an address struct.
    fn host(&self, s: &Type, at: Place) -> Result<Vec<u8>, Unknown> {
        let memory = self.types.memory;
        let ip = self.field(s, at, "IP")?.1;
        let (ptr, len) = (ip.word(memory)?, ip.offset(SLICE_LEN).word(memory)?);
        if len > MAX_IP {
            return Err(Unknown(format!("IP address of {len} bytes")));
        }
        let bytes = super::place::string_bytes(memory, ptr, len)?;
        let zone = self.field(s, at, "Zone")?.1.string(memory)?;
        let mut host = ip_text(&bytes).into_bytes();
        if !zone.is_empty() {
            host.push(b'%');
            host.extend(zone);
        }
        Ok(host)
    }
}

/// `net.IP.String`, except that the empty address gives "".
fn ip_text(bytes: &[u8]) -> String {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ipv4Addr::from(v4).to_string();
    }
    if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
        let v6 = Ipv6Addr::from(v6);
        return v6.to_ipv4_mapped().map_or_else(|| v6.to_string(), |v4| v4.to_string());
    }
    if bytes.is_empty() {
        return String::new();
    }
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("?{hex}")
}

/// `net.JoinHostPort`.
fn join_host_port(host: &[u8], port: i64) -> Vec<u8> {
    let mut out = Vec::new();
    if host.contains(&b':') {
        out.push(b'[');
        out.extend(host);
        out.push(b']');
    } else {
        out.extend(host);
    }
    out.extend(format!(":{port}").bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_go_prints_them() {
        assert_eq!(ip_text(&[127, 0, 0, 1]), "127.0.0.1");
        let mut mapped = [0; 16];
        mapped[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 1]);
        assert_eq!(ip_text(&mapped), "10.0.0.1");
        let mut loopback = [0; 16];
        loopback[15] = 1;
        assert_eq!(ip_text(&loopback), "::1");
        assert_eq!(ip_text(&[1, 2, 3]), "?010203");
        assert_eq!(join_host_port(b"::1%eth0", 80), b"[::1%eth0]:80");
        assert_eq!(join_host_port(b"", 80), b":80");
    }
}
