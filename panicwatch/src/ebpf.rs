//! The compiled eBPF programs, as the build script left them. Knows nothing of what they do.

// Defines `object_is_built`: empty, or an error that only code generation meets (see build.rs).
include!(concat!(env!("OUT_DIR"), "/ebpf_object.rs"));

/// The ELF object of `panicwatch-ebpf`, aligned as its parser needs it.
pub fn object() -> &'static [u8] {
    object_is_built::<()>();
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/panicwatch.bpf.o"))
}
