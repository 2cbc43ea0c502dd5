//! Data shared by `panicwatch trace` and its programs: the settings, the fetch lists, and the records.
//!
//! In a session without data, a program writes each record to a ring of its CPU, in memory that user space
//! maps: ring slot `i` of CPU `c` is element `c * slots + i % slots`. A writer that finds room takes the next
//! number `i` with an atomic addition, writes the record and then sets `seq = i + 1`. The reader takes
//! complete records in order and frees their slots by advancing `Head::taken`. Records with data vary in
//! size, so a session with data sends all its records through one of the kernel's ring buffers.
//!
//! The cookie of a traced site differs from that of other probes: see [`cookie`].

/// Settings of a tracing session: the single row of `TRACE_CONFIG`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TraceConfig {
    /// Process to trace without a lookup in `WATCHED`, which costs more; 0 for none.
    pub tgid: u32,
    /// Nonzero: trace every process of the binary.
    pub all: u32,
    /// Goroutine id to which tracing is restricted; 0 for all goroutines.
    pub goid: u64,
    /// Offset of `runtime.g.goid`.
    pub g_goid: u32,
    /// Offset of `runtime._panic.sp`, the stack pointer with which a recovered goroutine continues;
    /// [`NO_OFFSET`] where `runtime.recovery` takes it from `g.sigcode0`.
    pub panic_sp: u32,
    /// Offset of `runtime.g.sigcode0`.
    pub g_sigcode0: u32,
    /// Nonzero: record the callers of each entry.
    pub stack: u32,
    /// Number of slots in one CPU's ring, minus one; the number is a power of two. 0: the session has data.
    pub slot_mask: u32,
    /// Nonzero: count entries and write no records.
    pub count_only: u32,
}

/// Offset of a field that does not exist.
pub const NO_OFFSET: u32 = u32::MAX;

const _: () = assert!(size_of::<TraceConfig>() == 40);

/// Maximum number of functions in one session.
pub const MAX_FUNCTIONS: u32 = 1 << 20;

/// Site flag: the probed instruction is the stack check's jump; with CF or ZF set, the function will start
/// again.
pub const ON_STACK_CHECK: u64 = 1;

/// Returns a traced site's cookie: the function's number, site flags, and the number of bytes from the stack
/// pointer up to the return address at that site.
pub const fn cookie(function: u32, flags: u64, below: u32) -> u64 {
    (below as u64) << 40 | (flags & 0xff) << 32 | function as u64
}

/// Counters of one function on one CPU.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that began.
    pub entries: u64,
    /// Calls that returned, where exits are probed.
    pub exits: u64,
    /// Entries whose record was lost because the ring was full.
    pub lost_entries: u64,
    /// Exits whose record was lost because the ring was full.
    pub lost_exits: u64,
}

const _: () = assert!(size_of::<Counts>() == 32);

/// Values of [`Hit::kind`]. Zero is never used.
pub mod kind {
    /// A call began.
    pub const ENTRY: u8 = 1;
    /// A call is about to return.
    pub const EXIT: u8 = 2;
    /// `runtime.recovery`: the goroutine continues at stack depth [`Hit::depth`](super::Hit::depth); calls
    /// deeper than that are gone.
    pub const RECOVERY: u8 = 3;
    /// `runtime.goexit0`: the goroutine has ended.
    pub const GONE: u8 = 4;
}

/// Bits of [`Hit::flags`].
pub mod flag {
    /// The g register does not hold a goroutine whose stack contains this frame: `goid` is 0, and `depth` is
    /// the complement of the low half of the address at which the return address is stored.
    pub const NO_GOROUTINE: u8 = 1;
    /// The g register holds the g of a thread's own stack (g0, gsignal): `goid` is the address of that g.
    pub const SYSTEM_STACK: u8 = 2;
    /// The record has the callers.
    pub const STACK: u8 = 4;
    /// The record has data.
    pub const DATA: u8 = 8;
}

/// Header of every record; a record without [`flag::STACK`] and [`flag::DATA`] consists of nothing else.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hit {
    /// Time of the hit, CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// Goroutine id, subject to the flags.
    pub goid: u64,
    /// Process ID (thread group).
    pub tgid: u32,
    /// Thread ID in the host's PID namespace.
    pub tid: u32,
    /// Number of the function, in the low 24 bits.
    pub function: u32,
    /// Bytes from the return address up to `stack.hi`: the same at the entry and the exit of one call, even
    /// if the stack was moved in between.
    pub depth: u32,
    /// What happened, see [`kind`].
    pub kind: u8,
    /// Bits of [`flag`].
    pub flags: u8,
    /// Padding, always zero.
    pub reserved: u16,
    /// Padding, always zero.
    pub reserved_too: u32,
}

