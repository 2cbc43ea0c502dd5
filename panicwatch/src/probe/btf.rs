//! Minimal parser of BTF, the kernel's type format: finds field offsets and tracepoint types.
//!
//! The existing crates either hide struct members (aya-obj) or are LGPL, which a statically linked program
//! under our licence cannot use. Pure, works on bytes; a damaged blob yields `None`.
//! <https://docs.kernel.org/bpf/btf.html>

const MAGIC: u16 = 0xeb9f;
/// Deepest nesting of anonymous structs and unions that is searched.
const MAX_DEPTH: u32 = 8;

const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

/// A parsed BTF blob.
pub(super) struct Btf<'a> {
    strings: &'a [u8],
    /// Bytes of each type, indexed by type ID minus one.
    types: Vec<&'a [u8]>,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

impl<'a> Btf<'a> {
    /// Indexes the types; `None` if the blob is damaged.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Btf<'a>> {
        if u16::from_le_bytes(bytes.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let header = word(bytes, 4)? as usize;
        let section = |offset: usize, len: usize| -> Option<&'a [u8]> {
            let start = header.checked_add(word(bytes, offset)? as usize)?;
            bytes.get(start..start.checked_add(word(bytes, len)? as usize)?)
        };
        let mut rest = section(8, 12)?;
        let strings = section(16, 20)?;
        let mut types = Vec::with_capacity(rest.len() / 24);
        while !rest.is_empty() {
            let (this, after) = rest.split_at_checked(type_len(rest)?)?;
            types.push(this);
            rest = after;
        }
        Some(Btf { strings, types })
    }

    fn name(&self, at: u32) -> Option<&'a [u8]> {
        self.strings.get(at as usize..)?.split(|b| *b == 0).next()
    }

    /// Returns the byte offset of `field` in `struct structure`, also inside anonymous members.
    pub(super) fn member_offset(&self, structure: &str, field: &str) -> Option<u32> {
        let found = self.types.iter().find(|t| {
            word(t, 4).is_some_and(|info| kind(info) == KIND_STRUCT && info & 0xffff > 0)
                && word(t, 0).and_then(|n| self.name(n)) == Some(structure.as_bytes())
        })?;
        self.find(found, field, 0).map(|bits| bits / 8)
    }

    /// Returns the number of arguments of the tracepoint `name`, without the first (private data) that every
    /// tracepoint has.
    pub(super) fn tracepoint_args(&self, name: &str) -> Option<u32> {
        let target = |t: &[u8]| self.types.get((word(t, 8)? as usize).checked_sub(1)?).copied();
        let typedef = *self.types.get((self.tracepoint_id(name)? as usize).checked_sub(1)?)?;
        let function = target(target(typedef)?)?;
        let info = word(function, 4)?;
        (kind(info) == KIND_FUNC_PROTO).then_some((info & 0xffff).checked_sub(1))?
    }

    /// Returns the BTF type ID that a program passes at load time to select the tracepoint `name`.
    pub(super) fn tracepoint_id(&self, name: &str) -> Option<u32> {
        let wanted = format!("btf_trace_{name}");
        let is_wanted = |t: &&[u8]| {
            word(t, 4).is_some_and(|info| kind(info) == KIND_TYPEDEF)
                && word(t, 0).and_then(|n| self.name(n)) == Some(wanted.as_bytes())
        };
        u32::try_from(self.types.iter().position(is_wanted)? + 1).ok()
    }

    fn find(&self, structure: &[u8], field: &str, depth: u32) -> Option<u32> {
        let info = word(structure, 4)?;
        let bitfields = info >> 31 != 0;
        for i in 0..(info & 0xffff) as usize {
            let at = 12 + 12 * i;
            let (name, id, offset) =
                (word(structure, at)?, word(structure, at + 4)?, word(structure, at + 8)?);
            let offset = if bitfields { offset & 0xff_ffff } else { offset };
            if name != 0 {
                if self.name(name)? == field.as_bytes() {
                    return Some(offset);
                }
                continue;
            }
            let inner = self.types.get((id as usize).checked_sub(1)?)?;
            let aggregate = matches!(kind(word(inner, 4)?), KIND_STRUCT | KIND_UNION);
            if aggregate
                && depth < MAX_DEPTH
                && let Some(within) = self.find(inner, field, depth + 1)
            {
                return offset.checked_add(within);
            }
        }
        None
    }
}

fn kind(info: u32) -> u32 {
    info >> 24 & 0x1f
}

fn type_len(bytes: &[u8]) -> Option<usize> {
    let info = word(bytes, 4)?;
    let n = (info & 0xffff) as usize;
    Some(
        12 + match kind(info) {
            KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
            KIND_ARRAY => 12,
            KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * n,
            KIND_ENUM | KIND_FUNC_PROTO => 8 * n,
            _ => 0,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_blobs_are_refused_without_panic() {
        assert!(Btf::parse(&[]).is_none());
        assert!(Btf::parse(&[0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]).is_none());
    }

    #[test]
    fn finds_a_field_behind_an_anonymous_union() {
        // struct s { int a; union { int b; }; }; with type ids: 1 int, 2 union, 3 struct.
        let mut types = Vec::new();
        let mut push = |words: &[u32]| words.iter().for_each(|w| types.extend(w.to_le_bytes()));
        push(&[1, KIND_INT << 24, 4, 32]);
        push(&[0, KIND_UNION << 24 | 1, 4, 5, 1, 0]);
        push(&[7, KIND_STRUCT << 24 | 2, 8, 3, 1, 0, 0, 2, 32]);
        let strings = b"\0i\0a\0b\0s\0";
        let mut blob = vec![0x9f, 0xeb, 1, 0, 24, 0, 0, 0];
        for w in [0, types.len() as u32, types.len() as u32, strings.len() as u32] {
            blob.extend(w.to_le_bytes());
        }
        blob.extend(&types);
        blob.extend(strings);
        let btf = Btf::parse(&blob).unwrap();
        assert_eq!(btf.member_offset("s", "b"), Some(4));
        assert_eq!(btf.member_offset("s", "c"), None);
        assert_eq!(btf.member_offset("t", "a"), None);
    }
}
