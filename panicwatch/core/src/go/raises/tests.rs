//! Small pieces of code with a fictitious runtime: addresses below 0x1000 are functions.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::{
    RaisedBy, Unknown,
    code::Body,
    describe::Scan,
    image::{Image, Place},
    locate::locate,
};
use crate::go::release::Release;

const ENTRY: u64 = 0x1000;
const GOPANIC: u64 = 0x100;
const INDEX: u64 = 0x110;
const SLICE: u64 = 0x120;
const DIVIDE: u64 = 0x130;
const BOUNDS: u64 = 0x140;
const PRINTLN: u64 = 0x150;
const GROW: u64 = 0x160;
const THROW: u64 = 0x170;
const ASSERT: u64 = 0x180;

/// Provides the value of PCDATA_PanicBounds at every call.
struct Fake(Option<i32>);

impl Image for Fake {
    fn release(&self) -> Release {
        Release::new(26)
    }
    fn function_at(&self, address: u64) -> Option<String> {
        let name = match address {
            GOPANIC => "runtime.gopanic",
            INDEX => "runtime.panicIndex",
            SLICE => "runtime.panicSliceB",
            DIVIDE => "runtime.panicdivide",
            BOUNDS => "runtime.panicBounds",
            PRINTLN => "fmt.Println",
            GROW => "runtime.growslice",
            THROW => "runtime.throw",
            ASSERT => "runtime.typeAssert",
            _ => return None,
        };
        Some(name.to_owned())
    }
    fn bounds(&self, _: u64) -> Option<i32> {
        self.0
    }
    fn type_name(&self, descriptor: u64) -> Option<String> {
        match descriptor {
            0x2000 => Some("string".to_owned()),
            0x2010 => Some("main.Evil\x1b[2J".to_owned()),
            _ => None,
        }
    }
    fn word(&self, _: u64) -> Option<u64> {
        None
    }
    fn text(&self, address: u64, len: u64) -> Option<String> {
        (address == 0x2100).then(|| "x".repeat(len.min(8) as usize))
    }
    fn string(&self, header: u64) -> Option<String> {
        (header == 0x2020).then(|| "first\nsecond".to_owned())
    }
    fn type_assert(&self, address: u64) -> Option<(u64, bool)> {
        Some((0x2000, address == 0x2030))
    }
    fn place(&self, _: u64) -> Place {
        Place::default()
    }
}

/// Builds code from instructions; calls and addresses are encoded relative to their own position.
#[derive(Default, Clone)]
struct Asm(Vec<u8>);

impl Asm {
    fn at(&self) -> u64 {
        ENTRY + self.0.len() as u64
    }
    fn b(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
    fn rel(self, opcode: &[u8], to: u64) -> Self {
        let next = self.at() + opcode.len() as u64 + 4;
        let off = (to.wrapping_sub(next) as u32).to_le_bytes();
        self.b(opcode).b(&off)
    }
    fn call(self, to: u64) -> Self {
        self.rel(&[0xe8], to)
    }
    /// lea to(%rip),%rax
    fn rax(self, to: u64) -> Self {
        self.rel(&[0x48, 0x8d, 0x05], to)
    }
    /// lea to(%rip),%rbx
    fn rbx(self, to: u64) -> Self {
        self.rel(&[0x48, 0x8d, 0x1d], to)
    }
    fn scan<'a>(&self, image: &'a Fake) -> Scan<'a> {
        Scan::new(Body::decode(ENTRY, &self.0).expect("short"), image)
    }
    fn ask(&self, pc: u64) -> Result<RaisedBy, Unknown> {
        locate(&self.scan(&Fake(None)), pc)
    }
}

/// Lists the result for every address of the code, grouping adjacent addresses with the same result.
fn answers(code: &Asm, image: &Fake) -> String {
    let scan = code.scan(image);
    let mut out = String::new();
    let mut last = String::new();
    for pc in ENTRY..code.at() {
        let said = match locate(&scan, pc) {
            Ok(r) => {
                let other = r.otherwise.map_or_else(String::new, |o| format!(" [or {:#x}]", o.at));
                format!("{:#x} {}{other}", r.at, r.words)
            }
            Err(e) => format!("- {e}"),
        };
        if said != last {
            out.push_str(&format!("{pc:#x}: {said}\n"));
        }
        last = said;
    }
    out
}