const _: () = assert!(size_of::<Hit>() == 40);

impl Hit {
    /// Returns the bytes of the record as they are in memory.
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: a `Hit` consists of integers without padding and lives as long as the slice.
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), size_of::<Hit>()) }
    }
}

/// A record in one CPU's ring.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slot {
    /// Number of this record on its CPU, plus one.
    pub seq: u64,
    /// The part that all hits have.
    pub hit: Hit,
}

const _: () = assert!(size_of::<Slot>() == 48);

/// Slots that a writer leaves free: so many other writers of its CPU may be between the check for room and
/// taking their number (a thread can be preempted there).
pub const SPARE_SLOTS: u64 = 256;

/// Positions in one CPU's ring: one cache line for the writer and one for the reader.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Number of records ever begun; advanced by the writers.
    pub begun: u64,
    /// Padding that keeps the reader's word off this cache line.
    pub reserved: [u64; 7],
    /// Number of records ever taken; advanced by the reader.
    pub taken: u64,
    /// Padding that keeps the next CPU's words off this cache line.
    pub reserved_too: [u64; 7],
}

const _: () = assert!(size_of::<Head>() == 128);

/// Maximum number of return addresses in a record; the innermost are kept. Crossed by `fn callers`.
pub const STACK_FRAMES: usize = 30;

/// Callers of a function, found by frame pointers.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stack {
    /// Number of used entries of `frames`.
    pub count: u64,
    /// Return addresses, innermost first.
    pub frames: [u64; STACK_FRAMES],
}

const _: () = assert!(size_of::<Stack>() == 248);

/// No bound: the layout of a record. Number of words at the start of [`Full::data`]: the integer registers
/// in the order of Go's ABI, then the address at which the return address is stored.
pub const WORDS: usize = 10;
/// Index of the word that holds the address of the return address.
pub const FRAME_WORD: usize = 9;
/// Maximum number of bytes that one step reads.
pub const STEP_BYTES: usize = 256;
/// Maximum number of steps in one list.
pub const STEPS: usize = 16;
/// Exclusive upper bound of the data offsets in a small record; a power of two, applied as a mask that bounds
/// the offset for the kernel's verifier.
pub const SMALL_LIMIT: usize = 256;
/// Exclusive upper bound of the data offsets in a large record; a power of two.
pub const LARGE_LIMIT: usize = 2048;
/// Data bytes of a small record, for lists that read little.
pub const SMALL_BYTES: usize = SMALL_LIMIT + STEP_BYTES;
/// Data bytes of a large record, for any list.
pub const LARGE_BYTES: usize = LARGE_LIMIT + STEP_BYTES;

/// One read of the target's memory, from the address in the data word at `base`, plus `add`, to offset `to`
/// of the data.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Step {
    /// Offset in the data of the word that holds the address.
    pub base: u16,
    /// Offset in the data to which the step reads.
    pub to: u16,
    /// Maximum number of bytes to read, at most [`STEP_BYTES`].
    pub max: u16,
    /// Offset in the data of the word that holds the number of elements; [`NO_COUNT`] to read `max` bytes.
    pub count: u16,
    /// Size of one element in bytes.
    pub size: u32,
    /// Number of bytes added to the address.
    pub add: i32,
}

/// Value of [`Step::count`] for a read of fixed length.
pub const NO_COUNT: u16 = u16::MAX;

const _: () = assert!(size_of::<Step>() == 16);

/// Reads to perform at a site: a row of `TRACE_FETCH`, which has two for each function (entry, exit).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchList {
    /// Number of used entries of `steps`.
    pub count: u32,
    /// Nonzero: the list needs a record of [`LARGE_BYTES`].
    pub large: u32,
    /// Steps in execution order; a step may use what an earlier one read.
    pub steps: [Step; STEPS],
}

const _: () = assert!(size_of::<FetchList>() == 8 + 16 * STEPS);

/// A record with more than the [`Hit`].
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Full<const BYTES: usize> {
    /// The part that all hits have.
    pub hit: Hit,
    /// Run-time address of the probed instruction, from which user space derives the load bias.
    pub ip: u64,
    /// Callers, valid with [`flag::STACK`].
    pub stack: Stack,
    /// Bit `i` is set if step `i` succeeded.
    pub done: u64,
    /// Registers and frame address ([`WORDS`] words), then what the steps read.
    pub data: [u8; BYTES],
}

const _: () = assert!(size_of::<Full<SMALL_BYTES>>() == 40 + 8 + 248 + 8 + SMALL_BYTES);
