//! What crosses for `panicwatch trace`: the settings, the fetch lists, and the records.
//!
//! In a session without data a record goes into a ring of its CPU, in memory that user space maps: ring slot `i` of CPU
//! `c` is element `c * slots + i % slots`. A writer that finds room takes the next number `i` with an atomic addition, writes the record
//! and then `seq = i + 1`; the reader takes what it can, in order, and says with `Head::taken` that there is room again.
//! Records with data have many sizes: sessions with such put all of theirs into one of the kernel's ring buffers.
//!
//! The cookie of a traced site is not that of the other probes: see [`cookie`].

/// Settings of a tracing session: the one row of `TRACE_CONFIG`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TraceConfig {
    /// Trace this process without asking `WATCHED`, which costs more; 0 for none.
    pub tgid: u32,
    /// Not zero: trace every process of the binary.
    pub all: u32,
    /// Trace this goroutine only; 0 for all.
    pub goid: u64,
    /// `runtime.g.goid`.
    pub g_goid: u32,
    /// `runtime._panic.sp`: where a recovered goroutine continues; [`NO_OFFSET`] where `runtime.recovery` takes that
    /// from `g.sigcode0`.
    pub panic_sp: u32,
    /// `runtime.g.sigcode0`.
    pub g_sigcode0: u32,
    /// Not zero: callers are wanted.
    pub stack: u32,
    /// Slots of a CPU's ring, less one; they are a power of two. 0: the session has data.
    pub slot_mask: u32,
    /// Not zero: entries are counted, and nothing is told.
    pub count_only: u32,
}

/// "There is no such field."
pub const NO_OFFSET: u32 = u32::MAX;

const _: () = assert!(size_of::<TraceConfig>() == 40);

/// Most functions of one session.
pub const MAX_FUNCTIONS: u32 = 1 << 20;

/// Site flag: on the stack check's jump; with CF or ZF set the function will start again.
pub const ON_STACK_CHECK: u64 = 1;

/// A traced site's cookie: the function's number, flags, and how many bytes the stack pointer is below the return
/// address there.
pub const fn cookie(function: u32, flags: u64, below: u32) -> u64 {
    (below as u64) << 40 | (flags & 0xff) << 32 | function as u64
}

/// Counters of one function, per CPU.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that began.
    pub entries: u64,
    /// Calls that returned, where that is looked at.
    pub exits: u64,
    /// Entries for whose record the ring had no room.
    pub lost_entries: u64,
    /// Exits likewise.
    pub lost_exits: u64,
}

const _: () = assert!(size_of::<Counts>() == 32);

/// `Hit::kind`: what happened. Zero is never used.
pub mod kind {
    /// A call began.
    pub const ENTRY: u8 = 1;
    /// A call is about to return.
    pub const EXIT: u8 = 2;
    /// `runtime.recovery`: the goroutine continues with `Hit::depth` as its stack pointer; calls below are gone.
    pub const RECOVERY: u8 = 3;
    /// `runtime.goexit0`: the goroutine has ended.
    pub const GONE: u8 = 4;
}

/// `Hit::flags`.
pub mod flag {
    /// The g register does not name a goroutine on whose stack this is: `goid` is 0 and `depth` the inverted low half
    /// of where the return address lies.
    pub const NO_GOROUTINE: u8 = 1;
    /// The g register names a thread's own stack (g0, gsignal): `goid` is the address of that g.
    pub const SYSTEM_STACK: u8 = 2;
    /// The callers are there.
    pub const STACK: u8 = 4;
    /// The data is there.
    pub const DATA: u8 = 8;
}

/// Start of every record; without flags, all of it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hit {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// Goroutine.
    pub goid: u64,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// The function's number, in the low 24 bits.
    pub function: u32,
    /// Bytes from the return address up to `stack.hi`: the same for one call at its entry and its exit, also when the
    /// stack has moved between them.
    pub depth: u32,
    /// See [`kind`].
    pub kind: u8,
    /// See [`flag`].
    pub flags: u8,
    /// Zero.
    pub reserved: u16,
    /// Zero.
    pub reserved_too: u32,
}

