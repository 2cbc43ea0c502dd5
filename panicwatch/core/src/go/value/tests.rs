//! Damaged and hostile memory: every decoding ends quickly, without a panic and without inventing a text.

use super::*;
use crate::go::{
    gobin::{GoVersion, RuntimeLayout},
    gotype::TypeSection,
    memory::Snapshot,
};

const TYPES: u64 = 0x10_0000;
const HEAP: u64 = 0x20_0000;

fn layout(minor: u16) -> RuntimeLayout {
    let version = GoVersion::parse(&format!("go1.{minor}.0")).expect("a version");
    RuntimeLayout::for_version(&version).expect("a row")
}

fn context(minor: u16) -> TypeContext {
    TypeContext {
        layout: layout(minor),
        arm64: false,
        sections: vec![TypeSection { types: TYPES, etypes: TYPES + 0x1_0000 }],
    }
}

/// A type section, built piece by piece.
#[derive(Default)]
struct Section(Vec<u8>);

impl Section {
    fn put(&mut self, bytes: &[u8]) -> u64 {
        while !self.0.len().is_multiple_of(8) {
            self.0.push(0);
        }
        let at = TYPES + self.0.len() as u64;
        self.0.extend(bytes);
        at
    }

    fn name(&mut self, text: &str) -> u64 {
        self.put(&[&[1, text.len() as u8], text.as_bytes()].concat())
    }

    /// Appends an abi.Type followed by `rest`; returns its address.
    fn typ(&mut self, name: &str, size: u64, flags: u8, kind: u8, rest: &[u64]) -> u64 {
        let name = self.name(name);
        let mut raw = vec![0; 48];
        raw[..8].copy_from_slice(&size.to_le_bytes());
        raw[20] = flags;
        raw[23] = kind;
        raw[40..44].copy_from_slice(&((name - TYPES) as u32).to_le_bytes());
        raw.extend(rest.iter().flat_map(|w| w.to_le_bytes()));
        self.put(&raw)
    }

    fn finish(self) -> Snapshot {
        let mut memory = Snapshot::new();
        memory.add(TYPES, self.0);
        memory
    }
}

fn string_header(ptr: u64, len: u64) -> Vec<u8> {
    [ptr.to_le_bytes(), len.to_le_bytes()].concat()
}

#[test]
fn nothing_captured_says_so() {
    let memory = Snapshot::new();
    let context = context(24);
    let d = Decoder::new(&memory, &context).decode(Eface { type_word: TYPES, data_word: HEAP });
    assert_eq!(d.value, Value::default());
    assert_eq!(d.missing.len(), 3);
    assert_eq!(
        d.missing_under("panics[0].value").next().map(|m| m.what),
        Some("panics[0].value.type".into())
    );
}

#[test]
fn a_string_that_was_captured_in_part_is_cut_and_missing_says_so() {
    let mut section = Section::default();
    section.put(&[0; 8]);
    let string = section.typ("string", 16, 4, 24, &[]);
    let context = context(24);
    let mut memory = section.finish();
    memory.add(HEAP, string_header(HEAP + 0x100, 10));
    memory.add(HEAP + 0x100, *b"hello");
    let eface = Eface { type_word: string, data_word: HEAP };
    let d = Decoder::new(&memory, &context).decode(eface);
    assert_eq!(d.value.type_name.as_deref(), Some("string"));
    assert_eq!(d.value.text.as_deref(), Some("hello"));
    let what: Vec<_> = d.missing.iter().map(|m| (m.what.as_str(), m.reason.as_str())).collect();
    let reason = "truncated: the first 5 of the string's 10 bytes were captured";
    assert_eq!(what, [("text", reason), ("printed", reason)]);

    memory.add(HEAP + 0x105, *b"\n\xffrld");
    let d = Decoder::new(&memory, &context).decode(eface);
    assert_eq!(d.value.text.as_deref(), Some("hello\n\u{fffd}rld"));
    assert_eq!(d.value.printed.as_deref(), Some("hello\n\t\u{fffd}rld"));
    assert_eq!(d.value.raw_hex.as_deref(), Some("68656c6c6f0aff726c64"));
    assert_eq!(d.missing, []);
}

#[test]
fn a_huge_length_costs_nothing() {
    let mut section = Section::default();
    section.put(&[0; 8]);
    let string = section.typ("string", 16, 4, 24, &[]);
    let mut memory = section.finish();
    memory.add(HEAP, string_header(HEAP, u64::MAX));
    let context = context(24);
    let d = Decoder::new(&memory, &context).decode(Eface { type_word: string, data_word: HEAP });
    assert_eq!(d.value.text, None);
}

#[test]
fn a_pointer_to_itself_ends() {
    let mut section = Section::default();
    section.put(&[0; 8]);
    let at = section.typ("*main.P", 8, 0, 22 | 0x20, &[0]);
    let mut bytes = section.0.clone();
    // Its element type is the type itself.
    let elem = (at - TYPES) as usize + 48;
    bytes[elem..elem + 8].copy_from_slice(&at.to_le_bytes());
    let mut memory = Snapshot::new();
    memory.add(TYPES, bytes);
    memory.add(HEAP, HEAP.to_le_bytes());
    let context = context(24);
    let d = Decoder::new(&memory, &context).decode(Eface { type_word: at, data_word: HEAP });
    assert_eq!(d.value.printed.as_deref(), Some("(*main.P) 0x200000"));
}

