//! The compiled eBPF object, as the build script wrote it. Does not interpret its contents.

// Defines `object_is_built`: empty, or an error that is raised at code generation only (see build.rs).
include!(concat!(env!("OUT_DIR"), "/ebpf_object.rs"));

/// Returns the ELF object of `panicwatch-ebpf`, aligned as aya's parser requires.
pub fn object() -> &'static [u8] {
    object_is_built::<()>();
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/panicwatch.bpf.o"))
}