const _: () = assert!(size_of::<Hit>() == 40);

impl Hit {
    /// As it lies in memory.
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: a `Hit` consists of integers without padding, and lives as long as the slice.
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), size_of::<Hit>()) }
    }
}

/// A record in a CPU's ring.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slot {
    /// Number of this record on its CPU, plus one.
    pub seq: u64,
    /// The record.
    pub hit: Hit,
}

const _: () = assert!(size_of::<Slot>() == 48);

/// Slots that a writer leaves free: as many others of its CPU may be between looking whether there is room and taking
/// their number (a thread can be preempted there).
pub const SPARE_SLOTS: u64 = 256;

/// How far a CPU's ring has come: a cache line of the writer's, and one of the reader's.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Records ever begun.
    pub begun: u64,
    /// Keeps the reader's word off this line.
    pub reserved: [u64; 7],
    /// Records ever taken by the reader, who writes it.
    pub taken: u64,
    /// Keeps the next CPU's off this line.
    pub reserved_too: [u64; 7],
}

const _: () = assert!(size_of::<Head>() == 128);

/// Return addresses that are looked at.
pub const STACK_FRAMES: usize = 30;

/// The callers, by frame pointers.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stack {
    /// How many of `frames` hold something.
    pub count: u64,
    /// Return addresses, the innermost first.
    pub frames: [u64; STACK_FRAMES],
}

const _: () = assert!(size_of::<Stack>() == 248);

/// Words at the start of [`Full::data`]: the integer registers in the order of Go's ABI, and where the return
/// address lies.
pub const WORDS: usize = 10;
/// Index of the latter.
pub const FRAME_WORD: usize = 9;
/// Most bytes of one step.
pub const STEP_BYTES: usize = 256;
/// Most steps of one list.
pub const STEPS: usize = 16;
/// A small record's offsets are below this, a power of two: that is all that the kernel's verifier sees of them.
pub const SMALL_LIMIT: usize = 256;
/// Those of a large one.
pub const LARGE_LIMIT: usize = 2048;
/// Bytes for a list that asks for little.
pub const SMALL_BYTES: usize = SMALL_LIMIT + STEP_BYTES;
/// Bytes for any list.
pub const LARGE_BYTES: usize = LARGE_LIMIT + STEP_BYTES;

/// One read of the target's memory: from the address in the word at `base` of the data, plus `add`, to `to`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Step {
    /// Offset in the data of the word with the address.
    pub base: u16,
    /// Offset in the data to read to.
    pub to: u16,
    /// Most bytes, at most [`STEP_BYTES`].
    pub max: u16,
    /// Offset in the data of a word that says how many elements there are; [`NO_COUNT`] for `max` bytes.
    pub count: u16,
    /// Bytes of an element.
    pub size: u32,
    /// Added to the address.
    pub add: i32,
}

/// `Step::count`: the length is fixed.
pub const NO_COUNT: u16 = u16::MAX;

const _: () = assert!(size_of::<Step>() == 16);

/// What to read at a site: a row of `TRACE_FETCH`, two for each function (entry, exit).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchList {
    /// How many of `steps` count.
    pub count: u32,
    /// Not zero: a record of [`LARGE_BYTES`].
    pub large: u32,
    /// In order; a step may use what an earlier one read.
    pub steps: [Step; STEPS],
}

const _: () = assert!(size_of::<FetchList>() == 8 + 16 * STEPS);

/// A record with more than the [`Hit`].
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Full<const BYTES: usize> {
    /// What happened.
    pub hit: Hit,
    /// The instruction under the probe: tells where the process has the binary.
    pub ip: u64,
    /// With [`flag::STACK`], the callers.
    pub stack: Stack,
    /// Bit i: step i was done.
    pub done: u64,
    /// Registers ([`WORDS`]), then what the steps read.
    pub data: [u8; BYTES],
}

const _: () = assert!(size_of::<Full<SMALL_BYTES>>() == 40 + 8 + 248 + 8 + SMALL_BYTES);
