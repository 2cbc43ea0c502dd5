//! Why an eBPF program could not do its work: one number and one sentence for both sides.

/// Number of [`Reason`]s.
pub const REASONS: u32 = 10;

macro_rules! reasons {
    ($($name:ident = $n:literal, $text:literal;)*) => {
        /// The counted failures; the value is the index into the `FAILURES` map.
        #[repr(u32)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Reason { $(#[doc = $text] $name = $n,)* }

        impl Reason {
            /// Every reason, in order.
            pub const ALL: [Reason; REASONS as usize] = [$(Reason::$name,)*];

            /// The sentence for people.
            pub const fn sentence(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }
        }
    };
}

reasons! {
    RingFull = 0, "the event ring was full and an event was lost";
    MemoryRingFull = 1, "the event ring was full and a piece of captured memory was lost";
    NoBinary = 2, "a probe fired for a binary that is not in the table";
    NoGoroutine = 3, "the goroutine could not be read from the g register";
    StackRead = 4, "a part of the stack could not be read";
    WatchedFull = 5, "the table of watched processes is full";
    PlacesFull = 6, "a panic could not even be counted: the table of places is full";
    NoRing = 7, "a record was lost on a CPU that came after panicwatch had begun: it has no ring there";
    ValueTooLarge = 8, "a panic value refers to more objects than are copied";
    CaptureTime = 9, "a capture reached its time limit and the rest was not copied";
}