fn check(code: &Asm, image: &Fake, want: Expect) {
    want.assert_eq(&answers(code, image));
}

const CMP_RBX_RDI: &[u8] = &[0x48, 0x39, 0xdf];
const NOP: &[u8] = &[0x90];
const RET: &[u8] = &[0xc3];

#[test]
fn an_index_check_by_each_of_its_addresses() {
    // cmp %rbx,%rdi; jae 1f; mov (%rax,%rdi,8),%rax; ret; 1: mov %rdi,%rax; mov %rbx,%rcx; call; nop
    let code = Asm::default()
        .b(CMP_RBX_RDI)
        .b(&[0x73, 0x05])
        .b(&[0x48, 0x8b, 0x04, 0xf8])
        .b(RET)
        .b(&[0x48, 0x89, 0xf8, 0x48, 0x89, 0xd9])
        .call(INDEX)
        .b(NOP);
    check(
        &code,
        &Fake(None),
        expect![[r#"
        0x1000: 0x1010 index %rdi is compared with length %rbx (cmp %rbx,%rdi; jae): out of range when index ≥ length, unsigned; runtime.panicIndex raises "index out of range [%rdi] with length %rbx"
        0x1005: 0x1005 mov (%rax,%rdi,8),%rax reads 8 bytes at (%rax,%rdi,8): panics with a nil pointer dereference when %rax is nil and the offset added to it is below 4096
        0x1009: - ret at 0x1009 raises nothing
        0x100a: 0x1010 index %rdi is compared with length %rbx (cmp %rbx,%rdi; jae): out of range when index ≥ length, unsigned; runtime.panicIndex raises "index out of range [%rdi] with length %rbx"
    "#]],
    );
}

#[test]
fn a_jump_over_the_call_is_a_check_too() {
    // cmp %rbx,%rdi; jb 1f; mov %rdi,%rax; mov %rbx,%rcx; call; 1: ret
    let code = Asm::default()
        .b(CMP_RBX_RDI)
        .b(&[0x72, 0x0b])
        .b(&[0x48, 0x89, 0xf8, 0x48, 0x89, 0xd9])
        .call(INDEX)
        .b(RET);
    let said = code.ask(ENTRY + 3).expect("a check");
    assert_eq!((said.operand("index"), said.operand("length")), (Some("%rdi"), Some("%rbx")));
    assert!(!said.checks[0].raises_if_taken);
    expect![[r#"index %rdi is compared with length %rbx (cmp %rbx,%rdi; jb): out of range when index ≥ length, unsigned; runtime.panicIndex raises "index out of range [%rdi] with length %rbx""#]].assert_eq(&said.words);
}

#[test]
fn operands_that_the_call_is_not_passed_are_not_named() {
    // The comparison has other operands: cmp %rsi,%r8; jae 1f; ret; 1: mov %rdi,%rax; mov %rbx,%rcx; call
    let other = Asm::default()
        .b(&[0x49, 0x39, 0xf0])
        .b(&[0x73, 0x01])
        .b(RET)
        .b(&[0x48, 0x89, 0xf8, 0x48, 0x89, 0xd9])
        .call(INDEX);
    let said = other.ask(ENTRY).expect("a check");
    assert_eq!((said.operand("index"), said.operand("length")), (Some("%rax"), Some("%rcx")));
    expect![[r#"runtime.panicIndex raises "index out of range [%rax] with length %rcx", index and length as they are at the call when %r8 ≥ %rsi, unsigned (cmp %rsi,%r8; jae); it is uncertain which operands of a check they are"#]].assert_eq(&said.words);
    // One of its operands is passed: cmp %rdx,%rdi; jge 1f (the program's own check, signed).
    let own = Asm::default()
        .b(&[0x48, 0x39, 0xd7])
        .b(&[0x7d, 0x01])
        .b(RET)
        .b(&[0x48, 0x89, 0xf8])
        .b(&[0xb9, 8, 0, 0, 0])
        .call(INDEX);
    let said = own.ask(ENTRY).expect("a check");
    expect![[r#"runtime.panicIndex raises "index out of range [%rax] with length 8", index and length as they are at the call when %rdi ≥ %rdx, signed (cmp %rdx,%rdi; jge); it is uncertain which operands of a check they are"#]].assert_eq(&said.words);
}

#[test]
fn one_comparison_for_two_jumps() {
    // cmp %rbx,%rdi; jge 2f; jae 1f; ret; 2: ret; 1: mov %rdi,%rax; mov %rbx,%rcx; call
    let code = Asm::default()
        .b(CMP_RBX_RDI)
        .b(&[0x7d, 0x03])
        .b(&[0x73, 0x02])
        .b(RET)
        .b(RET)
        .b(&[0x48, 0x89, 0xf8, 0x48, 0x89, 0xd9])
        .call(INDEX);
    let said = code.ask(ENTRY).expect("a check");
    assert_eq!((said.compare(), said.check()), (Some(ENTRY), Some(ENTRY + 5)));
    assert_eq!((said.operand("index"), said.operand("length")), (Some("%rdi"), Some("%rbx")));
}

#[test]
fn bounds_by_pcdata_and_two_calls_side_by_side() {
    // cmp %rcx,%rsi; ja 2f; cmp %rdi,%rsi; jb 1f; ret; 1: call; 2: call; x = %rdi, y = %rsi at both
    let slice_low = (1 | 2 | 1 << 2 | 7 << 3 | 6 << 7) * 9 + 3;
    let code = Asm::default()
        .b(&[0x48, 0x39, 0xce, 0x77, 0x0b])
        .b(&[0x48, 0x39, 0xfe, 0x72, 0x01])
        .b(RET)
        .call(BOUNDS)
        .call(BOUNDS)
        .b(NOP);
    check(
        &code,
        &Fake(Some(slice_low)),
        expect![[r#"
        0x1000: 0x1010 runtime.panicBounds raises "slice bounds out of range [%rdi:%rsi]", low and high as they are at the call when %rsi > %rcx, unsigned (cmp %rcx,%rsi; ja); it is uncertain which operands of a check they are
        0x1005: 0x100b low %rdi is compared with high %rsi (cmp %rdi,%rsi; jb): out of range when low > high, unsigned; runtime.panicBounds raises "slice bounds out of range [%rdi:%rsi]"
        0x100a: - ret at 0x100a raises nothing
        0x100b: 0x100b low %rdi is compared with high %rsi (cmp %rdi,%rsi; jb): out of range when low > high, unsigned; runtime.panicBounds raises "slice bounds out of range [%rdi:%rsi]"
        0x1010: 0x100b low %rdi is compared with high %rsi (cmp %rdi,%rsi; jb): out of range when low > high, unsigned; runtime.panicBounds raises "slice bounds out of range [%rdi:%rsi]" [or 0x1010]
        0x1011: 0x1010 runtime.panicBounds raises "slice bounds out of range [%rdi:%rsi]", low and high as they are at the call when %rsi > %rcx, unsigned (cmp %rcx,%rsi; ja); it is uncertain which operands of a check they are
    "#]],
    );
    check(
        &code,
        &Fake(None),
        expect![[r#"
        0x1000: 0x1010 runtime.panicBounds raises a bounds error when %rsi > %rcx, unsigned (cmp %rcx,%rsi; ja); the binary does not say which (PCDATA_PanicBounds)
        0x1005: 0x100b runtime.panicBounds raises a bounds error when %rsi < %rdi, unsigned (cmp %rdi,%rsi; jb); the binary does not say which (PCDATA_PanicBounds)
        0x100a: - ret at 0x100a raises nothing
        0x100b: 0x100b runtime.panicBounds raises a bounds error when %rsi < %rdi, unsigned (cmp %rdi,%rsi; jb); the binary does not say which (PCDATA_PanicBounds)
        0x1010: 0x100b runtime.panicBounds raises a bounds error when %rsi < %rdi, unsigned (cmp %rdi,%rsi; jb); the binary does not say which (PCDATA_PanicBounds) [or 0x1010]
        0x1011: 0x1010 runtime.panicBounds raises a bounds error when %rsi > %rcx, unsigned (cmp %rcx,%rsi; ja); the binary does not say which (PCDATA_PanicBounds)
    "#]],
    );
}

#[test]
fn values_given_to_panic_and_throw() {
    // test %rcx,%rcx; je 1f; ret; 1: lea string; lea header; call gopanic
    let text = Asm::default().b(&[0x48, 0x85, 0xc9, 0x74, 0x01]).b(RET).rax(0x2000).rbx(0x2020).call(GOPANIC);
    let said = text.ask(ENTRY + 6).expect("the straight way leads to it");
    assert_eq!((said.type_name.as_deref(), said.message.as_deref()), (Some("string"), Some("first\nsecond")));
    expect![[
        r#"runtime.gopanic raises the constant string "first\nsecond" when %rcx == 0 (test %rcx,%rcx; je)"#
    ]]
    .assert_eq(&said.words);
    let evil = Asm::default().rax(0x2010).call(GOPANIC);
    expect![[r#"runtime.gopanic raises a value of type main.Evil\x1b[2J, without a condition before it"#]]
        .assert_eq(&evil.ask(ENTRY).expect("gopanic").words);
    // A call in between may change the register.
    let lost = Asm::default().rax(0x2010).call(PRINTLN).call(GOPANIC);
    expect![
        "runtime.gopanic raises a value whose type this code does not show, without a condition before it"
    ]
    .assert_eq(&lost.ask(ENTRY).expect("gopanic").words);
    // lea text; mov $4,%ebx
    let throw = Asm::default().rax(0x2100).b(&[0xbb, 4, 0, 0, 0]).call(THROW);
    expect![[
        r#"runtime.throw ends the program with "xxxx", without a condition before it; nothing recovers it"#
    ]]
    .assert_eq(&throw.ask(ENTRY).expect("throw").words);
}

#[test]
fn several_checks_for_one_call() {
    // test %rcx,%rcx; je 1f; test %rdx,%rdx; je 1f; ret; 1: call panicdivide
    let code = Asm::default()
        .b(&[0x48, 0x85, 0xc9, 0x74, 0x06])
        .b(&[0x48, 0x85, 0xd2, 0x74, 0x01])
        .b(RET)
        .call(DIVIDE);
    let of_call = code.ask(ENTRY + 11).expect("the call");
    assert_eq!(of_call.operand("divisor"), None, "either");
    expect![[r#"runtime.panicdivide raises "integer divide by zero"; 2 checks lead to it: when %rcx == 0 (test %rcx,%rcx; je), or when %rdx == 0 (test %rdx,%rdx; je)"#]].assert_eq(&of_call.words);
    let of_second = code.ask(ENTRY + 5).expect("a comparison");
    assert_eq!((of_second.operand("divisor"), of_second.checks.len()), (Some("%rdx"), 1));
}

#[test]
fn faults_and_what_cannot_be_one() {
    let code = Asm::default()
        .b(&[0x84, 0x00]) // test %al,(%rax)
        .b(&[0x48, 0x8b, 0x48, 0x18]) // mov 0x18(%rax),%rcx
        .b(&[0xc6, 0x04, 0x0b, 0x01]) // movb $1,(%rbx,%rcx,1)
        .b(&[0x48, 0x8b, 0x4c, 0x24, 0x08]) // mov 0x8(%rsp),%rcx
        .b(&[0x48, 0x8b, 0x8b, 0x00, 0x10, 0x00, 0x00]) // mov 0x1000(%rbx),%rcx
        .b(&[0x48, 0xf7, 0xf9]) // idiv %rcx
        .b(&[0x48, 0x8d, 0x43, 0x08]) // lea 0x8(%rbx),%rax
        .b(&[0xff, 0x12]) // call *(%rdx)
        .call(GROW)
        .call(PRINTLN)
        .b(RET);
    check(
        &code,
        &Fake(None),
        expect![[r#"
            0x1000: 0x1000 test %al,(%rax) is a nil check, which reads only to fault: panics with a nil pointer dereference when %rax is nil
            0x1002: 0x1002 mov 0x18(%rax),%rcx reads 8 bytes at 0x18(%rax): panics with a nil pointer dereference when %rax is nil
            0x1006: 0x1006 movb $0x1,(%rbx,%rcx) writes 1 byte at (%rbx,%rcx): panics with a nil pointer dereference when %rbx is nil and the offset added to it is below 4096
            0x100a: - mov 0x8(%rsp),%rcx at 0x100a uses memory whose address cannot be nil: on the stack, of the goroutine itself, at a fixed address or too far from nil
            0x100f: - mov 0x1000(%rbx),%rcx at 0x100f uses memory whose address cannot be nil: on the stack, of the goroutine itself, at a fixed address or too far from nil
            0x1016: 0x1016 idiv %rcx divides by %rcx: the processor faults when it is 0, and the runtime panics with "integer divide by zero"; the compiler normally checks before
            0x1019: - lea 0x8(%rbx),%rax at 0x1019 raises nothing
            0x101d: 0x101d callq *(%rdx) reads 8 bytes at (%rdx): panics with a nil pointer dereference when %rdx is nil
            0x101f: 0x101f runtime.growslice, called with length %rbx, may raise inside: growslice: len out of range (cap out of range before Go 1.20)
            0x1025: - call 0x150 at 0x1024 calls fmt.Println, which is not one of the functions that raise; the functions that it calls were not analyzed
            0x1029: - ret at 0x1029 raises nothing
        "#]],
    );
    let all = code.scan(&Fake(None)).everything();
    let listed: Vec<_> = all.iter().map(|r| format!("{:#x} {}", r.at, r.kind.as_str())).collect();
    expect![[r#"
        0x1000 nil_dereference
        0x1006 nil_dereference
        0x1016 divide
        0x101d nil_dereference
        0x101f grow_slice"#]]
    .assert_eq(&listed.join("\n"));
}

#[test]
fn an_assertion_that_may_fail_quietly_raises_nothing() {
    let loud = Asm::default().rax(0x2040).call(ASSERT).b(RET);
    let said = loud.ask(ENTRY + 7).expect("it raises");
    assert_eq!(said.type_name.as_deref(), Some("string"));
    let quiet = Asm::default().rax(0x2030).call(ASSERT).b(RET);
    expect!["call 0x180 at 0x1007 calls runtime.typeAssert, which is not one of the functions that raise; the functions that it calls were not analyzed"].assert_eq(&quiet.ask(ENTRY + 7).expect_err("v, ok := x.(I)").0);
}

#[test]
fn hostile_code_ends_soon() {
    // 100 000 jumps to one panic, each a path to it; and a panic after each of them.
    let mut code = Asm::default();
    for _ in 0..100_000 {
        code = code.rel(&[0x0f, 0x84], ENTRY + 700_000);
    }
    for _ in 0..50_000 {
        code = code.b(&[0x48, 0x8b, 0x00]).call(DIVIDE);
    }
    let image = Fake(None);
    let scan = code.scan(&image);
    assert!(scan.everything().len() >= 50_000);
    let last = locate(&scan, code.at() - 5).expect("a call");
    assert_eq!(last.at, code.at() - 5);
}

proptest! {
    #[test]
    fn any_bytes_end_in_an_answer(
        bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0xe8), Just(0x74), Just(0x73), Just(0xeb)], 0..300),
        entry in prop_oneof![any::<u64>(), Just(0x200), Just(u64::MAX - 100)],
        at in 0u64..320,
        pcdata in any::<Option<i32>>(),
    ) {
        let image = Fake(pcdata);
        let Ok(body) = Body::decode(entry, &bytes) else { return Ok(()) };
        let scan = Scan::new(body, &image);
        let all = scan.everything();
        prop_assert!(all.is_sorted_by_key(|r| r.at));
        if let Ok(said) = locate(&scan, entry.wrapping_add(at)) {
            prop_assert!(!said.words.is_empty());
        }
    }
}
