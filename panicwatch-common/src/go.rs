//! Offsets into Go's structs that are the same in every supported release, in bytes; and sizes that follow
//! from them.
//!
//! Where the layout table has the field, `gobin::offsets` of panicwatch-core asserts that every column
//! agrees. Fields that moved are in that table only; user space passes them to the eBPF programs in
//! [`Binary`](crate::binary::Binary).

/// `runtime.g.stack.lo`.
pub const G_STACK_LO: u64 = 0;
/// `runtime.g.stack.hi`.
pub const G_STACK_HI: u64 = 8;
/// `runtime.g._panic`, the newest panic in progress.
pub const G_PANIC: u64 = 32;
/// `runtime.g._defer`, the newest record of a deferred call.
pub const G_DEFER: u64 = 40;
/// `runtime.g.m`.
pub const G_M: u64 = 48;
/// The words of a g that hold `goid`, the one or the other in each release. The eBPF stack can be indexed by
/// constants only.
pub const G_GOID_WORDS: [usize; 2] = [19, 20];

/// `runtime.gobuf.g`, which points back to the g; in a g, relative to `sched.sp`.
/// <https://github.com/golang/go/blob/go1.24.11/src/runtime/runtime2.go> (gobuf)
pub const GOBUF_G: u64 = 16;
/// Distance below g0's `sched.sp` of the g that `mcall` left on g0's stack.
/// <https://github.com/golang/go/blob/go1.24.11/src/runtime/asm_amd64.s> (mcall)
pub const MCALL_G: u64 = 8;
/// Distance from a saved frame pointer to the return address.
pub const RETURN_ADDRESS: u64 = 8;
/// Distance from the stack pointer to the first argument of a function in ABI0, above the return address.
pub const ABI0_ARGUMENT: u64 = 8;
/// `runtime.sigctxt.ctxt`; `info` is at 0.
/// <https://github.com/golang/go/blob/go1.24.11/src/runtime/signal_linux_amd64.go>
pub const SIGCTXT_CTXT: u64 = 8;

/// The length of a string; its bytes' address is at 0.
pub const STRING_LEN: u64 = 8;
/// The length of a slice; its first element's address is at 0.
pub const SLICE_LEN: u64 = 8;
/// The data word of an interface; its type or itab is at 0.
pub const INTERFACE_DATA: u64 = 8;

/// `internal/abi.Type.Size_`.
pub const TYPE_SIZE: u64 = 0;
/// `internal/abi.Type.Kind_`.
pub const TYPE_KIND: u64 = 23;
/// `internal/abi.PtrType.Elem`, the first word after the common prefix of type descriptors.
pub const POINTER_ELEM: u64 = 48;
/// `internal/abi.ITab.Type`; the interface is at 0.
pub const ITAB_TYPE: u64 = 8;
/// `internal/abi.Method.Mtyp`; the name is at 0.
/// <https://github.com/golang/go/blob/go1.24.11/src/internal/abi/type.go> (Method)
pub const METHOD_MTYP: u64 = 4;
/// `internal/abi.Method.Tfn`.
pub const METHOD_TFN: u64 = 12;
/// Size of `internal/abi.Method`.
pub const METHOD_SIZE: u64 = 16;
/// `internal/abi.StructField.Typ`; the name is at 0.
/// <https://github.com/golang/go/blob/go1.24.11/src/internal/abi/type.go> (StructField)
pub const STRUCT_FIELD_TYP: u64 = 8;
/// `internal/abi.StructField.Offset`.
pub const STRUCT_FIELD_OFFSET: u64 = 16;
/// Size of `internal/abi.StructField`.
pub const STRUCT_FIELD_SIZE: u64 = 24;
/// `runtime.pcHeader.textStart`.
/// <https://github.com/golang/go/blob/go1.24.11/src/runtime/symtab.go> (pcHeader)
pub const PC_HEADER_TEXT_START: u64 = 24;

/// `runtime.hmap.flags`, of the maps that hold labels up to Go 1.23; the number of entries is at 0.
/// <https://github.com/golang/go/blob/go1.23.9/src/runtime/map.go#L117>
pub const HMAP_FLAGS: u64 = 8;
/// `runtime.hmap.B`, the logarithm of the number of buckets.
pub const HMAP_B: u64 = 9;
/// `runtime.hmap.buckets`.
pub const HMAP_BUCKETS: u64 = 16;
/// `runtime.hmap.oldbuckets`, from which a growing map still moves entries.
pub const HMAP_OLD_BUCKETS: u64 = 24;
/// Size of `runtime.hmap`.
pub const HMAP_SIZE: u64 = 48;
/// Number of slots of a bucket of a map.
pub const BUCKET_SLOTS: u64 = 8;
/// Size of the header of a string.
pub const STRING_SIZE: u64 = 16;
/// The first key of a bucket, after a byte per slot; of a map from strings to strings, like those below.
pub const BUCKET_KEYS: u64 = BUCKET_SLOTS;
/// The first value of a bucket.
pub const BUCKET_VALUES: u64 = BUCKET_KEYS + BUCKET_SLOTS * STRING_SIZE;
/// The address of a bucket's overflow bucket.
pub const BUCKET_OVERFLOW: u64 = BUCKET_VALUES + BUCKET_SLOTS * STRING_SIZE;
/// Size of a bucket.
pub const BUCKET_SIZE: u64 = BUCKET_OVERFLOW + 8;
