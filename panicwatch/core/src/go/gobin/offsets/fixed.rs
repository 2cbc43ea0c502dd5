//! Asserts that the constants of [`panicwatch_common::go`] and the sizes of the copied structs agree with
//! every column of the layout table.

use panicwatch_common::{
    event::{ANCESTOR_BYTES, DEFER_BYTES, G_BYTES, M_BYTES, PANIC_BYTES},
    go,
};

use super::{AncestorInfo, Defer, G, Itab, M, Panic, RELEASES, Type};

/// Reports whether the fields are at the constant offsets.
pub(super) const fn hold(g: &G, abi_type: &Type, itab: &Itab) -> bool {
    is(g.stack_lo, go::G_STACK_LO)
        && is(g.stack_hi, go::G_STACK_HI)
        && is(g.panic, go::G_PANIC)
        && is(g.defer, go::G_DEFER)
        && is(g.m, go::G_M)
        && is(g.sched_g, g.sched_sp as u64 + go::GOBUF_G)
        && is(abi_type.value_size, go::TYPE_SIZE)
        && is(abi_type.kind, go::TYPE_KIND)
        && is(abi_type.size, go::POINTER_ELEM)
        && is(itab.type_, go::ITAB_TYPE)
}

const fn is(offset: u16, constant: u64) -> bool {
    offset as u64 == constant
}

/// Reports whether the copied part of a struct has the word at `offset`.
const fn within(offset: u16, bytes: usize) -> bool {
    offset as usize + 8 <= bytes
}

const _: () = {
    let mut i = 0;
    while i < RELEASES.len() {
        let (g, m, panic, defer) = (G::row(i), M::row(i), Panic::row(i), Defer::row(i));
        assert!(hold(&g, &Type::row(i), &Itab::row(i)), "a fixed offset differs in a column");
        let [goid, later_goid] = go::G_GOID_WORDS;
        let goids = g.goid as usize == 8 * goid || g.goid as usize == 8 * later_goid;
        assert!(goids, "goid is in neither of the two words");
        assert!(AncestorInfo::row(i).size as usize == ANCESTOR_BYTES, "the size of ancestorInfo differs");
        assert!(within(g.labels, G_BYTES) && within(g.ancestors, G_BYTES), "g is copied in part");
        assert!(within(m.incgo, M_BYTES) && within(m.p, M_BYTES), "m is copied in part");
        assert!(
            within(panic.sp, PANIC_BYTES) && within(panic.goexit, PANIC_BYTES),
            "_panic is copied in part"
        );
        assert!(
            within(defer.link, DEFER_BYTES) && within(defer.fn_, DEFER_BYTES),
            "_defer is copied in part"
        );
        i += 1;
    }
};