#[test]
fn methods_are_not_read_without_end() {
    // errors.Join of a thousand errors, each of a type with the maximum number of methods.
    let mut section = Section::default();
    section.put(&[0; 8]);
    let string = section.typ("string", 16, 4, 24, &[]);
    let error = section.typ("func() string", 8, 0, 19, &[1 << 16, string]);
    let name = |section: &mut Section, text: &str| (section.name(text) - TYPES) as u32;
    let [own, other, package] = ["Error", "x", "errors"].map(|text| name(&mut section, text));
    let methods = |count: u16| {
        let uncommon = [package, u32::from(count), 16, 0].into_iter();
        let method = |i| [if i == 0 { own } else { other }, (error - TYPES) as u32, 0, 0];
        uncommon.chain((0..count).flat_map(method)).flat_map(u32::to_le_bytes).collect::<Vec<_>>()
    };
    let word = |bytes: Vec<u8>| bytes.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect();
    let many: Vec<u64> = word(methods(8192));
    let wide = section.typ("main.Wide", 16, 1 | 4, 24, &many);
    let field = section.name("errs");
    let slice = section.typ("[]error", 24, 0, 23, &[0]);
    let fields = section.put(&[field, slice, 0].into_iter().flat_map(u64::to_le_bytes).collect::<Vec<_>>());
    let head = [vec![0, fields, 1, 1], word(methods(1))].concat();
    let join = section.typ("errors.joinError", 24, 1 | 4, 25, &head);

    let mut memory = section.finish();
    let (itab, list) = (HEAP + 0x100, HEAP + 0x200);
    memory.add(HEAP, [list, 1024, 1024].into_iter().flat_map(u64::to_le_bytes).collect::<Vec<_>>());
    memory.add(itab, [0, wide].into_iter().flat_map(u64::to_le_bytes).collect::<Vec<_>>());
    memory.add(
        list,
        [itab, HEAP].into_iter().cycle().take(2048).flat_map(u64::to_le_bytes).collect::<Vec<_>>(),
    );
    let mut context = context(24);
    context.sections[0].etypes = TYPES + 0x10_0000;
    let d = Decoder::new(&memory, &context).decode(Eface { type_word: join, data_word: HEAP });
    assert_eq!(d.value.text, None);
    // Either reason ends it; the text of such a type would be known only to the program.
    assert!(d.missing.iter().all(|m| m.reason.contains("main.Wide")), "{:?}", d.missing);
    let decoder = Decoder::new(&memory, &context);
    let wide = decoder.types.get(wide).expect("a type");
    let reads = (0..1024).take_while(|_| decoder.role(&wide).is_ok()).count();
    assert_eq!(reads as u64, FUEL / METHOD / 8192);
}

#[test]
fn panic_nil_depends_on_release_and_setting() {
    let memory = Snapshot::new();
    let text = |minor, setting| {
        let context = context(minor);
        Decoder::new(&memory, &context).nil_argument(setting).value.printed
    };
    assert_eq!(text(19, None).as_deref(), Some("nil"));
    assert_eq!(text(24, Some(true)).as_deref(), Some("nil"));
    assert_eq!(text(24, Some(false)).as_deref(), Some("panic called with nil argument"));
    assert_eq!(text(27, Some(false)).as_deref(), Some("runtime error: panic called with nil argument"));
    assert_eq!(text(27, None), None);
}

/// Memory in which every byte is readable and none is meaningful.
struct Noise(u64);

impl Memory for Noise {
    fn read(&self, addr: u64, buf: &mut [u8]) -> bool {
        for (i, byte) in buf.iter_mut().enumerate() {
            let mut x = addr.wrapping_add(i as u64) ^ self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            // Small values are more likely to be accepted as lengths and flags.
            *byte = if x & 0x300 == 0 { (x >> 56) as u8 } else { (x >> 60) as u8 & 3 };
        }
        true
    }
}

#[test]
#[expect(clippy::disallowed_types, reason = "a test measures time")]
fn noise_ends_soon() {
    let start = std::time::Instant::now();
    let mut typed = 0;
    for seed in 0..2000 {
        for minor in [19, 24, 27] {
            let memory = Noise(seed);
            let context = TypeContext {
                layout: layout(minor),
                arm64: false,
                sections: vec![TypeSection { types: 0, etypes: u64::MAX }],
            };
            let decoder = Decoder::new(&memory, &context);
            let eface = Eface { type_word: seed << 20, data_word: seed << 8 };
            let d = decoder.decode(eface);
            typed += usize::from(d.value.type_name.is_some());
            let _ = decoder.resolved(&d, Eface { type_word: seed << 4, data_word: 1 });
            let _ = labels(&memory, Release::new(minor), seed + 1);
        }
    }
    assert!(typed > 0, "the noise reaches past the type's header");
    assert!(start.elapsed().as_secs() < 60, "took {:?}", start.elapsed());
}
